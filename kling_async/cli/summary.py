"""The summary that is printed when a batch is over or interrupted."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console

from kling_async.catalog import MODELS
from kling_async.cli.exit_status import FAILED
from kling_async.cli.output import print_error, print_text, stderr, truncate
from kling_async.cli.run_config import RunConfig
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    APITimeoutError,
    BudgetExceededError,
    InvalidRequestError,
    JournalError,
    NotFoundError,
)
from kling_async.journal import Journal
from kling_async.lines import clock_text, money_text, nearest_name
from kling_async.progress import ProgressCounts
from kling_async.results import Result, ResultState

_PROMPT_CHARACTERS = 40
_MAX_NAMED = 10
_FEW = 3
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
CONNECTION_STEP = "Check the network, --base-url or GMI_BASE_URL, and HTTPS_PROXY."
_PERMANENT_ERRORS = (InvalidRequestError, BudgetExceededError)
"""The same command would end with the same error."""


def print_summary(
    results: Sequence[Result],
    counts: ProgressCounts,
    config: RunConfig,
    *,
    seconds: float,
    console: Console | None,
    journal_error: JournalError | None = None,
) -> int:
    """Print how many videos were saved, why the others were not, and the commands that can still get them.

    Args:
        results: All results of the batch.
        counts: The jobs in flight and the money spent.
        config: The folder, the journal and the service.
        seconds: How long the batch took.
        console: Where the number of videos is printed; None prints errors only.
        journal_error: Why the journal could not be written until the end.

    Returns:
        The exit status: 0 if every video is here, or saved by another process of the same journal.
    """
    saved, elsewhere = sum(map(is_saved, results)), sum(map(is_saved_elsewhere, results))
    missing = len(results) - saved - elsewhere
    if console is not None:
        folder = os.path.join(config.folder, "")  # noqa: PTH118 - keeps what the user wrote, with a slash
        notes = "; ".join(_notes(counts, seconds))
        print_text(f"{saved:,} of {len(results):,} videos saved in {folder} ({notes})", console)
        if elsewhere:
            print_text(f"{elsewhere:,} of {len(results):,} videos were saved by another process.", console)
            _print_advice("To save them here, too", config.resume_command())
    if journal_error is not None:
        print_error(journal_error.message)
    if missing:
        lines = failure_lines(results, journal_error=journal_error)
        print_error(f"{missing:,} of {len(results):,} videos were not saved:", *lines)
    if not config.is_emulated:
        steps = (
            _journal_advice(results, config, journal_error)
            if config.journal
            else _download_advice(results, counts, config)
        )
        if any(has_no_way(result.error) for result in results):
            print_text(CONNECTION_STEP, stderr())
        for why, command in (*_model_advice(results, config), *steps):
            _print_advice(why, command)
        if any(map(_is_over_cap, results)):
            print_text("To submit more, raise --max-cost.", stderr())
    return FAILED if missing or journal_error is not None else 0


def _notes(counts: ProgressCounts, seconds: float) -> Iterator[str]:
    """The notes beside the number of videos: saved before, time, money."""
    if counts.saved_before:
        yield f"{counts.saved_before:,} of them before"
    yield clock_text(seconds)
    if counts.bought_usd is not None and counts.spent_usd is not None:
        earlier = counts.spent_usd - counts.bought_usd
        yield f"{money_text(counts.bought_usd)} spent" + (
            f", {money_text(earlier)} before" if earlier else ""
        )


def _model_advice(results: Sequence[Result], config: RunConfig) -> Iterator[tuple[str, str]]:
    """The command that lists the names of the models, if the service does not know one of ours."""
    if not any(map(_is_unknown, results)):
        return
    near = [
        f"did you mean {found}?"
        for model in config.models
        if model not in MODELS and (found := nearest_name(model, MODELS))
    ]
    yield (
        " ".join(["For the names of all models", *(f"({advice})" for advice in near)]),
        config.models_command(),
    )


def has_no_way(error: BaseException | None) -> bool:
    """Whether no connection to the service was made; other errors say themselves what to do."""
    return type(error) in {APIConnectionError, APITimeoutError} and not getattr(error, "was_sent", True)


def _is_unknown(result: Result) -> bool:
    """Whether the service refused a submit because it knows no such model."""
    return result.state is ResultState.NOT_SUBMITTED and isinstance(result.error, NotFoundError)


def _is_over_cap(result: Result) -> bool:
    """Whether the cap stopped the submit, or the submit of one that had failed before."""
    error = result.error
    return error is not None and isinstance(error.__cause__ or error, BudgetExceededError)


def _is_absent(result: Result) -> bool:
    return isinstance(result.error, AmbiguousSubmitError) and result.error.absent


def _is_disk_full(result: Result) -> bool:
    """Whether a video could not be saved because its disk is full."""
    error: BaseException | None = result.error
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        error = error.__cause__
    return False


def _journal_advice(
    results: Sequence[Result], config: RunConfig, journal_error: JournalError | None
) -> Iterator[tuple[str, str]]:
    """The commands that may get the missing videos, each with its reason."""
    missing = [result for result in results if not (is_saved(result) or is_saved_elsewhere(result))]
    ambiguous = [result for result in missing if result.state is ResultState.AMBIGUOUS]
    final = [result for result in missing if not result.ok and result.job is not None and result.job.is_final]
    retried = [result for result in final if _is_over_cap(result)]
    hopeless = sum(isinstance(result.error, _PERMANENT_ERRORS) or _is_unknown(result) for result in missing)
    if len(missing) > len(final) + hopeless:
        first = "Once the journal can be written, to" if journal_error is not None else _first_step(missing)
        yield f"{first} resume what can still finish", config.resume_command()
    if len(final) > len(retried):
        yield "To submit again what failed, and pay for it again", config.resume_command("--retry-failed")
    if config.budget.on_ambiguous != "report":
        return
    absent = [result for result in ambiguous if _is_absent(result)]
    if absent:
        why = f"To send again the {len(absent):,} that the service does not have"
        yield why, config.resume_command("--on-ambiguous", "resend_absent")
    if unknown := len(ambiguous) - len(absent):
        why = f"To send again the {unknown:,} that the service may have accepted, and perhaps pay for them twice"
        yield why, config.resume_command("--on-ambiguous", "resend")


def _first_step(missing: Iterable[Result]) -> str:
    """The beginning of an advice to save videos: where a disk is full, the same command would fail in the same way."""
    return "Once the disk has free space, to" if any(map(_is_disk_full, missing)) else "To"


def _download_advice(
    results: Sequence[Result], counts: ProgressCounts, config: RunConfig
) -> Iterator[tuple[str, str]]:
    if counts.pending_ids:
        yield (
            f"Some jobs may still finish. {_first_step(results)} save their videos",
            config.download_command(counts.pending_ids),
        )
    if any(result.state is ResultState.AMBIGUOUS for result in results):
        yield "To see which ambiguous ones the service accepted", config.list_command()


def print_interrupted(counts: ProgressCounts, config: RunConfig, *, is_forced: bool = False) -> None:
    """Print what was stopped, what continues at the service, and the command that resumes it.

    Args:
        counts: The jobs in flight.
        config: The folder, the journal and the service.
        is_forced: A second Ctrl-C ended the wait for the replies to the last submits.
    """
    unanswered, pending_ids, in_flight_ids = counts.unanswered, counts.pending_ids, counts.in_flight_ids
    unsent = (counts.total or 0) - counts.submitted - counts.without_job - unanswered
    if unsent == counts.total and not is_forced:
        print_error("interrupted before anything was done.")
        return
    parts = [f"{counts.saved:,} saved", f"{counts.failed:,} failed", f"{len(in_flight_ids):,} in flight"]
    if made := len(pending_ids) - len(in_flight_ids):
        parts.insert(1, f"{made:,} made and not saved")
    if unanswered:
        parts.append(f"{unanswered:,} without a reply")
    parts.append(
        f"{unsent + counts.not_submitted:,} not sent{_by_whom(config, unsent)}"
        + (" or without a reply" if is_forced else "")
    )
    print_error(f"interrupted: {', '.join(parts)}.")
    if config.is_emulated:
        print_text("The emulator ended, and its jobs with it.", stderr())
    elif config.journal is None:
        if pending_ids:
            go_on = "The jobs in flight continue at the service and are charged. " if in_flight_ids else ""
            _print_advice(f"{go_on}To save them", config.download_command(pending_ids))
        if unanswered or is_forced:
            _print_advice("To see what the service accepted", config.list_command())
    else:
        _print_resume_advice(counts, config, unsent=unsent)


def _print_resume_advice(counts: ProgressCounts, config: RunConfig, *, unsent: int) -> None:
    """Print which jobs an interrupted run with a journal leaves, and the command that resumes it."""
    if counts.in_flight_ids:
        listed = _join_names(counts.in_flight_ids, most=_FEW)
        print_text(f"The jobs in flight continue at the service and are charged: {listed}", stderr())
    if _by_whom(config, unsent):
        _print_advice("To see what other processes do", config.status_command())
    if counts.pending_ids or counts.unanswered or unsent:
        _print_advice("To resume", config.resume_command())


def _by_whom(config: RunConfig, unsent: int) -> str:
    """The words that limit a count of unsent items to this process: of other processes, only a shared journal knows."""
    return " by this command" if isinstance(config.journal, Journal) and unsent else ""


def _print_advice(why: str, command: str) -> None:
    console = stderr()
    print_text(f"{why}:", console)
    print_text(f"  {command}", console)


def failure_lines(results: Iterable[Result], *, journal_error: JournalError | None = None) -> list[str]:
    """A line for each reason why results have no file; of many reasons the first ones.

    Args:
        results: All results.
        journal_error: The error of the journal that is printed already.
    """
    said = None if journal_error is None else journal_error.message
    alike: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if not (is_saved(result) or is_saved_elsewhere(result)):
            reason = result.failure_reason or "no reason given"
            reason = "because of the journal, as said above" if reason == said else reason
            alike.setdefault((result.label, reason), []).append(result)
    lines = [
        f"{_item_names(group)}: {state}: "
        f"{_reason_of(group[0]) if len(group) == 1 and group[0].failure_reason != said else reason}"
        for (state, reason), group in alike.items()
    ]
    if len(lines) <= _MAX_NAMED + 1:
        return lines
    return [*lines[:_MAX_NAMED], f"and {len(lines) - _MAX_NAMED:,} more reasons"]


def _reason_of(result: Result) -> str:
    """Why one result has no file, with the id of its job."""
    return result.error.message if result.error else result.failure_reason or "no reason given"


def is_saved(result: Result) -> bool:
    """Whether the video was made and is here."""
    return result.ok and result.path is not None


def is_saved_elsewhere(result: Result) -> bool:
    """Whether another process of the same journal made and saved the video; a video that cannot be saved has an error."""
    return result.ok and result.path is None and result.error is None


def _item_names(group: Sequence[Result]) -> str:
    first = group[0]
    if len(group) == 1:
        prompt = f" “{truncate(first.request.prompt, _PROMPT_CHARACTERS)}”" if first.request else ""
        return f"#{first.index}{prompt}"
    return _join_names([f"#{result.index}" for result in group])


def _join_names(names: Sequence[str], *, most: int = _MAX_NAMED) -> str:
    """The first of them, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
