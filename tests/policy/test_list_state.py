from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.list_state import ListState, page_cost


def page(rows, hits=0, *, new_rows=None, has_more=None, total=None, cost=1.0, ends=0, is_stale=False):
    """What a page tells a scan."""
    new_rows = rows if new_rows is None else new_rows
    facts = {
        "rows": rows,
        "new_rows": new_rows,
        "hits": hits,
        "ends": ends,
        "has_more": has_more,
        "total": total,
        "cost": cost,
    }
    return facts, is_stale


def state_at_work():
    state = ListState()
    state.plan_scan(0.0, interval=0.0)
    return state


def scan(state, in_flight, *pages, now=0.0):
    """The offsets that a scan of these pages asks for."""
    one, offsets = state.begin_scan(in_flight), []
    for facts, is_stale in pages:
        if one.next_offset is None:
            break
        offsets.append(one.next_offset)
        one.check_suspect(is_final=not is_stale)
        state.add_page(one, **facts)
    state.end_scan(one, now)
    return offsets


def rest_after(state, now=0.0):
    """For how many seconds the list is left alone."""
    state.plan_scan(now, interval=0.0)
    return state.page_at - now


@pytest.mark.parametrize("in_flight, rows", [(1, 100), (100, 100), (101, 200), (750, 800), (9000, 1000)])
def test_a_page_is_as_large_as_what_is_in_flight_in_whole_hundreds(in_flight, rows):
    state = ListState()
    state.begin_scan(in_flight)
    assert state.rows == rows


def test_a_page_stays_as_large_as_it_was_as_jobs_end():
    state = state_at_work()
    scan(state, 400, page(400, hits=380, has_more=False))
    state.begin_scan(20)
    assert state.rows == 400


def test_a_list_pays_with_several_jobs_for_each_call():
    state = ListState()
    assert not state.pays(3)
    assert state.pays(4)
    assert state.pays(5000)
    scan(state, 500, page(500, hits=500, cost=50.0))
    assert not state.pays(100)
    assert state.pays(200)


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


def test_rows_that_repeat_as_the_list_grows_are_jumped_over_by_half_of_them():
    state = state_at_work()
    pages = [page(1000, hits=1000), page(1000, hits=900, new_rows=900), page(1000)]
    assert scan(state, 3000, *pages) == [0, 1000, 2050]


def test_a_page_of_nothing_but_old_rows_is_passed_once():
    pages = [page(100, hits=100), page(100, new_rows=0), page(100, new_rows=0), page(100)]
    assert scan(state_at_work(), 300, *pages) == [0, 100, 250]


def test_a_job_that_two_scans_do_not_show_is_polled_on_its_own():
    state = state_at_work()
    for _ in range(2):
        state.plan_scan(0.0, interval=5.0)
        assert state.next_shown_at(state.number) == 6.0
        scan(state, 100, page(100, hits=99))
    assert state.next_shown_at(0) < 0
    assert state.next_shown_at(1) == 6.0


def test_no_job_waits_for_a_list_that_is_not_scanned():
    assert ListState().next_shown_at(0) < 0


def test_a_scan_that_shows_nothing_leaves_the_list_alone_longer_each_time():
    state, rests = ListState(), []
    for _ in range(7):
        scan(state, 100, page(100))
        rests.append(rest_after(state))
        assert not state.is_on
    assert rests == sorted(rests)
    assert rests[0] <= 30
    assert rests[-1] == 600


def test_a_scan_that_helped_makes_the_next_rest_short_again():
    state = ListState()
    for _ in range(5):
        scan(state, 100, page(100))
    scan(state, 100, page(100, hits=100), now=5000.0)
    scan(state, 100, page(100), now=5000.0)
    assert rest_after(state, 5000.0) == 30.0


def test_a_scan_that_shows_little_because_little_is_in_flight_is_no_fault_of_the_list():
    state = state_at_work()
    scan(state, 1, page(100, cost=1.5))
    assert rest_after(state) == 0.0


def test_a_large_page_that_is_refused_is_asked_for_in_small_pages_from_then_on():
    state = state_at_work()
    state.begin_scan(500)
    state.record_failure(0.0, is_refusal=True)
    assert rest_after(state) == 0.0
    state.begin_scan(5000)
    assert state.rows == 100


