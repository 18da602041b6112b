from __future__ import annotations

import errno
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from kling_async._display.progress_counts import ProgressCounts
from kling_async._policy.job_end import error_of
from kling_async._secrets import Secret
from kling_async.cli.budget_options import BudgetOptions
from kling_async.cli.output import stdout
from kling_async.cli.run_config import RunConfig
from kling_async.cli.service import Service
from kling_async.cli.summary import failure_lines, print_interrupted, print_summary
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    BudgetExceededError,
    DownloadError,
    InvalidRequestError,
    JournalError,
    KlingError,
    NotFoundError,
)
from kling_async.events import Finished, Resumed, Spent, SubmitLost, Submitted
from kling_async.jobs import Job, JobStatus, Outcome
from kling_async.journal import Journal
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

HERE = RunConfig(
    folder=Path("my videos"), service=Service(base_url="http://127.0.0.1:1"), models=("kling-v2-6",)
)
KEPT = attrs.evolve(HERE, service=Service(), journal=Path("my videos/run.db"))
FAILED = Job(request_id="r9", status=JobStatus.FAILED)


def result(index: int, state: ResultState = ResultState.SUCCEEDED, error: str | None = None, **fields):
    request = VideoRequest(f"prompt number {index} " + "x" * 50)
    return Result(
        index=index, request=request, state=state, error=KlingError(error) if error else None, **fields
    )


def saved_result(index: int) -> Result:
    return result(index, path=Path("a.mp4"))


def test_each_result_without_a_file_has_its_reason():
    results = [
        saved_result(0),
        result(1, ResultState.NOT_SUBMITTED, "refused."),
        result(2, ResultState.FAILED),
        Result(index=3, request=None, state=ResultState.NOT_SUBMITTED, error=KlingError("no request")),
        result(4, error="disk full"),
    ]
    assert failure_lines(results) == [
        "#1 “prompt number 1 xxxxxxxxxxxxxxxxxxxxxxx…”: not submitted: refused.",
        "#2 “prompt number 2 xxxxxxxxxxxxxxxxxxxxxxx…”: failed: no reason given",
        "#3: not submitted: no request",
        "#4 “prompt number 4 xxxxxxxxxxxxxxxxxxxxxxx…”: made, not saved: disk full",
    ]


def test_results_with_the_same_reason_share_a_line():
    refused = [result(index, ResultState.NOT_SUBMITTED, "bad key") for index in range(12)]
    assert failure_lines(refused[:2]) == ["#0, #1: not submitted: bad key"]
    assert failure_lines(refused) == [
        "#0, #1, #2, #3, #4, #5, #6, #7, #8, #9 and 2 more: not submitted: bad key"
    ]


def test_jobs_that_failed_for_the_same_reason_share_a_line_whatever_their_ids():
    def unlucky(index: int) -> Result:
        job = Job(request_id=f"r{index}", status=JobStatus.FAILED, outcome=Outcome(error="policy"))
        return attrs.evolve(
            result(index, ResultState.FAILED), job=job, error=error_of(job, secret=Secret("key"))
        )

    assert failure_lines([unlucky(0), unlucky(1)]) == ["#0, #1: failed: policy"]
    (alone,) = failure_lines([unlucky(0)])
    assert "Job r0 failed at the service: policy." in alone


FULL = JournalError("The journal 'run.db' could not be written (disk is full): free some disk space.")


@pytest.mark.parametrize("number", [1, 3])
def test_the_error_of_a_journal_is_said_once_and_before_the_command_that_needs_the_journal(capfd, number):
    unsent = [result(index, ResultState.NOT_SUBMITTED, FULL.message) for index in range(number)]
    assert print_summary(unsent, ProgressCounts(), KEPT, seconds=1, console=None, journal_error=FULL) == 1
    told = capfd.readouterr().err
    assert told.count("could not be written") == 1
    assert f"kling-async: {FULL.message}\n" in told
    assert ": not submitted: because of the journal, as said above\n" in told
    assert "Once the journal can be written, to resume what can still finish:\n" in told


def test_a_journal_that_failed_after_the_last_video_is_an_error(capfd):
    saved = [saved_result(0)]
    assert print_summary(saved, ProgressCounts(), KEPT, seconds=1, console=None, journal_error=FULL) == 1
    assert capfd.readouterr().err == f"kling-async: {FULL.message}\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("config", [HERE, KEPT], ids=["no journal", "journal"])
