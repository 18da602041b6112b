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
def test_a_fault_hits_the_calls_of_its_rule(rule, hit):
    assert hit_calls(Fault("submit", DROP, **rule)) == hit


def test_the_probability_of_a_fault_repeats_with_the_seed():
    fault = Fault("submit", DROP, times=None, probability=0.3)
    hit = hit_calls(fault, calls=1000, seed="a")

    assert hit == hit_calls(fault, calls=1000, seed="a")
    assert hit != hit_calls(fault, calls=1000, seed="b")
    assert len(hit) == pytest.approx(300, abs=50)


def test_each_fault_counts_the_calls_of_its_operation():
    faults = Faults([Fault("submit", DROP, nth=2), Fault("status", NOT_FOUND)])

    assert [faults.next_action(kind) for kind in ("submit", "status", "submit", "submit", "status")] == [
        None,
        NOT_FOUND,
        DROP,
        None,
        None,
    ]


def test_the_first_hit_is_applied_and_the_other_faults_still_count():
    first, second = Reply(503), Reply(504)
    faults = Faults([Fault("list", first), Fault("list", second, nth=2)])

    assert [faults.next_action("list") for _ in range(3)] == [first, second, None]


def test_a_fault_for_one_job_hits_no_other_job():
    faults = Faults([Fault("status", NOT_FOUND, job=2, times=None)])

    assert [faults.next_action("status", job=job) for job in (1, 2, None, 2)] == [
        None,
        NOT_FOUND,
        None,
        NOT_FOUND,
    ]


def test_a_fault_counts_from_the_moment_it_is_added():
    faults = Faults()
    assert faults.next_action("media") is None

    faults.add(Fault("media", DROP))

    assert faults.next_action("media") is DROP


def test_clear_removes_all_faults():
    faults = Faults([Fault("media", DROP, times=None)])
    faults.clear()

    assert faults.next_action("media") is None


def test_the_repr_of_faults_has_each_fault():
    assert "Fault(on='media'" in repr(Faults([Fault("media", DROP)]))


@pytest.mark.parametrize(
    "field, value",
    [("on", "nonsense"), ("nth", 0), ("times", 0), ("every", 0), ("probability", 1.5), ("job", 0)],
)
def test_invalid_fields_of_a_fault_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"'{field}' must be"):
        Fault(**{"on": "submit", "do": DROP, field: value})


def test_a_negative_delay_is_refused():
    with pytest.raises(ValueError, match="'delay' must be"):
        Stall(-1.0)
