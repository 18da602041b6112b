"""What a process agrees on with others about a journal that no other process writes: nothing, and so every POST may be sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

import attrs

from kling_async._journal.entry import Entry, Identity
from kling_async._journal.group_commit import GroupCommit
from kling_async._journal.present_entries import PresentEntries
from kling_async._journal.shared_store import Claim, PostDecision, PostPermit, WantedItem
from kling_async._journal.store import Activity

_ALLOWED = PostPermit(PostDecision.ALLOWED)


@attrs.frozen(eq=False)
class SoleProcess:
    """The methods of `Sharing` for the only process that writes a journal: each is one look into memory or the file."""

    is_shared: ClassVar = False
    """Whether other processes write the journal too."""
    _writes: GroupCommit
    _entries: PresentEntries

    # Items

    async def claim(self, identity: Identity, describe: Callable[[], WantedItem]) -> Claim:  # noqa: ARG002
        """The entry of an item, if there is one: it is held already, and the first intent makes a missing one."""
        return Claim(entry=self._entries.find(identity))

    async def wait_claimable(self, identity: Identity) -> None:
        """Return at once."""

    async def wait_changed(self) -> None:
        """Return at once: nothing that another process does is waited for."""

    def release(self, number: int) -> None:
        """Do nothing."""

    # POSTs

    async def reserve_post(
        self,
        number: int,  # noqa: ARG002
        *,
        model: str,  # noqa: ARG002
        payload: Mapping[str, Any],  # noqa: ARG002
        price_usd: Decimal | None,  # noqa: ARG002
        cap_usd: Decimal | None,  # noqa: ARG002
    ) -> PostPermit:
        """Leave to send the POST: the budget of the batch has all the money."""
        return _ALLOWED

    async def is_job_taken(self, number: int) -> bool:  # noqa: ARG002
        """False: no other process matches a job."""
        return False

    async def confirm_intent(self, number: int) -> None:  # noqa: ARG002
        """Return when the intent of an entry is in the store.

        Raises:
            JournalError: The intent could not be written.
        """
        await self._writes.wait_durable()

    async def take_turn(self, *, rate: float, burst: float) -> float:  # noqa: ARG002
        """No wait: the rate of the client is the only one."""
        return 0.0

    def end(self, number: int, activity: Activity) -> None:
        """Do nothing."""

    # Reconciliations

    async def begin_reconciliation(self, number: int, *, model: str, payload: Mapping[str, Any]) -> None:
        """Do nothing."""

    def raise_if_taken_over(self, number: int) -> None:
        """Do nothing."""

    async def find_searchable(self, numbers: Collection[int]) -> set[int]:
        """All the reconciliations."""
        return set(numbers)

    async def match_job(self, number: int, request_id: str) -> bool:  # noqa: ARG002
        """True: no other process has a lost submit."""
        return True

    async def find_jobs(self, request_ids: Collection[str]) -> set[str]:
        """Those of the ids whose job an entry has, or had in an earlier attempt."""
        return set(filter(self._entries.has_job, request_ids))

    async def find_unknown(self, model: str) -> Sequence[Entry]:
        """The unknown attempts of a model, by number and attempt."""
        return [entry for entry in self._entries.find_unknown() if entry.model == model]
