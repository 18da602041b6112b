from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.list_state import ListState, PageFacts, page_cost


def page(rows, hits=0, *, new_rows=None, repeated_rows=0, last_hit=None, has_more=None, total=None, cost=1.0):
    return PageFacts(
        rows=rows,
        new_rows=rows - repeated_rows if new_rows is None else new_rows,
        repeated_rows=repeated_rows,
        hits=hits,
        last_hit=hits if last_hit is None else last_hit,
        has_more=has_more,
        total=total,
        cost=cost,
    )


def state_at_work():
    state = ListState()
    state.is_on = True
    return state


def scan(state, in_flight, *pages, now=0.0):
    """The offsets that a scan of these pages asks for."""
    one, offsets = state.begin_scan(in_flight), []
    for facts in pages:
        if one.next_offset is None:
            break
        offsets.append(one.next_offset)
        state.add_page(one, facts)
    state.end_scan(one, now=now)
    return offsets


@pytest.mark.parametrize("in_flight, rows", [(1, 100), (100, 100), (101, 200), (750, 800), (9000, 1000)])
def test_a_page_is_as_large_as_what_is_in_flight_in_whole_hundreds(in_flight, rows):
    state = ListState()
    state.fit_page(in_flight)
    assert state.limit == rows


def test_a_page_stays_as_large_as_the_rows_that_our_last_jobs_stand_among():
    state = state_at_work()
    scan(state, 400, page(400, hits=380, last_hit=400, has_more=False))
    state.fit_page(20)
    assert state.limit == 400


def test_a_list_that_was_never_read_costs_its_pages_and_their_rows():
    state = ListState()
    state.fit_page(2000)
    assert 2 < state.cost < 20


def test_one_page_that_shows_all_jobs_is_the_whole_scan():
    assert scan(state_at_work(), 100, page(100, hits=100, total=5000), page(100)) == [0]


def test_pages_follow_while_they_show_our_jobs():
    pages = [page(1000, hits=1000), page(1000, hits=1000), page(1000, hits=500), page(1000)]
    assert scan(state_at_work(), 2500, *pages) == [0, 1000, 2000]


def test_a_list_that_says_it_has_no_more_is_read_no_further():
    assert scan(state_at_work(), 500, page(100, hits=90, has_more=False), page(100)) == [0]


def test_a_page_without_our_jobs_is_the_last_when_the_list_does_not_say_how_long_it_is():
    assert scan(state_at_work(), 50, page(100), page(100)) == [0]


def test_the_newest_rows_of_a_long_list_are_looked_for_at_its_end_once():
    state = state_at_work()
    assert scan(state, 150, page(200, total=5000), page(200, total=5000), page(200)) == [0, 4800]


def test_the_next_scan_begins_where_the_last_one_found_our_jobs():
    state = state_at_work()
    scan(state, 150, page(200, total=5000), page(200, hits=150, total=5000))
    assert scan(state, 150, page(200, hits=150)) == [4800]


def test_a_scan_reads_as_far_as_the_last_one_found_our_jobs():
    state = state_at_work()
    scan(state, 150, page(100, hits=60), page(100, hits=60))
    assert scan(state, 140, page(100, hits=0), page(100, hits=100)) == [0, 100]


def test_rows_that_repeat_as_the_list_grows_are_jumped_over_by_half_of_the_growth():
    state = state_at_work()
    pages = [
        page(1000, hits=1000, total=3000),
        page(1000, hits=900, repeated_rows=100, total=3100),
        page(1000),
    ]
    assert scan(state, 3000, *pages) == [0, 1000, 2050]


def test_a_page_of_nothing_but_old_rows_is_passed_once_if_the_list_grows():
    repeated = page(100, hits=0, repeated_rows=100, total=300)
    pages = [page(100, hits=100, total=200), repeated, page(100, repeated_rows=100, total=400), page(100)]
    assert scan(state_at_work(), 300, *pages) == [0, 100, 250]


def test_a_page_of_nothing_but_old_rows_ends_the_scan_of_a_list_that_does_not_grow():
    pages = [page(100, hits=100, total=200), page(100, repeated_rows=100, total=200), page(100)]
    assert scan(state_at_work(), 300, *pages) == [0, 100]


def test_a_job_that_two_scans_do_not_show_is_polled_on_its_own():
    state = state_at_work()
    assert state.covers(state.number)
    for _ in range(2):
        scan(state, 100, page(100, hits=99))
    assert not state.covers(0)
    assert state.covers(1)


