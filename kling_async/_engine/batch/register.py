"""What is to be made, written down before the first of it is sent: the journal alone is then enough to go on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from kling_async._engine.batch.item_identifier import ItemIdentifier
from kling_async._engine.submit.uploader import local_pictures
from kling_async._journal.entry import Entry, EntryState
from kling_async._journal.journal import Journal
from kling_async._wire.codec import payload_of
from kling_async.errors import InvalidRequestError
from kling_async.requests import VideoRequest


@attrs.frozen
class RegisteredBatch:
    """What a journal knew of an order."""

    known: Sequence[Entry | None]
    """The entry of each item as it was, in order; None for one that is new."""
    dropped: int
    """Entries of earlier orders that were never sent and are not to be sent any more."""


async def register_batch(journal: Journal, requests: Iterable[VideoRequest], *, at: float) -> RegisteredBatch:
    """Write down what is to be made: whoever goes on with the journal makes this, and nothing older.

    An item that is new becomes an entry that is not submitted. One of an earlier order that is not submitted and
    not among these is dropped: it may have been a mistake, and would cost money. An item whose picture cannot be read
    is left out.

    Args:
        journal: It is on the disk when this returns.
        requests: The items of a batch, in order.
        at: Unix seconds.

    Raises:
        JournalError: It could not be written.
    """
    identities = ItemIdentifier()
    known: list[Entry | None] = []
    wanted: set[int] = set()
    for request in requests:
        try:
            identity = await identities.of(request)
        except InvalidRequestError:
            continue
        entry = journal.find(identity)
        known.append(entry)
        if entry is None:
            payload = _portable(request)
            number = journal.record_intent(
                identity, model=request.model, payload=payload, at=at, cost_usd=None
            )
        else:
            number = entry.number
        if entry is None or entry.state is EntryState.DROPPED:
            journal.record_rejected(number, error="")
        wanted.add(number)
    dropped = _drop(journal, but=wanted)
    await journal.flush()
    return RegisteredBatch(known, dropped)


def _drop(journal: Journal, *, but: set[int]) -> int:
    count = 0
    for entry in journal.entries():
        if entry.state is EntryState.NOT_SUBMITTED and entry.number not in but:
            journal.end(entry.number, state=EntryState.DROPPED, record=None, error=entry.error)
            count += 1
    return count


def _portable(request: VideoRequest) -> dict[str, Any]:
    """The payload, with local pictures by names that hold in any working folder."""
    payload = payload_of(request)
    return payload | {key: os.path.abspath(path) for key, path in local_pictures(request, payload)}  # noqa: PTH100 - links stay
