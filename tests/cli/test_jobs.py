from __future__ import annotations

import io
import os
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from kling_async.cli.jobs import job_age, print_jobs
from kling_async.emulator import BAD_GATEWAY, Fault, JobScript, Reply
from kling_async.jobs import Job, JobStatus, Outcome
from tests.cli.conftest import FAILING


@pytest.fixture
def ids(serve, cli):
    """The ids of a finished and a failed job."""
    failed = JobScript(ending="failed", error="policy", queue_time=0.0, run_time=0.0)
    emulator = serve(
        script=lambda number, _: failed if number == 2 else None, faults=(Fault("submit", FAILING, nth=2),)
    )
    cli("generate", "a black cat", "a white dog", "--max-concurrency", "1", "--quiet")
    return [job.request_id for job in emulator.stats.accepted]


def test_a_call_that_is_tried_again_says_so(cli, serve):
    serve(faults=(Fault("models", BAD_GATEWAY),))
    done = cli("models")
    assert done.status == 0
    assert "kling-v2-6" in done.out.splitlines()
    assert done.err.startswith("the list of models: the service failed (HTTP 502")
    assert "; trying again in " in done.err


def test_list_gives_lines_with_tabs_to_the_next_program(cli, ids):
    done = cli("list")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert done.status == 0
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (ids[1], "failed", "a white dog"),
        (ids[0], "success", "a black cat"),
    ]
    assert rows[0][4] == ""
    assert rows[1][4].endswith(".mp4")


def test_list_stops_at_its_limit_and_lists_by_model(cli, ids):
    assert len(cli("list", "--limit", "1", "--json").records) == 1
    assert cli("list", "--model", "kling-v3-omni").out == ""


@pytest.mark.parametrize(
    "name, nearest",
    [("nope", None), ("kling-nope", None), ("kling-v26", "kling-v2-6"), ("KLING-V2-6", "kling-v2-6")],
)
def test_a_list_of_a_model_that_does_not_exist_says_so_with_a_near_one(cli, ids, name, nearest):
    done = cli("list", "--model", name)
    assert (done.status, done.out) == (1, "")
    assert done.error_line.startswith(f"kling-async list: The service has no model {name!r}: ")
    assert done.error_line.endswith("`kling-async models` lists all.")
    hint = "" if nearest is None else f"did you mean {nearest!r}? "
    assert f": {hint}`kling-async models`" in done.error_line


def test_a_list_without_jobs_stays_empty_if_the_names_of_models_are_refused(cli, serve):
    serve(faults=(Fault("models", Reply(403, {"error": "not for you"})),))
    done = cli("list", "--model", "nope")
    assert (done.status, done.out, done.err) == (0, "", "")


def test_a_service_without_models_has_no_nearest_one(cli, serve):
    serve(faults=(Fault("models", Reply(200, {"model_ids": []})),))
    done = cli("list", "--model", "nope")
    assert done.status == 1
    assert (
        done.error_line
        == "kling-async list: The service has no model 'nope': `kling-async models` lists all."
    )


def test_list_as_json_has_an_object_a_job(cli, ids):
    done = cli("list", "--json")
    assert {record["request_id"]: record["failure_reason"] for record in done.records} == {
        ids[0]: None,
        ids[1]: "policy",
    }


def test_models_are_ids_one_a_line(cli, serve):
    serve()
    assert "kling-v2-6" in cli("models").out.splitlines()
    assert {"id": "kling-v2-6"} in cli("models", "--json").records


def test_list_on_a_terminal_is_a_table(cli, ids, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal, os.fdopen(master, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stdout", terminal)
        assert cli("list").status == 0
        live_bar = screen.read(65_536).decode()
        assert "prompt, or why it failed" in live_bar
        assert all(name in live_bar for name in ids)
        assert cli("list", "--model", "kling-v3-omni").status == 0
        assert "The service shows no job of kling-v3-omni." in screen.read(65_536).decode()


@pytest.mark.parametrize(
    "seconds, text",
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (7_199, "1 h"), (200_000, "2 d")],
)
def test_an_age_is_one_number_and_one_unit(seconds, text):
    job = Job(
        request_id="r",
        status=JobStatus.QUEUED,
        created_at=datetime.now(UTC) - timedelta(seconds=seconds + 0.5),
    )
    assert job_age(job) == text


def test_an_unknown_age_is_empty():
    assert job_age(Job(request_id="r", status=JobStatus.QUEUED)) == ""


@pytest.mark.parametrize("name", ["bbe7aecc-711d-4ad1-9428-07c9c17b76a7", "r" * 70])
@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_table_keeps_ids_whole_and_fits_the_terminal_if_they_leave_room(name, width):
    jobs = [
        Job(request_id=name, status=JobStatus.PROCESSING, payload={"prompt": "[red]" + "long " * 60}),
        Job(request_id=name, status=JobStatus.FAILED, outcome=Outcome(error="policy\x1b[31m")),
    ]
    file = io.StringIO()
    print_jobs(jobs, Console(file=file, width=width))
    _, first, second = file.getvalue().splitlines()
    assert first.startswith(f"{name}  processing  ")
    assert "[red]long" in first
    assert first.rstrip().endswith("…")
    assert len(first) <= max(width, len(name) + 40)
    assert second.startswith(f"{name}  failed")
    assert "policy\N{REPLACEMENT CHARACTER}[31m" in second
