"""What is to be made, written down before the first of it is sent: the journal alone is then enough to go on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from kling_async._engine.identities import Identities
from kling_async._engine.upload import local_pictures
from kling_async._journal.entry import Entry
from kling_async._journal.journal import Journal
from kling_async._wire.codec import payload_of
from kling_async.errors import InvalidRequestError
from kling_async.models import VideoRequest

NOT_SENT_YET = "it was not sent yet"


async def plan(journal: Journal, requests: Iterable[VideoRequest], *, at: float) -> list[Entry | None]:
    """What the journal knew of each request, in order; one that is new to it is written down as not submitted.

    A request whose picture cannot be read is left out: nobody could recognise it.

    Args:
        journal: It is on the disk when this returns.
        requests: The items of a batch, in order.
        at: Unix seconds.

    Raises:
        JournalError: It could not be written.
    """
    identities = Identities()
    known: list[Entry | None] = []
    for request in requests:
        try:
            identity = await identities.of(request)
        except InvalidRequestError:
            continue
        entry = journal.find(identity)
        known.append(entry)
        if entry is None:
            payload = _portable(request)
            number = journal.intend(identity, model=request.model, payload=payload, at=at, cost_usd=None)
            journal.withdraw(number, error=NOT_SENT_YET)
    await journal.flush()
    return known


def _portable(request: VideoRequest) -> dict[str, Any]:
    """The payload, with local pictures by names that hold in any working folder."""
    payload = payload_of(request)
    return payload | {key: os.path.abspath(path) for key, path in local_pictures(request, payload)}  # noqa: PTH100 - links stay
