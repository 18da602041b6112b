"""Says which paid jobs a cancelled call leaves behind: in the log, and in a note of the exception."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter

from kling_async._callbacks import SafeLogger
from kling_async.lines import count_text, one_line
from kling_async.results import Result, ResultState

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


def describe_job(request_id: str, *, call: str, is_made: bool = False) -> str:
    """What a cancelled call for one video leaves: a job, which has made its video or continues."""
    if is_made:
        return (
            f"{call}() was cancelled, and the video of job {request_id} is made and not saved: "
            f"`await client.download({request_id!r}, ...)` saves it."
        )
    return (
        f"{call}() was cancelled, and job {request_id} continues at the service and is charged: "
        f"`await client.wait({request_id!r})` waits for it."
    )


def describe_lost_submit(model: str, *, call: str) -> str:
    """What a cancelled call leaves whose POST had no answer."""
    return (
        f"{call}() was cancelled before the answer to its POST was known: look for the job with "
        f"`client.list_jobs({model!r})` before you submit the request again."
    )


def describe_batch(results: Iterable[Result], *, next_step: str | None = None) -> str | None:
    """What a batch leaves that ends early; None if it leaves nothing that is paid for.

    Args:
        results: Those that the caller has not got, with what is known of each item.
        next_step: The call that gets the videos; None if each job is to be taken up by its id.
    """
    running, made, unanswered = list[str](), list[str](), 0
    for result in sorted(results, key=attrgetter("index")):
        if result.state is ResultState.AMBIGUOUS:
            unanswered += 1
        elif result.job is not None and result.state is ResultState.TIMED_OUT:
            running.append(result.job.request_id)
        elif result.job is not None and result.ok and result.path is None:
            made.append(result.job.request_id)
    return _describe_left(running, made, unanswered=unanswered, next_step=next_step)


def _describe_left(
    running: Sequence[str], made: Sequence[str], *, unanswered: int, next_step: str | None
) -> str | None:
    left, steps = [], []
    if running:
        left.append(f"{count_text(len(running), 'job')} to run and to be charged ({', '.join(running)})")
        steps.append("`await client.wait(...)` waits for a job")
    if made:
        left.append(f"{count_text(len(made), 'video')} made and not saved ({', '.join(made)})")
        steps.append("`await client.download(...)` saves a video")
    if unanswered:
        left.append(f"{count_text(unanswered, 'submit')} without an answer")
    if not left:
        return None
    steps.append("`client.list_jobs()` shows all jobs")
    return f"The batch ended early and left {_join(left)}: {next_step or _join(steps)}."


def _join(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
