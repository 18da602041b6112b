"""A batch over many machines: the call of `generate_many`, with the work done by as many workers as you start.

It needs the extra `distributed`, and a PostgreSQL database as the journal. Procrastinate gives the shards of a batch to
workers, and the journal decides what is bought: a shard that runs twice buys nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Never, Unpack, overload

import anyio
import attrs

from kling_async._calls import public_call
from kling_async._display.progress import make_display
from kling_async._engine.batch.given_entries import require_entries
from kling_async._engine.clock import Clock
from kling_async._engine.interrupted import describe_batch, warn_interrupted
from kling_async._policy.validators import check_flag, check_kind
from kling_async.batch_result import BatchResult, in_input_order
from kling_async.client import KlingClient
from kling_async.errors import BatchInterruptedError, ConfigurationError, JournalError
from kling_async.events import Finished, Notifier, Resumed
from kling_async.history import HistoryRecorder
from kling_async.lines import count_text, quote_value
from kling_async.requests import VideoOptions
from kling_async.results import Result
from kling_async.types import BatchOptions, Requests

try:
    from kling_async._distributed.batch_record import find_batch
    from kling_async._distributed.call import DistributedBatch
    from kling_async._distributed.database import LostEntriesError, WorkersDatabase, end_tasks
    from kling_async._distributed.input import read_items, register_items
    from kling_async._distributed.reports import listen
    from kling_async._distributed.shard_cover import ShardCover
    from kling_async._distributed.shard_queue import open_shard_queue
    from kling_async._distributed.shards import choose_shard_size, dump_options
    from kling_async._distributed.worker import Worker, WorkerReport
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        f'Work on many machines needs {_missing.name}: pip install ".[distributed]" in a checkout.',
        name=_missing.name,
    ) from _missing

_LISTEN_TIME = 3.0
"""Seconds that a call waits for the connection over which events come, before anything is given out."""

__all__ = ["WorkerReport", "generate_many_on", "run_worker"]


@overload
async def generate_many_on(
    url: str,
    requests: str | Mapping[Any, object],
    *,
    raise_on_failure: bool = False,
    shard_size: int | None = None,
    detach: bool = False,
    **options: Unpack[BatchOptions],
) -> Never: ...
@overload
async def generate_many_on(
    url: str,
    requests: Requests,
    *,
    raise_on_failure: bool = False,
    shard_size: int | None = None,
    detach: bool = False,
    **options: Unpack[BatchOptions],
) -> BatchResult: ...
@public_call(options=lambda: BatchOptions.__annotations__.keys() - {"journal"})
async def generate_many_on(
    url: str,
    requests: Requests,
    *,
    raise_on_failure: bool = False,
    shard_size: int | None = None,
    detach: bool = False,
    **options: Unpack[BatchOptions],
) -> BatchResult:
    """The results of many requests, in input order, made by the workers of a journal on any number of machines.

    The call needs no API key: each worker has its own. It registers all requests in the journal, gives them to the
    workers in shards, and waits. If the call is killed, the workers continue; make the same call again to wait for the
    rest. If the call is cancelled, the workers submit nothing more of it, unless `detach` is set:
    the log and a note of the error name the jobs in flight, for which the same call waits again.

    Args:
        url: The PostgreSQL database that is the journal, such as `postgresql://user@host/database`.
        requests: See `KlingClient.generate_many`. The input is read to its end before anything is sent.
        raise_on_failure: Raise an `ExceptionGroup` at the end if a video was not made.
        shard_size: How many requests a worker takes at once. By default a few times `max_concurrency`.
        detach: Let the workers continue if this call is cancelled.
        **options: See `BatchOptions`, without `journal`. `max_concurrency` is for each shard that runs: two workers have
            twice as many jobs in flight. `output` is best an object store or a folder that all machines share; else each
            file is on the disk of the worker that made it. `prices` is a mapping or `"catalog"`.

    Raises:
        InvalidRequestError: A request is invalid; nothing was written or sent.
        ConfigurationError: An option makes no sense, or cannot be sent to another machine; nothing was sent.
        JournalError: The database cannot be used; nothing was sent.
        BatchInterruptedError: The database could not be reached any more, or has lost entries of the batch. The results so
            far are in the error's `batch`.
        ExceptionGroup: Only with `raise_on_failure`.
        TypeError: There is no such option.
    """
    check_flag("raise_on_failure", raise_on_failure)
    check_flag("detach", detach)
    if shard_size is not None and (not isinstance(shard_size, int) or shard_size < 1):
        raise ConfigurationError(
            f"shard_size must be a whole number of at least 1, not {quote_value(shard_size)}."
        )
    database = WorkersDatabase.at(url)
    call_options: dict[str, Any] = {**options}
    worker_options = dump_options(call_options, video_fields=VideoOptions.__annotations__)
    try:
        batch = await _run_batch(
            database, requests, call_options, worker_options, shard_size=shard_size, detach=detach
        )
    except asyncio.CancelledError as error:
        # The frames of the call say nothing about the interruption, and would hide its note.
        raise error.with_traceback(None) from None
    finally:
        await database.close()
    if raise_on_failure:
        batch.raise_for_failures()
    return batch


async def _run_batch(
    database: WorkersDatabase,
    requests: Requests,
    options: Mapping[str, Any],
    worker_options: Mapping[str, Any],
    *,
    shard_size: int | None,
    detach: bool,
) -> BatchResult:
    """Check the input, register it, and wait for the workers."""
    items, settings = await read_items(requests, options)
    known = await require_entries([item.entry for item in items if item.entry is not None], database.url)
    items = [
        item if item.entry is None else attrs.evolve(item, entry=known[item.entry.number]) for item in items
    ]
    clock, recorder = Clock(), HistoryRecorder()
    listener, display = make_display(
        options.get("progress", "auto"),
        total=len(items),
        saves=options.get("output") is not None,
        has_journal=True,
    )
    notify = Notifier(recorder, options.get("on_event"), listener)
    async with open_shard_queue(database) as app:
        registered = await register_items(
            database,
            items,
            output=worker_options.get("output"),
            retry_failed=bool(options.get("retry_failed")),
        )
        for result in registered.ended:
            _tell_end(result, notify, at=clock.wall())
        number = await find_batch(database, worker_options)
        shards = ShardCover(
            app=app,
            database=database,
            batch=number,
            awaited=registered.awaited,
            shard_size=shard_size
            or choose_shard_size(len(registered.awaited), max_concurrency=settings.max_concurrency),
        )
        batch = DistributedBatch(
            database=database,
            number=number,
            awaited=registered.awaited,
            shards=shards,
            notify=notify,
            clock=clock,
        )
        with display:
            results = await _wait(batch, registered.ended, detach=detach)
    return in_input_order([*registered.ended, *results], recorder.build())


async def _wait(batch: DistributedBatch, ended: Sequence[Result], *, detach: bool) -> list[Result]:
    """The results of the workers.

    Raises:
        BatchInterruptedError: The database could not be reached any more, or has lost entries.
    """
    next_step = "Make the same call again: it gives out what no worker has."
    is_ready = anyio.Event()
    events = asyncio.create_task(
        listen(batch.database, batch.number, batch.hear, is_ready=is_ready), name="events of workers"
    )
    try:
        with anyio.move_on_after(_LISTEN_TIME):
            await is_ready.wait()
        await batch.begin()
        next_step = (
            "The workers continue when they reach the journal, and the same call gives all results then."
        )
        return await batch.collect()
    except asyncio.CancelledError as error:
        with anyio.CancelScope(shield=True):
            await _end_cancelled(batch, error, detach=detach)
        raise
    except LostEntriesError as error:
        loss = _describe_loss(error, batch, ended)  # first, for a cancellation can interrupt the rest
        await batch.shards.withdraw()
        raise loss from error
    except JournalError as error:
        so_far = in_input_order([*ended, *batch.results_so_far()], None)
        raise BatchInterruptedError(
            f"The batch was interrupted: {error.message} {next_step}", batch=so_far
        ) from error
    finally:
        await end_tasks(events)


async def _end_cancelled(batch: DistributedBatch, error: BaseException, *, detach: bool) -> None:
    """Withdraw what is not submitted, unless the workers are to continue, and note in the error what is left."""
    is_withdrawn = not detach and await batch.shards.withdraw()
    count = len(batch.unfinished)
    error.add_note(
        f"{count_text(count, 'item')} {'has' if count == 1 else 'have'} no result yet, and the workers "
        f"{'submit no more of this call' if is_withdrawn else 'continue'}: make the same call again for all results."
    )
    if not detach:
        paid = await batch.read_unfinished()
        text = describe_batch(paid, next_step="make the same call again to get the videos")
        if text is not None:
            warn_interrupted(text, error)


def _describe_loss(
    error: LostEntriesError, batch: DistributedBatch, ended: Sequence[Result]
) -> BatchInterruptedError:
    """The error of a call whose journal has lost entries; the log and a note name the jobs that are paid for."""
    so_far = in_input_order([*ended, *batch.results_so_far()], None)
    job_ids = batch.job_ids
    paid = f"{len(job_ids):,}, which the log names" if job_ids else "none that this call knows of"
    interrupted = BatchInterruptedError(
        f"The batch was interrupted: {error.message} Jobs of it that are charged: {paid}.", batch=so_far
    )
    if job_ids:
        warn_interrupted(
            f"Jobs of the batch that are charged: {', '.join(job_ids)}. `await client.wait(...)` waits for a job.",
            interrupted,
        )
    return interrupted


def _tell_end(result: Result, notify: Notifier, *, at: float) -> None:
    """Tell the caller of an item that needs no worker."""
    request_id = result.job.request_id if result.job else None
    if result.job is not None:
        notify(Resumed(at, index=result.index, request_id=request_id, job=result.job, path=result.path))
    notify(
        Finished(
            at,
            index=result.index,
            request_id=request_id,
            state=result.state,
            job=result.job,
            error=result.error,
        )
    )


@public_call
async def run_worker(
    url: str,
    client: KlingClient,
    *,
    concurrency: int = 1,
    grace: float = 20.0,
    until_idle: bool = False,
    stop: asyncio.Event | None = None,
    ready: asyncio.Event | None = None,
) -> WorkerReport:
    """Work on the batches of a journal until stopped: one process of as many as you start, on any number of machines.

    If this process dies, other workers take its shards over within half a minute. Nothing is bought twice.

    Args:
        url: The PostgreSQL database that is the journal, as for `generate_many_on`.
        client: Sends the requests, with the API key of this machine.
        concurrency: How many shards run at the same time.
        grace: Seconds that jobs in flight and downloads get after `stop`. The rest is given back to other workers.
        until_idle: Return when no shard is left, instead of waiting for more.
        stop: Set this event to stop: the worker then takes no shard and submits nothing. Cancelling the call stops too,
            without the grace time; in both cases the id of a submit that was sent is recorded first.
        ready: Set when the journal is reached and the worker takes shards.

    Raises:
        ConfigurationError: A value makes no sense.
        JournalError: The database cannot be used.
    """
    check_kind("client", client, KlingClient)
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        raise ConfigurationError(
            f"concurrency must be a whole number of at least 1, not {quote_value(concurrency)}."
        )
    if not isinstance(grace, int | float) or not grace >= 0:
        raise ConfigurationError(
            f"grace must be a number of seconds of at least 0, not {quote_value(grace)}."
        )
    worker = Worker(
        client=client,
        database=WorkersDatabase.at(url),
        clock=Clock(),
        concurrency=concurrency,
        grace=grace,
        until_idle=until_idle,
    )
    stopper = asyncio.create_task(_stop_at(stop, worker), name="stop the worker")
    try:
        return await worker.run(ready or asyncio.Event())
    finally:
        stopper.cancel()


async def _stop_at(stop: asyncio.Event | None, worker: Worker) -> None:
    if stop is not None:
        await stop.wait()
        worker.stop()