def test_where_a_disk_is_full_the_command_comes_after_free_space(capfd, config, number):
    error = DownloadError("The video was not saved.")
    error.__cause__ = DownloadError("again")
    error.__cause__.__cause__ = OSError(number, "no space")
    unsaved = [attrs.evolve(result(0), error=error)]
    counts = ProgressCounts()
    counts(Submitted(0.0, index=0, request_id="r1", job=Job(request_id="r1", status=JobStatus.QUEUED)))
    print_summary(unsaved, counts, config, seconds=1, console=None)
    told = capfd.readouterr().err
    assert ("Once the disk has free space, to " in told) is (number != errno.EACCES)


@pytest.mark.parametrize("number, last", [(11, ": not submitted: 10"), (12, "and 2 more reasons")])
def test_of_many_reasons_the_first_are_printed(number, last):
    *_, line = told = failure_lines(
        [result(index, ResultState.NOT_SUBMITTED, str(index)) for index in range(number)]
    )
    assert len(told) == 11
    assert line.endswith(last)


def test_a_success_is_one_line_unless_the_command_is_quiet(capfd):
    assert (
        print_summary(
            [saved_result(0), saved_result(1)], ProgressCounts(), HERE, seconds=65, console=stdout()
        )
        == 0
    )
    assert capfd.readouterr() == ("2 of 2 videos saved in my videos/ (1:05)\n", "")
    assert (
        print_summary([saved_result(0), saved_result(1)], ProgressCounts(), HERE, seconds=65, console=None)
        == 0
    )
    assert capfd.readouterr() == ("", "")


def shared_journal(**fields) -> RunConfig:
    return RunConfig(
        folder=Path("m2"),
        service=Service(),
        journal=Journal("postgresql://me@db.example/videos"),
        models=("kling-v2-6",),
        **fields,
    )


def test_videos_that_another_process_saved_are_no_failures_and_have_a_command_that_fetches_them(capfd):
    results = [saved_result(0), result(1), result(2)]
    assert print_summary(results, ProgressCounts(), shared_journal(), seconds=1, console=stdout()) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "1 of 3 videos saved in m2/ (0:01)",
        "2 of 3 videos were saved by another process.",
    ]
    assert err.splitlines() == [
        "To save them here, too:",
        "  kling-async resume postgresql://me@db.example/videos --out m2",
    ]
    assert print_summary(results, ProgressCounts(), shared_journal(), seconds=1, console=None) == 0
    assert capfd.readouterr() == ("", "")


def test_a_failure_beside_videos_of_another_process_is_the_only_failure(capfd):
    results = [result(0), result(1, ResultState.NOT_SUBMITTED, "bad key")]
    assert print_summary(results, ProgressCounts(), shared_journal(), seconds=1, console=None) == 1
    assert capfd.readouterr().err.splitlines()[:2] == [
        "kling-async: 1 of 2 videos were not saved:",
        "  #1 “prompt number 1 xxxxxxxxxxxxxxxxxxxxxxx…”: not submitted: bad key",
    ]


def test_an_interruption_of_a_shared_batch_says_that_only_this_command_did_not_send(capfd):
    counts = ProgressCounts(total=5, saves=True)
    counts.follow("r1")
    print_interrupted(counts, shared_journal())
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: interrupted: 0 saved, 0 failed, 1 in flight, 4 not sent by this command.",
        "The jobs in flight continue at the service and are charged: r1",
        "To see what other processes do:",
        "  kling-async status postgresql://me@db.example/videos",
        "To resume:",
        "  kling-async resume postgresql://me@db.example/videos --out m2",
    ]


def test_jobs_that_may_still_finish_have_a_command_that_downloads_them(capfd):
    counts = ProgressCounts(total=1, saves=True)
    counts.follow("r1")
    lost = Result(index=0, request=None, state=ResultState.SUCCEEDED, error=DownloadError("disk full"))
    assert print_summary([lost], counts, HERE, seconds=1, console=None) == 1
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: 1 of 1 videos were not saved:",
        "  #0: made, not saved: disk full",
        "Some jobs may still finish. To save their videos:",
        "  kling-async download r1 --out 'my videos' --base-url http://127.0.0.1:1",
    ]


def test_an_interruption_names_the_jobs_in_flight_and_the_command_to_resume(capfd):
    counts = ProgressCounts(total=5, saves=True)
    counts.follow("r1")
    counts.follow("r2")
    print_interrupted(counts, RunConfig(folder=Path("v"), service=Service()))
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: interrupted: 0 saved, 0 failed, 2 in flight, 3 not sent.",
        "The jobs in flight continue at the service and are charged. To save them:",
        "  kling-async download r1 r2 --out v",
    ]