def test_no_job_waits_for_a_list_that_is_not_scanned():
    assert not ListState().covers(0)


def test_a_scan_that_shows_nothing_leaves_the_list_alone_longer_each_time():
    state, now = state_at_work(), 0.0
    rests = []
    for _ in range(7):
        scan(state, 100, page(100), now=now)
        assert not state.may_begin(now)
        rest = next(rest for rest in range(1, 10_000) if state.may_begin(now + rest))
        rests.append(rest)
        now += rest
        state.is_on = True
    assert rests == sorted(rests)
    assert rests[0] <= 30
    assert rests[-1] == 600


def test_a_scan_that_helped_makes_the_next_rest_short_again():
    state = state_at_work()
    for _ in range(5):
        scan(state, 100, page(100))
    scan(state, 100, page(100, hits=100), now=5000.0)
    state.is_on = True
    scan(state, 100, page(100), now=5000.0)
    assert state.may_begin(5030.0)


def test_a_scan_that_shows_little_because_little_is_in_flight_is_no_fault_of_the_list():
    state = state_at_work()
    scan(state, 1, page(100, cost=1.5))
    assert state.is_on


def test_a_list_at_work_cannot_begin():
    assert not state_at_work().may_begin(1e9)


def test_a_large_page_that_is_refused_is_asked_for_in_small_pages_from_then_on():
    state = state_at_work()
    state.fit_page(500)
    state.record_refusal(0.0)
    assert state.is_on
    state.fit_page(5000)
    assert state.limit == 100


def test_a_small_page_that_is_refused_means_that_there_is_no_such_list():
    state = state_at_work()
    state.record_refusal(0.0)
    assert not state.is_on
    assert not state.may_begin(599.0)
    assert state.may_begin(600.0)


def test_one_proof_of_a_stale_list_is_enough():
    state = state_at_work()
    state.report_stale(0.0, is_proof=True)
    assert not state.may_begin(599.0)


def test_three_rows_of_the_past_are_as_good_as_a_proof():
    state = state_at_work()
    state.report_stale(0.0)
    state.report_stale(0.0)
    assert state.is_on
    state.report_stale(0.0)
    assert not state.is_on


def test_a_list_is_tested_often_at_first_and_seldom_later_but_every_half_a_minute():
    quick, slow = state_at_work(), state_at_work()
    checks = []
    for number in range(400):
        scan(quick, 100, page(100, hits=100))
        if quick.spot_check_due(1.0 + number * 0.01):
            checks.append(number)
    assert 4 <= len(checks) <= 16
    assert checks[0] < 3
    assert slow.spot_check_due(0.0)
    scan(slow, 100, page(100, hits=100))
    assert not slow.spot_check_due(29.0)
    assert slow.spot_check_due(30.0)


@pytest.mark.parametrize(
    "facts, least, most",
    [
        ({"rows": 0, "size_bytes": 2, "seconds": 0.1}, 1.0, 1.01),
        ({"rows": 100, "size_bytes": 200_000, "seconds": 0.1}, 1.1, 2.0),
        ({"rows": 40, "size_bytes": 12_000_000, "seconds": 0.1}, 100.0, 400.0),
        ({"rows": 100, "size_bytes": 200_000, "seconds": 5.1}, 6.0, 7.0),
    ],
    ids=["empty", "usual", "pictures", "slow"],
)
def test_a_page_costs_its_call_its_rows_its_bytes_and_its_time(facts, least, most):
    assert least <= page_cost(**facts, status_seconds=0.1) <= most


pages = st.builds(
    lambda rows, hits, repeated, has_more, total, cost: page(
        rows,
        min(hits, rows),
        repeated_rows=min(repeated, rows),
        last_hit=rows if hits else 0,
        has_more=has_more,
        total=total,
        cost=cost,
    ),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.sampled_from([None, True, False]),
    st.none() | st.integers(0, 10**9),
    st.floats(1.0, 50.0),
)


@given(st.lists(st.lists(pages, min_size=1, max_size=20), max_size=6), st.integers(1, 5000))
def test_whatever_a_list_shows_offsets_grow_and_pages_keep_their_bounds(scans, in_flight):
    state, now = state_at_work(), 0.0
    for shown in scans:
        state.is_on = True
        offsets = scan(state, in_flight, *shown, now=now)
        assert offsets == sorted(offsets)
        assert offsets[0] >= 0
        assert 100 <= state.limit <= 1000
        assert math.isfinite(state.cost)
        assert state.may_begin(now + 600.0) or state.is_on
        now += 10.0
