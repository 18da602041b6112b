from __future__ import annotations

import json
import random

import pytest

from benchmarks import ablation, pace, simulation
from benchmarks.simulation import Adaptive, Life, log_normal

pytestmark = pytest.mark.unmeasured


def lives_of(count, seed=1):
    rng = random.Random(seed)  # noqa: S311 - samples, no secret
    return [log_normal(60, 0.35)(rng) for _ in range(count)]


def adaptive(lives, **options):
    return Adaptive(lives, len(lives), random.Random("chance"), **options).run()  # noqa: S311 - see above


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("pace") / "pace.json"
    assert pace.main(["--quick", "--json", str(file)]) == 0
    return json.loads(file.read_text())


def test_every_service_and_every_mark_is_measured(written):
    rows = written["singly"]
    assert {row["mark"] for row in rows} == {None, *pace.MARKS.values()}
    assert {row["service"] for row in written["others"]} == set(pace.OTHERS)
    assert {row["mark"] for row in written["listed"]} == {None, *pace.LIST_MARKS.values()}


def rows_of(written):
    tables = ("singly", "others", "parts", "listed", "budget")
    return [written["cold"], *(row for name in tables for row in written[name])]


def test_each_part_of_the_pace_is_left_out_once_in_each_world(written):
    assert len(written["parts"]) == len(pace.MARKS) * len(ablation.PARTS)


def test_what_was_left_out_is_back_afterwards(written):
    before = adaptive(lives_of(30)).lags
    for part in ablation.PARTS:
        with ablation.leave_out(part):
            changed = adaptive(lives_of(30)).lags
        assert (changed == before) is (part == "nothing left out")
    assert adaptive(lives_of(30)).lags == before


def test_figures_make_sense(written):
    for row in rows_of(written):
        assert row["calls"] > 0
        assert 0 < row["lag_mean"] <= row["lag_p95"]
    assert written["cost_us"]["per_answer"] > 0


def test_the_tables_name_every_way(written):
    shown = pace.table(written)
    for row in rows_of(written):
        assert row["service"] in shown
        assert row["way"] in shown


def test_a_run_can_be_repeated():
    assert adaptive(lives_of(30)).lags == adaptive(lives_of(30)).lags


def test_every_job_that_ends_is_noticed_once():
    lives = [*lives_of(20), Life(run=float("inf")), Life(run=1.0, success=False)]
    report = adaptive(lives)
    assert len(report.lags) == 21
    assert min(report.lags) >= 0


def test_the_budget_is_kept():
    lives = lives_of(50)
    report = adaptive(lives, budget=2.0)
    ends = max(life.total + lag for life, lag in zip(lives, [max(report.lags)] * 50, strict=True))
    assert report.calls <= 2.0 * ends + 1


def test_the_best_fixed_interval_is_no_later_than_was_asked():
    lives = lives_of(50)
    best = simulation.every_best(lives, lag=1.0)
    assert best.mean_lag <= 1.0
    assert best.calls <= simulation.every(lives, 1.3).calls


def test_jobs_asked_about_in_turn_are_noticed_within_a_round():
    report = simulation.in_turn(lives_of(20), in_flight=20, budget=10.0)
    assert len(report.lags) == 20
    assert max(report.lags) <= 2.0 + 1e-9