@pytest.mark.parametrize("config", [HERE, KEPT], ids=["no journal", "journal"])
def test_an_interruption_before_anything_was_done_says_so_in_one_line(capfd, config):
    print_interrupted(ProgressCounts(total=5), config)
    assert capfd.readouterr().err == "kling-async: interrupted before anything was done.\n"


@pytest.mark.parametrize("config", [HERE, KEPT], ids=["no journal", "journal"])
def test_an_interruption_with_nothing_left_needs_no_command(capfd, config):
    counts = ProgressCounts(total=1)
    counts(Finished(at=0.0, index=0, state=ResultState.NOT_SUBMITTED))
    print_interrupted(counts, config)
    assert capfd.readouterr().err == (
        "kling-async: interrupted: 0 saved, 0 failed, 0 in flight, 1 not sent.\n"
    )


def test_an_emulators_jobs_are_not_offered_for_later(capfd):
    counts = ProgressCounts(total=5, saves=True)
    counts.follow("r1")
    config = RunConfig(folder=Path("v"), service=Service(), is_emulated=True)
    print_interrupted(counts, config)
    assert capfd.readouterr().err.splitlines()[1:] == ["The emulator ended, and its jobs with it."]
    print_summary([saved_result(0)], counts, config, seconds=1, console=None)
    assert capfd.readouterr().err == ""


def test_the_summary_has_the_videos_saved_before_and_the_money_spent(capfd):
    job = Job(request_id="a", status=JobStatus.SUCCESS)
    counts = ProgressCounts(total=2, saves=True)
    counts(Resumed(at=0.0, index=0, request_id="a", job=job, path=Path("a.mp4")))
    print_summary([saved_result(0)], counts, KEPT, seconds=65, console=stdout())
    counts(Spent(at=0.0, cost_usd=Decimal("0.35"), total_usd=Decimal("0.35")))
    print_summary([saved_result(0), saved_result(1)], counts, KEPT, seconds=65, console=stdout())
    counts(Spent(at=0.0, cost_usd=Decimal("0.35"), total_usd=Decimal("1.70")))
    print_summary([saved_result(0), saved_result(1)], counts, KEPT, seconds=65, console=stdout())
    assert capfd.readouterr().out.splitlines() == [
        "1 of 1 videos saved in my videos/ (1 of them before; 1:05)",
        "2 of 2 videos saved in my videos/ (1 of them before; 1:05; $0.35 spent)",
        "2 of 2 videos saved in my videos/ (1 of them before; 1:05; $0.70 spent, $1.00 before)",
    ]


RESUME = "  kling-async resume 'my videos/run.db'"
GO_ON = ["To resume what can still finish:", RESUME]
AGAIN = ["To submit again what failed, and pay for it again:", f"{RESUME} --retry-failed"]
TWICE = [
    "To send again the 1 that the service may have accepted, and perhaps pay for them twice:",
    f"{RESUME} --on-ambiguous resend",
]
ABSENT = [
    "To send again the 1 that the service does not have:",
    f"{RESUME} --on-ambiguous resend_absent",
]


@pytest.mark.parametrize(
    "missing, advice",
    [
        (result(0, error="disk full"), GO_ON),
        (result(0, ResultState.TIMED_OUT, "slow"), GO_ON),
        (result(0, ResultState.FAILED, "cannot be asked about"), GO_ON),
        (result(0, ResultState.FAILED, "policy", job=FAILED), AGAIN),
        (result(0, ResultState.AMBIGUOUS, "lost"), GO_ON + TWICE),
        (
            attrs.evolve(result(0, ResultState.AMBIGUOUS), error=AmbiguousSubmitError("lost", absent=True)),
            GO_ON + ABSENT,
        ),
        (attrs.evolve(result(0, ResultState.NOT_SUBMITTED), error=InvalidRequestError("no")), []),
        (
            attrs.evolve(result(0, ResultState.NOT_SUBMITTED), error=BudgetExceededError("no")),
            ["To submit more, raise --max-cost."],
        ),
    ],
)
def test_a_missing_video_has_a_command_that_may_get_it(capfd, missing, advice):
    assert print_summary([missing], ProgressCounts(total=1, saves=True), KEPT, seconds=1, console=None) == 1
    assert capfd.readouterr().err.splitlines()[2:] == advice


