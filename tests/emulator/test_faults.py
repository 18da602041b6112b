from __future__ import annotations

import pytest

from kling_async.emulator import NOT_FOUND, Drop, Fault, Faults, Reply, Stall

DROP = Drop()


def hit_calls(fault, *, calls=12, seed=""):
    return [call for call in range(1, calls + 1) if fault.hits(call, seed=seed)]


@pytest.mark.parametrize(
    "rule, hit",
    [
        ({}, [1]),
        ({"nth": 3}, [3]),
        ({"nth": 3, "times": 2}, [3, 4]),
        ({"nth": 10, "times": None}, [10, 11, 12]),
        ({"nth": 2, "every": 4, "times": None}, [2, 6, 10]),
        ({"nth": 2, "every": 4, "times": 2}, [2, 6]),
        ({"times": None, "probability": 0.0}, []),
    ],
)
def test_a_fault_hits_the_calls_its_rule_names(rule, hit):
    assert hit_calls(Fault("submit", DROP, **rule)) == hit


def test_chance_follows_from_the_seed():
    fault = Fault("submit", DROP, times=None, probability=0.3)
    hit = hit_calls(fault, calls=1000, seed="a")

    assert hit == hit_calls(fault, calls=1000, seed="a")
    assert hit != hit_calls(fault, calls=1000, seed="b")
    assert len(hit) == pytest.approx(300, abs=50)


def test_calls_are_counted_by_fault_and_operation():
    faults = Faults([Fault("submit", DROP, nth=2), Fault("status", NOT_FOUND)])

    assert [faults.next_action(kind) for kind in ("submit", "status", "submit", "submit", "status")] == [
        None,
        NOT_FOUND,
        DROP,
        None,
        None,
    ]


def test_the_first_fault_that_hits_wins_and_the_others_still_count():
    first, second = Reply(503), Reply(504)
    faults = Faults([Fault("list", first), Fault("list", second, nth=2)])

    assert [faults.next_action("list") for _ in range(3)] == [first, second, None]


def test_a_fault_about_one_job_leaves_the_others_alone():
    faults = Faults([Fault("status", NOT_FOUND, job=2, times=None)])

    assert [faults.next_action("status", job=job) for job in (1, 2, None, 2)] == [
        None,
        NOT_FOUND,
        None,
        NOT_FOUND,
    ]


def test_a_fault_set_later_counts_from_then():
    faults = Faults()
    assert faults.next_action("media") is None

    faults.add(Fault("media", DROP))

    assert faults.next_action("media") is DROP


def test_cleared_faults_hit_no_more():
    faults = Faults([Fault("media", DROP, times=None)])
    faults.clear()

    assert faults.next_action("media") is None


def test_faults_show_what_is_set():
    assert "Fault(on='media'" in repr(Faults([Fault("media", DROP)]))


@pytest.mark.parametrize(
    "field, value",
    [("on", "nonsense"), ("nth", 0), ("times", 0), ("every", 0), ("probability", 1.5), ("job", 0)],
)
def test_faults_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=f"'{field}' must be"):
        Fault(**{"on": "submit", "do": DROP, field: value})


def test_time_does_not_run_backwards_in_a_stall():
    with pytest.raises(ValueError, match="'delay' must be"):
        Stall(-1.0)
