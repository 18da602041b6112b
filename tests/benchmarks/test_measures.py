"""A small run of every measure: they must not rot, and what they count must agree with the service."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import __main__ as command
from benchmarks import clients, downloads, faults, imports, loop, overhead, scale, sixty, workers

pytestmark = pytest.mark.unmeasured


@pytest.fixture(scope="module")
def overhead_result():
    return overhead.measure(quick=True)


def test_overhead_measures_every_way_of_ours_beside_the_floor(overhead_result):
    rows = {row["subject"]: row for row in overhead_result["rows"]}
    assert {"floor", "ours-never", "ours-auto", "ours-journal"} <= set(rows)
    assert all(row["succeeded"] == row["jobs"] for row in rows.values())
    assert rows["floor"]["ratio"] == {"median": 1.0, "least": 1.0, "greatest": 1.0}


def test_the_floor_is_one_post_and_one_get(overhead_result):
    floor = next(row for row in overhead_result["rows"] if row["subject"] == "floor")
    assert floor["requests_per_job"] == 2.0


def test_without_lists_each_job_is_asked_about_by_itself(overhead_result):
    alone = next(row for row in overhead_result["rows"] if row["subject"] == "ours-never")
    assert alone["requests_per_job"] >= 2.0


def test_the_table_of_overhead_has_a_line_for_each_row(overhead_result):
    shown = overhead.table(overhead_result)
    assert all(row["subject"] in shown for row in overhead_result["rows"])


def test_scale_finishes_every_job_of_every_run():
    result = scale.measure(quick=True)
    rows = [*result["stream"], *result["flight"], result["lazy"]]
    assert all(row["succeeded"] == row["jobs"] for row in rows)
    assert all(row["requests_per_job"] > 1.0 for row in rows)
    assert len(result["lazy"]["readings_bytes"]) == scale.LAZY_READINGS
    assert "flight" in scale.table(result)


def test_workers_make_every_job_and_journals_write_every_row(postgres_server):
    result = workers.measure(quick=True)

    assert [(row["workers"], row["succeeded"]) for row in result["workers"]] == [(1, 20), (2, 40)]
    assert [row["journal"] for row in result["rows"]] == ["SQLite", "PostgreSQL"]
    assert all(row["rows_per_second"] > 0 for row in result["rows"])
    shown = workers.table(result)
    assert "of linear" in shown
    assert "of linear" not in workers.table({**result, "workers": []})


def test_sixty_knows_how_late_each_client_heard():
    result = sixty.measure(quick=True, subjects=["ours-100-rows"])
    (row,) = result["rows"]
    assert row["succeeded"] == row["jobs"] == row["requests"]["submit"]
    assert 0.0 <= row["lag_mean"] <= row["lag_p95"]
    assert row["makespan_ratio"] > 1.0
    assert "ours-100-rows" in sixty.table(result)


def test_faults_count_what_was_sent_and_what_became_of_it():
    result = faults.measure(quick=True)
    (row,) = result["rows"]
    ends = {case: (cell["posts"], cell["end"]) for case, cell in row["cells"].items()}
    assert ends == {
        "drops the reply": (1, "video"),
        "two polls fail": (1, "video"),
        faults.CANCELLED: (1, "cancelled"),
    }
    assert row["cells"][faults.CANCELLED]["knows_id"]
    assert "1, reconciled" in faults.table(result)


@pytest.mark.parametrize(
    "case,cell,shown",
    [
        ("stalls", {"end": "error", "error": "APITimeoutError", "posts": 3}, "3, lost"),
        ("stalls", {"end": "error", "error": "AmbiguousSubmitError", "posts": 1}, "1, ambiguous"),
        ("stalls", {"end": "trying", "error": None, "posts": 1}, "1, still waits"),
        ("a new status", {"end": "unfinished", "error": None}, "taken for done"),
        (faults.CANCELLED, {"knows_id": False}, "id lost"),
    ],
)
def test_every_end_has_its_words(case, cell, shown):
    row = {"subject": "fal", "version": "1", "cells": {case: cell}}
    assert faults.table({"rows": [row]}).splitlines()[2] == f"fal-client 1  {shown}"


def test_faults_refuse_a_client_that_they_do_not_know():
    with pytest.raises(ValueError, match="cannot measure no-client"):
        faults.measure(quick=True, subjects=["no-client"])


def test_imports_are_timed_in_fresh_processes():
    result = imports.measure(quick=True)
    assert 0.0 < result["import_ms"]["least"] <= result["import_ms"]["greatest"]
    assert result["modules"] > 0
    assert "import kling_async" in imports.table(result)


def test_downloads_receive_every_byte(tmp_path):
    result = downloads.measure(quick=True, folder=str(tmp_path))
    expected = result["files"] * result["size_bytes"]
    assert [run["received_bytes"] for run in result["ours"] + result["curl"]] == [expected] * (
        2 if shutil.which("curl") else 1
    )
    assert list(tmp_path.iterdir()) == []
    assert "MiB/s" in downloads.table(result)


def test_downloads_without_curl_say_so():
    run = {"received_bytes": 2**20, "wall": 1.0, "cpu": 1.0, "grown_bytes": 0}
    shown = downloads.table(
        {"ours": [run], "curl": [], "files": 1, "size_bytes": 2**20, "curl_version": None}
    )
    assert "curl is not installed" in shown


def test_an_unknown_client_is_refused_by_name():
    with pytest.raises(ValueError, match="cannot measure no-client"):
        clients.choose(["no-client"], overhead.OURS)


def test_the_command_prints_tables_and_writes_json(tmp_path, capsys):
    assert command.main(["imports", "--quick", "--json", str(tmp_path / "out.json")]) == 0
    (written,) = json.loads((tmp_path / "out.json").read_text())
    assert written["measure"] == "imports"
    assert "CPython" in capsys.readouterr().out


def test_the_command_refuses_an_unknown_measure(capsys):
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert "no such measure: nonsense" in capsys.readouterr().err


def test_loop_measures_the_longest_turn_of_each_case():
    result = loop.measure(quick=True)
    rows = {row["case"]: row for row in result["rows"]}
    assert list(rows) == list(loop.CASES)
    assert all(row["longest"] > 0.0 < row["longest_cpu"] for row in rows.values())
    assert rows["resume"]["succeeded"] == rows["resume"]["items"] == 100
    assert "resume entries" in loop.table(result)
