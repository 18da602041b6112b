from __future__ import annotations

import io
import sys

import pytest

import kling_async
from kling_async import ConfigurationError
from kling_async.errors import APIConnectionError
from kling_async.events import Finished, Submitted
from kling_async.jobs import Job, JobStatus
from kling_async.progress import ProgressCounts, show_progress
from kling_async.results import ResultState


class Terminal(io.StringIO):
    def isatty(self):
        return True


def end(counts, index=0):
    counts(
        Finished(
            at=0.0, index=index, state=ResultState.NOT_SUBMITTED, error=APIConnectionError("no connection")
        )
    )


def test_the_package_gives_the_display_and_its_counts():
    assert kling_async.show_progress is show_progress
    assert kling_async.ProgressCounts is ProgressCounts


def test_a_terminal_shows_the_counts_of_a_loop_of_ones_own(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with show_progress(total=3) as counts:
        end(counts)
    assert "0 of 3" in sys.stderr.getvalue()
    assert "1 of 3" in sys.stderr.getvalue()


@pytest.mark.parametrize("progress", ["auto", False])
def test_counts_count_also_where_nothing_is_drawn(capsys, progress):
    with show_progress(total=3, saves=True, progress=progress) as counts:
        end(counts)
    assert (counts.total, counts.saves, counts.ended, counts.not_submitted) == (3, True, 1, 1)
    assert capsys.readouterr().err == ""


def test_a_wrong_value_of_progress_is_refused():
    with pytest.raises(ConfigurationError, match="progress must be"), show_progress(progress="yes"):
        pass


def test_counts_tell_how_fast_jobs_end_and_how_long_the_rest_takes():
    counts = ProgressCounts(total=2)
    assert (counts.jobs_per_second(now=10.0), counts.seconds_left(now=10.0)) == (0.0, None)
    for name in ("a", "b"):
        counts(Submitted(at=0.0, request_id=name, job=Job(request_id=name, status=JobStatus.QUEUED)))
    counts(Finished(at=10.0, request_id="a", state=ResultState.SUCCEEDED))
    assert counts.jobs_per_second(now=10.0) == pytest.approx(0.1)
    assert counts.seconds_left(now=10.0) > 0
