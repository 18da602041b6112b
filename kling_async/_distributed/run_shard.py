"""One shard on a worker: its entries through `stream_many`, with the options of its batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs

from kling_async._callbacks import SafeLogger
from kling_async._distributed.batch_record import BatchRecord
from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.outage import Contact
from kling_async._distributed.reports import Reporter
from kling_async._distributed.shards import ShardItem
from kling_async._distributed.trouble import (
    Trouble,
    find_reason,
    find_trouble,
    has_final_job,
    is_outage_of_store,
)
from kling_async._engine.batch.batch_input import InputItem
from kling_async._journal.entry import Entry
from kling_async.client import KlingClient
from kling_async.errors import (
    ConfigurationError,
    KlingError,
)
from kling_async.events import Event
from kling_async.journal import Journal
from kling_async.results import Result

_log = SafeLogger("kling_async")


class WorkerRefusedError(Exception):
    """This worker cannot run the shard, and another one may be able to.

    Args:
        error: Why the worker cannot.
    """

    def __init__(self, error: KlingError) -> None:
        super().__init__(error.message)
        self.error = error


@attrs.frozen(kw_only=True)
class ShardRun:
    """The parts of the run of a shard."""

    client: KlingClient
    database: WorkersDatabase
    record: BatchRecord
    reporter: Reporter
    is_stopping: Callable[[], bool]
    """Whether the worker submits nothing more."""
    contact: Contact = attrs.field(factory=Contact)
    """What this run has seen of the service."""
    is_last_try: bool = False
    """Whether an item that cannot be submitted for a transient trouble ends with it, instead of being given back."""

    async def run(self, items: Sequence[ShardItem]) -> int:
        """Run the items of the shard, and write down how each ended; how many are left for another run.

        Raises:
            WorkerRefusedError: The service refuses this worker, or the worker cannot obey the options.
            KlingError: The journal cannot be used.
        """
        try:
            options = await self.record.read_options()
        except ConfigurationError as error:
            raise WorkerRefusedError(error) from error
        entries = await self.database.require_entries({item.number for item in items})
        ended = await self._run_items(sorted(items, key=lambda item: item.index), entries, options)
        await self.reporter.flush()
        return len(items) - ended

    async def _run_items(
        self, items: Sequence[ShardItem], entries: Mapping[int, Entry], options: Mapping[str, Any]
    ) -> int:
        """How many of the items ended."""
        by_index = {item.index: item for item in items}
        jobs = {item.index: entries[item.number].job for item in items}
        ended_before = {index for index, job in jobs.items() if job is not None and job.is_final}
        ended = 0
        troubles: dict[Trouble, KlingError | None] = {}

        def relay(event: Event) -> None:
            # An event that is about no item goes to the calls that have the first one.
            item = items[0] if event.index is None else by_index[event.index]
            self.reporter.relay(item.number, event)

        try:
            async with self._open_stream(self._feed(items, entries), relay, options) as results:
                async for result in results:
                    trouble = find_trouble(result)
                    self.contact.is_troubled |= trouble is Trouble.TRANSIENT
                    self.contact.is_reached |= result.index not in ended_before and has_final_job(result)
                    if trouble is not None and not (trouble is Trouble.TRANSIENT and self.is_last_try):
                        troubles.setdefault(trouble, find_reason(result))
                        continue
                    self.reporter.add_outcome(by_index[result.index], result)
                    ended += 1
        except ConfigurationError as error:
            if self.is_last_try or not is_outage_of_store(error):
                raise WorkerRefusedError(error) from error
            self.contact.is_troubled = True
            _log.warning("%s The shard is given back.", error.message)
        if (reason := troubles.get(Trouble.REFUSED)) is not None:
            await self.reporter.flush()
            raise WorkerRefusedError(reason)
        return ended

    def _open_stream(
        self, items: AsyncIterator[Any], relay: Callable[[Event], None], options: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[AsyncIterator[Result]]:
        try:
            return self.client.stream_many(
                items,
                journal=Journal(self.database.url.secret.reveal()),
                progress=False,
                on_event=relay,
                **options,
            )
        except TypeError as error:  # only of the call itself: one of the run is a mistake of ours
            raise ConfigurationError(
                f"This release of kling_async cannot obey the options of the batch: {error}"
            ) from error

    async def _feed(self, items: Sequence[ShardItem], entries: Mapping[int, Entry]) -> AsyncIterator[Any]:
        """The items as a batch reads them, until the worker stops: those in flight then still end."""
        for item in items:
            if self.is_stopping():
                return
            entry = entries[item.number]
            yield InputItem(item.index, entry.request, entry=entry, plan=item.plan)
