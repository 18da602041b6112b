"""Says which paid jobs a cancelled call leaves behind: in the log, and in a note of the exception."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from kling_async._callbacks import SafeLogger
from kling_async.lines import one_line

_log = SafeLogger("kling_async.interrupted")


def warn_interrupted(text: str, error: BaseException | None) -> None:
    """Log at level WARNING what was left, and add the text to the exception that ends the call, if there is one."""
    text = one_line(text)
    _log.warning("%s", text)
    if error is not None:
        error.add_note(text)


@contextmanager
def warn_if_cancelled(describe: Callable[[], str | None]) -> Iterator[None]:
    """A block that says what it leaves if it is cancelled.

    Args:
        describe: Returns the text; None if nothing was paid for.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if (text := describe()) is not None:
            warn_interrupted(text, error)
        raise


def describe_job(request_id: str, *, call: str) -> str:
    """What a cancelled call for one video leaves."""
    return (
        f"{call}() was cancelled, and job {request_id} continues at the service and is charged: "
        f"`await client.wait({request_id!r})` waits for it."
    )


def describe_lost(model: str, *, call: str) -> str:
    """What a cancelled call leaves whose POST had no answer."""
    return (
        f"{call}() was cancelled before the answer to its POST was known: look for the job with "
        f"`client.list_jobs({model!r})` before you submit the request again."
    )


def describe_batch(job_ids: Sequence[str], *, unanswered: int, journal: str | None) -> str:
    """What a batch leaves that ends early.

    Args:
        job_ids: The jobs that the caller has not got as a result.
        unanswered: How many POSTs had no answer.
        journal: The path of the journal, which has them all.
    """
    left = []
    if job_ids:
        left.append(f"{_count(len(job_ids), 'job')} to run and to be charged ({', '.join(job_ids)})")
    if unanswered:
        left.append(f"{_count(unanswered, 'submit')} without an answer")
    next_step = "`await client.wait(...)` waits for a job, and `client.list_jobs()` shows all jobs"
    if journal is not None:
        next_step = f"make the same call with journal={journal!r} again to get their videos"
    return f"The batch ended early and left {' and '.join(left)}: {next_step}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
