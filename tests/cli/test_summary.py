from __future__ import annotations

from pathlib import Path

from kling_async._display.tally import Tally
from kling_async.cli.screen import stdout
from kling_async.cli.service import Service
from kling_async.cli.summary import Errand, reasons, say_interrupted, summarise
from kling_async.errors import DownloadError, KlingError
from kling_async.models import Result, ResultState, VideoRequest

HERE = Errand(folder="my videos", service=Service(base_url="http://127.0.0.1:1"))


def result(index: int, state: ResultState = ResultState.SUCCEEDED, error: str | None = None, **fields):
    request = VideoRequest(f"prompt number {index} " + "x" * 50)
    return Result(
        index=index, request=request, state=state, error=KlingError(error) if error else None, **fields
    )


def saved(index: int) -> Result:
    return result(index, path=Path("a.mp4"))


def test_each_result_without_a_file_has_its_reason():
    results = [
        saved(0),
        result(1, ResultState.NOT_SUBMITTED, "refused."),
        result(2, ResultState.FAILED),
        Result(index=3, request=None, state=ResultState.NOT_SUBMITTED, error=KlingError("no request")),
        result(4, error="disk full"),
    ]
    assert reasons(results) == [
        "#1 “prompt number 1 xxxxxxxxxxxxxxxxxxxxxxx…”: not submitted: refused.",
        "#2 “prompt number 2 xxxxxxxxxxxxxxxxxxxxxxx…”: failed: no reason given",
        "#3: not submitted: no request",
        "#4 “prompt number 4 xxxxxxxxxxxxxxxxxxxxxxx…”: made, not saved: disk full",
    ]


def test_results_with_the_same_reason_share_a_line():
    refused = [result(index, ResultState.NOT_SUBMITTED, "bad key") for index in range(12)]
    assert reasons(refused[:2]) == ["#0, #1: not submitted: bad key"]
    assert reasons(refused) == ["#0, #1, #2, #3, #4, #5, #6, #7, #8, #9 and 2 more: not submitted: bad key"]


def test_a_success_is_one_line_where_it_is_wanted(capfd):
    assert summarise([saved(0), saved(1)], Tally(), HERE, seconds=65, console=stdout()) == 0
    assert capfd.readouterr() == ("2 of 2 videos saved in my videos/ (1:05)\n", "")
    assert summarise([saved(0), saved(1)], Tally(), HERE, seconds=65, console=None) == 0
    assert capfd.readouterr() == ("", "")


def test_what_may_still_come_is_told_with_the_command_that_fetches_it(capfd):
    tally = Tally(total=1, saves=True)
    tally.follow("r1")
    lost = Result(index=0, request=None, state=ResultState.SUCCEEDED, error=DownloadError("disk full"))
    assert summarise([lost], tally, HERE, seconds=1, console=None) == 1
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: 1 of 1 videos were not saved:",
        "  #0: made, not saved: disk full",
        "Some may still come. To save them:",
        "  kling-async download r1 --out 'my videos' --base-url http://127.0.0.1:1",
    ]


def test_an_interruption_names_what_goes_on_and_how_to_pick_it_up(capfd):
    tally = Tally(total=5, saves=True)
    tally.follow("r1")
    tally.follow("r2")
    say_interrupted(tally, Errand(folder="v", service=Service()))
    assert capfd.readouterr().err.splitlines() == [
        "kling-async: interrupted: 0 saved, 0 failed, 2 still open, 3 not sent.",
        "The open ones go on at the service and are charged. To save them:",
        "  kling-async download r1 r2 --out v",
    ]


def test_an_interruption_with_nothing_open_says_so_in_one_line(capfd):
    say_interrupted(Tally(total=5), HERE)
    assert (
        capfd.readouterr().err == "kling-async: interrupted: 0 saved, 0 failed, 0 still open, 5 not sent.\n"
    )


def test_an_emulators_jobs_are_not_offered_for_later(capfd):
    tally = Tally(total=5, saves=True)
    tally.follow("r1")
    errand = Errand(folder="v", service=Service(), is_emulated=True)
    say_interrupted(tally, errand)
    assert capfd.readouterr().err.splitlines()[1:] == ["The emulator ended, and its jobs with it."]
    summarise([saved(0)], tally, errand, seconds=1, console=None)
    assert capfd.readouterr().err == ""