@pytest.mark.parametrize(
    "model, hint", [("kling-v2.6", " (did you mean kling-v2-6?)"), ("kling-v2-6", ""), ("wan-9", "")]
)
def test_a_model_that_the_service_does_not_know_is_looked_up_and_not_tried_again(capfd, model, hint):
    config = attrs.evolve(KEPT, models=(model,))
    refused = attrs.evolve(result(0, ResultState.NOT_SUBMITTED), error=NotFoundError("no such model"))
    print_summary([refused], ProgressCounts(total=1), config, seconds=1, console=None)
    assert capfd.readouterr().err.splitlines()[2:] == [
        f"For the names of all models{hint}:",
        "  kling-async models",
    ]


@pytest.mark.parametrize("was_sent", [False, True])
def test_a_service_that_cannot_be_reached_has_a_line_that_says_what_to_check(capfd, was_sent):
    error = APIConnectionError("no connection.", was_sent=was_sent)
    lost = [attrs.evolve(result(index, ResultState.NOT_SUBMITTED), error=error) for index in range(2)]
    print_summary(lost, ProgressCounts(total=2), KEPT, seconds=1, console=None)
    check = "Check the network, --base-url or GMI_BASE_URL, and HTTPS_PROXY."
    assert capfd.readouterr().err.splitlines()[2:] == [*([] if was_sent else [check]), GO_ON[0], RESUME]


def test_a_command_with_resend_is_not_advised_to_resend(capfd):
    config = attrs.evolve(KEPT, budget=BudgetOptions(on_ambiguous="resend"))
    print_summary(
        [result(0, ResultState.AMBIGUOUS, "lost")], ProgressCounts(total=1), config, seconds=1, console=None
    )
    assert capfd.readouterr().err.splitlines()[2:] == [GO_ON[0], f"{RESUME} --on-ambiguous resend"]


def test_without_a_journal_a_list_command_shows_the_ambiguous_jobs(capfd):
    lost = attrs.evolve(result(0, ResultState.AMBIGUOUS), error=AmbiguousSubmitError("lost"))
    print_summary([lost], ProgressCounts(total=1), HERE, seconds=1, console=None)
    assert capfd.readouterr().err.splitlines()[2:] == [
        "To see which ambiguous ones the service accepted:",
        "  kling-async list --model kling-v2-6 --base-url http://127.0.0.1:1",
    ]


def lost_submit() -> ProgressCounts:
    counts = ProgressCounts(total=2, saves=True)
    counts(SubmitLost(at=0.0, index=0, error=APIConnectionError("reset")))
    return counts


def test_an_interruption_counts_submits_without_a_reply_and_jobs_in_flight(capfd):
    counts = lost_submit()
    for number in range(12):
        counts.follow(f"r{number}")
    counts.total = 20
    print_interrupted(counts, KEPT)
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: interrupted: 0 saved, 0 failed, 12 in flight, 1 without a reply, 7 not sent.",
        "The jobs in flight continue at the service and are charged: r0, r1, r2 and 9 more",
        "To resume:",
        RESUME,
    ]


@pytest.mark.parametrize(
    "config, advice",
    [
        (KEPT, ["To resume:", RESUME]),
        (
            attrs.evolve(HERE, service=Service()),
            ["To save them:", "  kling-async download r1 --out 'my videos'"],
        ),
    ],
    ids=["journal", "no journal"],
)
def test_an_interruption_counts_a_made_video_apart_from_jobs_in_flight(capfd, config, advice):
    counts = ProgressCounts(total=1, saves=True)
    counts(Submitted(at=0.0, index=0, request_id="r1", job=Job(request_id="r1", status=JobStatus.QUEUED)))
    counts(Finished(at=0.0, index=0, request_id="r1", state=ResultState.SUCCEEDED))
    print_interrupted(counts, config)
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: interrupted: 0 saved, 1 made and not saved, 0 failed, 0 in flight, 0 not sent.",
        *advice,
    ]


@pytest.mark.parametrize("is_forced", [False, True])
def test_an_interruption_without_a_journal_names_the_list_command_for_submits_without_a_reply(
    capfd, is_forced
):
    print_interrupted(lost_submit(), attrs.evolve(HERE, service=Service()), is_forced=is_forced)
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: interrupted: 0 saved, 0 failed, 0 in flight, 1 without a reply, 1 not sent"
        + (" or without a reply." if is_forced else "."),
        "To see what the service accepted:",
        "  kling-async list --model kling-v2-6",
    ]
