from __future__ import annotations

import math
from statistics import median

import pytest

from benchmarks.jobs import UNKNOWN, Jobs, Workload, prompts


def make_jobs(workload: Workload, *, count: int, model: str = "m") -> Jobs:
    jobs = Jobs(workload)
    for number in range(count):
        jobs.accept(model, b"{}", now=float(number))
    return jobs


def test_instant_jobs_are_done_when_accepted():
    jobs = make_jobs(Workload(), count=3)
    assert jobs.tell_final(2, now=2.0)
    assert not jobs.tell_final(2, now=1.9)


def test_the_first_reply_that_says_final_is_the_moment_a_client_was_told():
    jobs = make_jobs(Workload(), count=1)
    jobs.tell_final(0, now=5.0)
    jobs.tell_final(0, now=9.0)
    assert list(jobs.rows()) == [(0.0, 0.0, 5.0)]


def test_a_job_without_a_poll_was_never_told():
    assert list(make_jobs(Workload(), count=1).rows()) == [(0.0, 0.0, None)]


def test_the_same_seed_gives_the_same_run_times():
    first, second = (make_jobs(Workload(median=60.0), count=5) for _ in range(2))
    assert first.finish == second.finish
    assert first.finish != make_jobs(Workload(median=60.0, seed=2), count=5).finish


def test_run_times_have_the_median_that_was_asked_for():
    jobs = make_jobs(Workload(median=60.0, sigma=0.35), count=4_000)
    times = [finish - start for start, finish in zip(jobs.accepted, jobs.finish, strict=True)]
    assert 57 < median(times) < 63


def test_held_jobs_start_when_the_last_one_is_accepted():
    jobs = make_jobs(Workload(hold_until_jobs=3), count=2)
    assert all(math.isinf(finish) for finish in jobs.finish)
    jobs.accept("m", b"{}", now=7.0)
    assert list(jobs.finish) == [7.0, 7.0, 7.0]


def test_an_id_leads_back_to_its_job():
    jobs = make_jobs(Workload(), count=3)
    assert [jobs.index_of(jobs.id_of(index)) for index in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("request_id", ["", "nonsense", "00000009-0000-4000-8000-00000000feed", "00000000"])
def test_a_strange_id_is_unknown(request_id):
    assert make_jobs(Workload(), count=3).index_of(request_id) == UNKNOWN


def test_an_id_of_an_earlier_run_is_unknown():
    earlier, later = Jobs(Workload(), run=1), Jobs(Workload(), run=2)
    earlier.accept("m", b"{}", now=0.0)
    later.accept("m", b"{}", now=0.0)
    assert later.index_of(earlier.id_of(0)) == UNKNOWN


@pytest.mark.parametrize(
    "order,pages",
    [("newest", [[4, 3], [2, 1], [0], []]), ("oldest", [[0, 1], [2, 3], [4], []])],
)
def test_pages_follow_the_order_to_the_end(order, pages):
    jobs = make_jobs(Workload(order=order), count=5)
    assert [list(jobs.list_page("m", offset=offset, limit=2)[0]) for offset in (0, 2, 4, 6)] == pages


def test_random_order_is_the_same_on_every_page():
    jobs = make_jobs(Workload(order="random"), count=50)
    pages = [list(jobs.list_page("m", offset=offset, limit=10)[0]) for offset in range(0, 50, 10)]
    rows = [index for page in pages for index in page]
    assert sorted(rows) == list(range(50))
    assert rows != sorted(rows)


def test_a_list_shows_one_model_only():
    jobs = make_jobs(Workload(), count=2)
    jobs.accept("other", b"{}", now=3.0)
    assert jobs.list_page("other", offset=0, limit=9) == ([2], 1)
    assert list(jobs.list_page(None, offset=0, limit=9)[0]) == [2, 1, 0]
    assert jobs.list_page("absent", offset=0, limit=9) == ([], 0)


def test_prompts_differ_and_come_one_at_a_time():
    endless = prompts(10**9)
    assert len({next(endless) for _ in range(500)}) == 500
