"""The input of a distributed batch: read and checked as `generate_many` does, and registered in the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import attrs

from kling_async._distributed.awaited_item import AwaitedItem
from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.outcomes import result_of_end
from kling_async._distributed.shards import ShardItem
from kling_async._engine.batch.batch_input import InputItem, open_input
from kling_async._engine.batch.resume import NextStep, next_step, plan_item
from kling_async._engine.batch.settings import BatchSettings, split_options
from kling_async._engine.submit.item_identifier import ItemIdentifier, repeated_entry, wanted_item
from kling_async._engine.threads import run_in_thread
from kling_async._journal.entry import Entry
from kling_async._journal.location import DatabaseUrl
from kling_async._journal.postgres.store import PostgresStore
from kling_async._journal.shared_store import WantedItem
from kling_async._policy.budget import Budget
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.results import Result, ResultState
from kling_async.types import Requests


@attrs.define(eq=False)
class BatchInput:
    """The items of a call, by what is to be done with them."""

    awaited: dict[int, AwaitedItem] = attrs.field(factory=dict)
    """By the number of its entry, each item that a worker has to end."""
    numbers: set[int] = attrs.field(factory=set)
    """The numbers of the entries of all items."""
    ended: list[Result] = attrs.field(factory=list)
    """The results of items that an earlier run has ended, and of items that are invalid."""


async def read_items(requests: Requests, options: Mapping[str, Any]) -> tuple[list[InputItem], BatchSettings]:
    """All items of the input and the settings of the batch, checked before anything is written.

    Raises:
        InvalidRequestError: An item is invalid, or its local picture cannot be read, and such items are not to be skipped.
        ConfigurationError: An option makes no sense, or an item has no price under a cap.
    """
    given = split_options(options)
    settings = given.settings
    if settings.max_cost_usd is not None and settings.prices is None:
        raise ConfigurationError(
            "A cap needs the price of a video.",
            advice="Give prices={'kling-v2-6': Decimal('0.35')}, or prices='catalog'.",
        )
    budget = Budget(settings.prices, settings.max_cost_usd)
    reader = open_input(requests, given.video, settings, budget, has_journal=True)
    items = []
    try:
        while (item := await reader.next_item()) is not None:
            if item.error is not None and item.entry is None and not settings.skip_invalid:
                advice = [item.error.advice, "skip_invalid=True leaves it out."]
                raise InvalidRequestError(
                    f"Item {item.index}: {item.error.message}", advice=" ".join(filter(None, advice))
                ) from item.error
            items.append(item)
    finally:
        await reader.close()
    return items, settings


async def register_items(
    database: WorkersDatabase, items: Sequence[InputItem], *, output: str | None, retry_failed: bool
) -> BatchInput:
    """Register the items, and divide them into those that a worker has to end and those that have ended.

    An item that is an entry is as the journal has had it a moment ago.

    Raises:
        ConfigurationError: An item is an entry that the batch has twice.
        JournalError: The journal cannot be used.
    """
    identifier, new = ItemIdentifier(), {}
    for item in items:
        if item.entry is None and item.request is not None and item.error is None:
            identity = identifier.identify_request(item.request, item.digests)
            new[item.index] = wanted_item(item.request, identity, index=item.index)
    # Also without new items: this makes the journal if it is missing.
    registered = await run_in_thread(partial(_register, database.url, list(new.values())))
    entries = dict(zip(new, registered, strict=True))
    entries |= {item.index: item.entry for item in items if item.entry is not None}
    batch = BatchInput()
    for item in items:
        _add(batch, item, entries.get(item.index), output, retry_failed=retry_failed)
    return batch


def _register(url: DatabaseUrl, items: Sequence[WantedItem]) -> Sequence[Entry]:
    store = PostgresStore(url)
    try:
        return store.register(items)
    finally:
        store.close()


def is_saved_in(output: str, entry: Entry) -> bool:
    """Whether the journal says that the video is there. The file can be on the disk of another machine, so this trusts it."""
    return entry.path is not None and entry.path == f"{output.rstrip('/')}/{PurePath(entry.path).name}"


def _add(
    batch: BatchInput, item: InputItem, entry: Entry | None, output: str | None, *, retry_failed: bool
) -> None:
    if entry is None:
        state = ResultState.NOT_SUBMITTED
        batch.ended.append(Result(index=item.index, request=item.request, state=state, error=item.error))
        return
    if entry.number in batch.numbers:
        raise repeated_entry(entry)
    batch.numbers.add(entry.number)
    is_saved = output is None or is_saved_in(output, entry)
    step = next_step(entry, retry_failed=retry_failed)
    if step is NextStep.REPORT and (is_saved or not (entry.job and entry.job.is_success)):
        batch.ended.append(result_of_end(entry, index=item.index, request=item.request))
        return
    plan = plan_item(entry, retry_failed=retry_failed)
    shard_item = ShardItem(entry.number, item.index, plan.attempts, retry_failed=plan.retry_failed)
    made = entry.job if step is NextStep.REPORT else None
    job_id = None if step is NextStep.SUBMIT else entry.request_id
    batch.awaited[entry.number] = AwaitedItem(item=shard_item, request=item.request, made=made, job_id=job_id)
