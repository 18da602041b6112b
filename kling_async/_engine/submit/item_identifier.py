"""Identifies the items of a batch across runs: by key, by payload, and by the number of equal items before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import attrs

from kling_async._engine.submit.uploader import local_pictures, payload_with_absolute_paths
from kling_async._journal.entry import Entry, Identity, fingerprint, former_fingerprint, visible_key
from kling_async._journal.shared_store import WantedItem
from kling_async._wire.payloads import payload_of
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.requests import VideoRequest, model_of


@attrs.define(eq=False)
class ItemIdentifier:
    """Identifies the items of one batch in their order; the same items get the same identities in every run."""

    _occurrences: Counter[tuple[str | None, str]] = attrs.field(init=False, factory=Counter)
    _identities_of_entries: set[Identity] = attrs.field(init=False, factory=set)
    """The identities of journal entries that the input gives as items."""

    def identify_request(self, request: VideoRequest, digests: Mapping[str, str]) -> Identity:
        """The identity of the next item, given as a request; a second call with an equal request gives another identity.

        Args:
            request: The request.
            digests: The SHA-256 of each local picture, by its path.
        """
        now, former = _fingerprints(request, digests)
        key = visible_key(request.key)
        while True:
            identity = Identity(key, now, self._occurrences[key, now], former_fingerprint=former)
            self._occurrences[key, now] += 1
            if identity not in self._identities_of_entries:
                return identity

    def identify_entry(self, entry: Entry, digests: Mapping[str, str]) -> Identity:
        """The identity of the next item, given as an entry of the journal.

        Args:
            entry: The entry.
            digests: See `identify_request`.

        Raises:
            ConfigurationError: The batch has the same item already.
            InvalidRequestError: A local picture has changed since the entry was written.
        """
        identity = entry.identity
        counted = self._occurrences[identity.key, identity.fingerprint]
        if identity in self._identities_of_entries or identity.occurrence < counted:
            raise repeated_entry(entry)
        self._identities_of_entries.add(identity)
        request = entry.request
        if request is not None and digests and identity.fingerprint not in _fingerprints(request, digests):
            names = " or ".join(map(repr, digests))
            raise InvalidRequestError(
                f"{names} has changed since item {entry.index} of the journal was written: restore the old picture, "
                "or submit the new one in a request of its own."
            )
        return identity


def _fingerprints(request: VideoRequest, digests: Mapping[str, str]) -> tuple[str, str | None]:
    """The fingerprint of the payload, and the one in journals of version 1 if that cannot be brought up to date.

    Digests stand for local pictures, so neither depends on where the pictures are uploaded. For the same reason the
    former fingerprint cannot be computed from a journal, which has only their URLs.
    """
    payload = payload_of(request)
    for key, path in local_pictures(request):
        payload[key] = {"sha256": digests[path]}
    now = fingerprint(model_of(request), payload)
    former = former_fingerprint(model_of(request), payload) if digests else now
    return now, None if former == now else former


def wanted_item(request: VideoRequest, identity: Identity, *, index: int) -> WantedItem:
    """The item as a shared journal has to know it, to make its entry if that is missing."""
    return WantedItem(
        identity=identity,
        model=model_of(request),
        payload=payload_with_absolute_paths(request),
        index=index,
    )


def repeated_entry(entry: Entry) -> ConfigurationError:
    """The error of an entry that the batch has twice."""
    return ConfigurationError(
        f"Item {entry.index} of the journal is in this batch already: give each entry once."
    )


def foreign_entry(entry: Entry) -> ConfigurationError:
    """The error of an entry that the journal of the batch does not have."""
    return ConfigurationError(
        f"Item {entry.index} is not in the journal of this batch: give the batch the journal that the entry is from."
    )
