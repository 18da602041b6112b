"""`kling-async worker`: works on the batches of a shared journal until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from kling_async.cli.batch_command import without_python_advice
from kling_async.cli.exit_status import FAILED
from kling_async.cli.journals import refuse_unusable_journal
from kling_async.cli.output import one_line, print_error, print_json, print_text, stderr
from kling_async.cli.service import Service, TroublePrinter, open_client
from kling_async.events import Event
from kling_async.lines import count_text

if TYPE_CHECKING:
    from kling_async.distributed import WorkerReport


async def worker(
    *,
    journal: Annotated[str, Parameter(metavar="URL")],
    concurrency: Annotated[int, Parameter(metavar="N", validator=validators.Number(gte=1))] = 1,
    grace: Annotated[float, Parameter(metavar="SECONDS", validator=validators.Number(gte=0))] = 20.0,
    until_idle: bool = False,
    json: bool = False,
    quiet: bool = False,
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Make the videos of the batches that `generate_many_on` gives to a shared journal, on this machine.

    Start as many workers as you want, on any machines, at any time. If one dies, the others take over its part of a
    batch, and nothing is paid for twice.

    Ctrl-C and SIGTERM stop it: it submits nothing more, waits for the jobs in flight and their downloads for the grace
    time, and gives the rest back to the other workers. A second Ctrl-C or SIGTERM ends it at once; then, too, no job is
    lost.

    Args:
        journal: The PostgreSQL database of the journal, such as postgresql://user@host/database. Put the password into
            ~/.pgpass or PGPASSWORD: the shell would remember it.
        concurrency: How many shards it runs at the same time; a shard is a part of a batch.
        grace: How long jobs in flight and downloads may last after it is stopped.
        until_idle: End when no shard is left.
        json: Print what it did as one JSON object.
        quiet: Print errors only.
        service: See `Service`.
    """
    from kling_async.distributed import run_worker

    stop, ready = asyncio.Event(), asyncio.Event()
    printer = TroublePrinter()

    def print_trouble(event: Event) -> None:
        if not quiet:
            printer(event)

    async with open_client(service, on_event=print_trouble) as client, _cancel_at_ctrl_c():
        work = run_worker(
            journal,
            client,
            concurrency=concurrency,
            grace=grace,
            until_idle=until_idle,
            stop=stop,
            ready=ready,
        )
        running = asyncio.create_task(work, name="worker")
        saying = asyncio.create_task(_print_ready(ready, is_quiet=quiet), name="say that it is ready")
        try:
            with refuse_unusable_journal():
                report = await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            if not quiet:
                print_text(
                    f"stopping; Ctrl-C again leaves at once (waiting up to {grace:g} s for jobs in flight)",
                    stderr(),
                )
            report = await _end_urgently(running)
        finally:
            saying.cancel()
    return _print_report(report, is_json=json, is_quiet=quiet)


async def _print_ready(ready: asyncio.Event, *, is_quiet: bool) -> None:
    await ready.wait()
    if not is_quiet:
        print_text("The worker waits for shards (Ctrl-C stops it)", stderr())


async def _end_urgently(running: asyncio.Task[WorkerReport]) -> WorkerReport:
    """The report of a worker that stops; if a second Ctrl-C ends it, one line says what is left."""
    try:
        with without_python_advice():
            return await running
    except asyncio.CancelledError:
        print_error("left at once: its jobs continue, and other workers or `kling-async resume` save them.")
        raise


@asynccontextmanager
async def _cancel_at_ctrl_c() -> AsyncIterator[None]:
    """A block that each Ctrl-C cancels.

    `asyncio.run` cancels at the first one only. It raises the second one in any code of the loop, and code that is
    interrupted so can leave a task or a thread that never ends.
    """
    loop, task, is_pressed = asyncio.get_running_loop(), asyncio.current_task(), False

    def cancel() -> None:
        nonlocal is_pressed
        is_pressed = True
        assert task is not None
        task.cancel()

    with suppress(NotImplementedError):  # Windows
        loop.add_signal_handler(signal.SIGINT, cancel)
    try:
        yield
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt if is_pressed else error from None
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)


def _print_report(report: WorkerReport, *, is_json: bool, is_quiet: bool) -> int:
    if is_json:
        print_json(
            {
                "shards": report.shards,
                "items": report.items,
                "shards_given_back": report.shards_given_back,
                "refusal": None if report.refusal is None else report.refusal.message,
            }
        )
    elif not is_quiet:
        left = f"; {report.shards_given_back:,} given back" if report.shards_given_back else ""
        print_text(
            f"{count_text(report.items, 'item')} ended, {count_text(report.shards, 'shard')} done{left}",
            stderr(),
        )
    if report.refusal is None:
        return 0
    print_error(one_line(report.refusal.message))
    return FAILED
