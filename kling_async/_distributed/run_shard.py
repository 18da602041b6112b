"""One shard on a worker: its entries through `stream_many`, with the options of its batch."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import Any

import attrs

from kling_async._callbacks import SafeLogger
from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.outage import Contact
from kling_async._distributed.reports import Reporter
from kling_async._distributed.shards import ShardItem, check_version
from kling_async._engine.batch.batch_input import InputItem
from kling_async._journal.entry import Entry
from kling_async._policy.retry import is_transient
from kling_async._policy.submission import OF_THE_ACCOUNT, OF_THE_MACHINE
from kling_async.client import KlingClient
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    CertificateError,
    ConfigurationError,
    JournalError,
    KlingError,
    ProxyError,
)
from kling_async.events import Event
from kling_async.journal import Journal
from kling_async.results import Result, ResultState

_REFUSALS = OF_THE_ACCOUNT | OF_THE_MACHINE
_log = SafeLogger("kling_async")


class WorkerRefusedError(Exception):
    """This worker cannot run the shard, and another one may be able to.

    Args:
        error: Why.
    """

    def __init__(self, error: KlingError) -> None:
        super().__init__(error.message)
        self.error = error


@attrs.frozen(kw_only=True)
class ShardRun:
    """The parts of the run of a shard."""

    client: KlingClient
    database: WorkersDatabase
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
        options = await self._read_options()
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
                        troubles.setdefault(trouble, find_fault(result))
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

    async def _read_options(self) -> dict[str, Any]:
        ((version, options),) = await self.database.query(
            "SELECT version, options FROM kling_async_batches WHERE id = %s", self.reporter.batch
        )
        try:
            check_version(version)
        except ConfigurationError as error:
            raise WorkerRefusedError(error) from error
        read: dict[str, Any] = json.loads(options)
        return read


class Trouble(Enum):
    """Why a worker does not end an item, although the item has a result."""

    REFUSED = auto()
    """The service refuses this worker, or the worker cannot obey the options: another worker may be able to."""
    TRANSIENT = auto()
    """The service or the journal could not be reached: later any worker may be able to."""


def find_trouble(result: Result) -> Trouble | None:
    """Whether an item is to be given back, for the fault is not the item's.

    Without this, one worker with a wrong key would end all items of a batch within seconds, while the others still make
    their first videos. An item that was sent has the fault as the cause of its error: why it was not sent again, or why its
    job was not searched.
    """
    fault = find_fault(result)
    if isinstance(fault, _REFUSALS):
        return Trouble.REFUSED
    # With an ambiguous submit of others a batch stops where the service takes requests and answers 5xx.
    is_outage = isinstance(fault, APIConnectionError | JournalError | AmbiguousSubmitError)
    return Trouble.TRANSIENT if is_outage or (fault is not None and is_transient(fault)) else None


def find_fault(result: Result) -> KlingError | None:
    """Why an item did not end as it was to; None if it did, or if only its own job, video or wait is the reason."""
    error = result.error
    if error is None or result.state is ResultState.SUCCEEDED:
        return None
    if result.state is ResultState.NOT_SUBMITTED or isinstance(error, _REFUSALS | JournalError):
        return error
    cause = error.__cause__ if isinstance(error.__cause__, KlingError) else None
    has_waited = (
        result.state is ResultState.TIMED_OUT
    )  # as long as the caller wanted; but not with another key
    return None if has_waited and not isinstance(cause, _REFUSALS) else cause


def has_final_job(result: Result) -> bool:
    """Whether the service has said how the job of an item ended."""
    return result.job is not None and result.job.is_final


def ends_worker(error: KlingError) -> bool:
    """Whether a worker that was refused with this error can run no batch at all, and not only this one."""
    return isinstance(error, OF_THE_ACCOUNT | CertificateError | ProxyError)


def is_outage_of_store(error: ConfigurationError) -> bool:
    """Whether the object store did not answer, so that the same options can be obeyed later."""
    return isinstance(error.__cause__, KlingError) and is_transient(error.__cause__)