@pytest.mark.parametrize("is_refusal", [True, False])
def test_a_list_that_cannot_be_read_in_small_pages_is_left_alone(is_refusal):
    state = state_at_work()
    state.record_failure(0.0, is_refusal=is_refusal)
    assert rest_after(state) == 30.0


def test_a_failure_says_nothing_of_the_size_of_pages():
    state = state_at_work()
    state.begin_scan(500)
    state.record_failure(0.0, is_refusal=False)
    state.begin_scan(500)
    assert state.rows == 500


def test_one_proof_of_a_stale_list_leaves_it_alone_for_the_longest_time():
    state = state_at_work()
    scan(state, 100, page(100, hits=100))
    state.record_end("job-1", scan_number=1)
    assert state.begin_scan(100).suspect == "job-1"
    assert scan(state, 100, page(100, hits=60, is_stale=True), page(100)) == [0]
    assert state.is_stale
    assert rest_after(state) == 600.0
    assert not state.wants_spot_check(1000.0)
    state.begin_scan(100)
    assert not state.is_stale


@pytest.mark.parametrize(
    "scans, scan_number, is_on, suspect",
    [
        (2, 2, True, "job-1"),
        (2, 1, True, None),
        (2, 2, False, None),
        (0, 0, True, None),
    ],
    ids=["the last scan showed the job", "an earlier one did", "no scan is planned", "there was no scan"],
)
def test_only_a_job_that_the_last_scan_showed_in_flight_tests_the_list(scans, scan_number, is_on, suspect):
    state = state_at_work()
    for _ in range(scans):
        scan(state, 100, page(100, hits=100))
    if not is_on:
        state.stop_scans()

    state.record_end("job-1", scan_number=scan_number)

    assert state.suspect == suspect


def test_a_row_that_shows_the_suspect_final_does_not_take_back_one_that_showed_it_in_flight():
    one = state_at_work().begin_scan(100)

    for is_final, is_stale in [(True, False), (False, True), (True, True)]:
        one.check_suspect(is_final=is_final)
        assert one.is_stale is is_stale


def test_a_list_that_shows_no_ends_is_tested_every_other_second():
    state, checks = state_at_work(), 0
    for number in range(40):
        scan(state, 100, page(100, hits=100))
        checks += state.wants_spot_check(number / 4)
    assert checks == 5
    scan(state, 100, page(100, hits=100, ends=1))
    assert not state.wants_spot_check(1000.0)


@pytest.mark.parametrize(
    "facts, least, most",
    [
        ({"size_bytes": 2, "seconds": 0.1}, 1.0, 1.2),
        ({"size_bytes": 200_000, "seconds": 0.1}, 1.1, 2.0),
        ({"size_bytes": 12_000_000, "seconds": 0.1}, 40.0, 400.0),
        ({"size_bytes": 200_000, "seconds": 5.1}, 6.0, 7.0),
    ],
    ids=["empty", "usual", "pictures", "slow"],
)
def test_a_page_costs_its_call_its_bytes_and_its_time(facts, least, most):
    assert least <= page_cost(**facts) <= most


pages = st.builds(
    lambda rows, hits, new_rows, has_more, total, cost: page(
        rows, min(hits, rows), new_rows=min(new_rows, rows), has_more=has_more, total=total, cost=cost
    ),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.sampled_from([None, True, False]),
    st.none() | st.integers(0, 10**9),
    st.floats(1.0, 50.0),
)


@pytest.mark.unmeasured
@given(st.lists(st.lists(pages, min_size=1, max_size=20), max_size=6), st.integers(1, 5000))
def test_whatever_a_list_shows_offsets_grow_and_pages_keep_their_bounds(scans, in_flight):
    state, now = ListState(), 0.0
    for shown in scans:
        offsets = scan(state, in_flight, *shown, now=now)
        assert offsets == sorted(offsets)
        assert offsets[0] >= 0
        assert 100 <= state.rows <= 1000
        assert 0.0 <= rest_after(state, now) <= 600.0
        now += 10.0
