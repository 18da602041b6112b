"""The organization and the user of this client's key: jobs of others stand in the same list."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from kling_async.jobs import NO_ACCOUNT_ID, Job, canonical_id


@attrs.define
class OwnUser:
    """The organization and the user of this client's key, as far as records of its own jobs have named them.

    A record may name none of the two. Then it neither teaches nor denies anything.

    Source: full records name `org_id` and `user_id`; the short answer to a POST names neither.
    """

    organizations: set[str] = attrs.field(factory=set)
    """The ids that records of own jobs have named; several only if the service contradicts itself."""
    users: set[str] = attrs.field(factory=set)
    """The ids of users that records of own jobs have named."""

    def learn(self, job: Job) -> None:
        """Take in a record of a job that is certainly this client's."""
        for known, named in self._compare(job):
            if named is not None and named != NO_ACCOUNT_ID:
                known.add(named)

    @property
    def is_known(self) -> bool:
        """Whether both ids are known."""
        return bool(self.organizations and self.users)

    def is_other(self, job: Job) -> bool:
        """Whether a record says that its job is of another organization or of another user."""
        return any(named is not None and known and named not in known for known, named in self._compare(job))

    def may_be_mixed(self, jobs: Iterable[Job]) -> bool:
        """Whether some of these jobs must be of others, and nothing is known that says which."""
        named_ids = [[named for _, named in self._compare(job)] for job in jobs if not self.is_other(job)]
        return any(
            not known and len({ids[field] for ids in named_ids} - {None}) > 1
            for field, known in enumerate((self.organizations, self.users))
        )

    def _compare(self, job: Job) -> tuple[tuple[set[str], str | None], tuple[set[str], str | None]]:
        """For the organization and for the user: the known ids, and the id that a record names."""
        return (
            (self.organizations, canonical_id(job.organization_id or "") or None),
            (self.users, canonical_id(job.user_id or "") or None),
        )
