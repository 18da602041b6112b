from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.sweeping import ListScanState, page_cost


def begun(alive=150):
    listing = ListScanState()
    listing.expect(alive)
    listing.is_on = True
    return listing


@pytest.mark.parametrize("alive, limit", [(1, 100), (100, 100), (101, 200), (950, 1000), (100_000, 1000)])
def test_a_page_is_as_large_as_the_crowd_in_whole_hundreds(alive, limit):
    assert begun(alive).limit == limit


def test_a_job_that_two_sweeps_passed_by_is_no_longer_covered():
    listing = begun()
    assert listing.covers(0)
    listing.number = 1
    assert listing.covers(0)
    listing.number = 2
    assert not listing.covers(0)
    assert listing.covers(1)


def test_a_sweep_that_cost_more_than_it_found_is_followed_by_a_longer_rest_each_time():
    listing = begun()
    rests = []
    now = 0.0
    for _ in range(8):
        listing.is_on = True
        listing.swept(found=0, alive=150, calls=2, cost=18.0, now=now)
        assert not listing.is_on
        started = now
        while not listing.may_begin(now):
            now += 1.0
        rests.append(now - started)
    assert rests == sorted(rests)
    assert rests[0] >= 30.0
    assert rests[-1] == 600.0


def test_a_sweep_that_paid_forgets_the_rests_before_it():
    listing = begun()
    listing.swept(found=0, alive=150, calls=2, cost=18.0, now=0.0)
    listing.is_on = True
    listing.swept(found=100, alive=150, calls=2, cost=18.0, now=100.0)
    listing.rest(200.0)
    assert not listing.may_begin(229.0)
    assert listing.may_begin(230.0)


def test_a_few_jobs_left_are_no_reason_to_mistrust_the_list():
    listing = begun()
    listing.swept(found=3, alive=4, calls=1, cost=9.0, now=0.0)
    assert listing.is_on


def test_paging_goes_on_while_a_page_shows_more_than_it_costs():
    listing = begun()
    assert listing.goes_on(hits=50, left=100, cost=9.0, end=100)
    assert not listing.goes_on(hits=5, left=100, cost=9.0, end=100)
    assert not listing.goes_on(hits=50, left=5, cost=9.0, end=100)


def test_paging_goes_as_far_as_it_was_worth_last_time():
    listing = begun()
    listing.reach = 300
    assert listing.goes_on(hits=0, left=100, cost=9.0, end=200)
    assert not listing.goes_on(hits=0, left=100, cost=9.0, end=300)


def test_a_page_is_as_large_as_what_stands_between_our_jobs():
    listing = begun(950)
    assert listing.limit == 1000
    listing.expect(40)
    assert listing.limit == 100
    listing.span = 180
    listing.expect(40)
    assert listing.limit == 200
    listing.rest(0.0)
    listing.expect(40)
    assert listing.limit == 100


def test_a_refused_page_is_made_small_and_a_refused_small_page_ends_it():
    listing = begun(950)
    listing.refused(0.0)
    assert listing.limit == 100
    assert listing.is_on
    listing.expect(950)
    assert listing.limit == 100
    listing.refused(0.0)
    assert not listing.may_begin(599.0)
    assert listing.may_begin(600.0)


def test_one_proof_or_three_signs_of_staleness_end_it():
    listing = begun()
    listing.strike(0.0)
    listing.strike(0.0)
    assert listing.is_on
    listing.strike(0.0)
    assert not listing.is_on
    proven = begun()
    proven.strike(0.0, proof=True)
    assert not proven.is_on


def test_the_list_is_put_to_the_test_less_often_as_it_holds_but_at_least_twice_a_minute():
    listing = begun()
    tested = []
    for number in range(1, 250):
        listing.number = number
        if listing.wants_audit(now=0.1 * number):
            tested.append(number)
    gaps = [after - before for before, after in pairwise(tested)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 64
    assert not listing.wants_audit(now=25.0)
    assert listing.wants_audit(now=60.0)


@given(
    rows=st.integers(0, 1000),
    size_bytes=st.integers(0, 10**9),
    seconds=st.floats(0, 1e4),
    status_seconds=st.floats(0, 1e4),
)
def test_a_page_costs_at_least_its_call_and_at_most_a_call_a_row_and_its_time(
    rows, size_bytes, seconds, status_seconds
):
    cost = page_cost(rows=rows, size_bytes=size_bytes, seconds=seconds, status_seconds=status_seconds)
    assert 1.0 <= cost <= 1.0 + rows + seconds


def test_a_heavy_row_costs_as_much_as_a_call_of_its_own():
    light = page_cost(rows=100, size_bytes=100_000, seconds=0.1, status_seconds=0.1)
    heavy = page_cost(rows=100, size_bytes=100_000_000, seconds=0.1, status_seconds=0.1)
    assert light < 12
    assert heavy > 90


def test_rows_of_a_usual_size_weigh_alike():
    costs = {
        page_cost(rows=100, size_bytes=size, seconds=0, status_seconds=0) for size in (0, 20_000, 200_000)
    }
    assert len(costs) == 1
    assert page_cost(rows=100, size_bytes=400_000, seconds=0, status_seconds=0) > costs.pop() + 1


def test_a_sweep_of_fewer_jobs_is_expected_to_cost_less_but_never_less_than_a_call():
    listing = begun(alive=1000)
    assert listing.expected(1000)[0] == 1.0
    listing.swept(found=900, alive=1000, calls=10, cost=25.0, now=0.0)
    calls, rows = listing.expected(1000)
    assert calls == 10.0
    fewer = listing.expected(100)
    assert fewer[0] == 1.0
    assert fewer[1] < rows
    assert listing.expected(5000)[0] == 10.0
