from __future__ import annotations

import tracemalloc
from uuid import UUID

from kling_async._policy import recent_job_ids as room
from kling_async._policy.recent_job_ids import RecentJobIds


def test_what_was_accepted_lately_is_known():
    job_ids = RecentJobIds(span=80.0)
    for second in range(100):
        job_ids.add(str(second), now=float(second), keep=False)
    assert all(str(second) in job_ids for second in range(20, 100))
    assert "100" not in job_ids


def test_what_is_remembered_is_not_taken_a_second_time():
    job_ids = RecentJobIds(span=80.0)
    assert all(job_ids.add(str(second), now=float(second), keep=False) for second in range(100))
    assert not job_ids.add("20", now=100.0, keep=False)
    assert not job_ids.add("99", now=100.0, keep=False)
    assert job_ids.add("100", now=100.0, keep=False)
    assert not job_ids.add("100", now=100.0, keep=False)


def test_the_last_one_is_remembered_for_as_long_as_nothing_follows():
    job_ids = RecentJobIds(span=80.0)
    assert job_ids.add("only", now=0.0, keep=False)
    assert not job_ids.add("only", now=1000.0, keep=False)


def test_what_is_older_is_forgotten():
    job_ids = RecentJobIds(span=80.0)
    for second in range(1000):
        job_ids.add(str(second), now=float(second), keep=False)
    assert sum(str(second) in job_ids for second in range(1000)) <= 110


def test_nothing_is_forgotten_while_a_reply_is_sought():
    job_ids = RecentJobIds(span=80.0)
    for second in range(1000):
        job_ids.add(str(second), now=float(second), keep=True)
    assert all(str(second) in job_ids for second in range(1000))


def test_many_ids_take_little_more_than_their_digests():
    job_ids, ids = RecentJobIds(span=80.0), [str(UUID(int=number << 32)) for number in range(100_000)]
    tracemalloc.start()
    assert all(job_ids.add(request_id, now=0.0, keep=False) for request_id in ids)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 13 * len(ids)
    assert not any(job_ids.add(request_id, now=0.0, keep=False) for request_id in ids)


def test_what_two_digests_make_where_they_meet_is_no_third(monkeypatch):
    monkeypatch.setattr(room, "_digest", lambda request_id: request_id.encode())
    job_ids = RecentJobIds(span=80.0)
    one, two = "a" * 8, "a" * 4 + "b" * 4
    for request_id in (two, one, two[:7] + "c"):
        assert job_ids.add(request_id, now=0.0, keep=False)
    for request_id in (one, two):
        assert request_id in job_ids
    assert "a" * 2 + "b" * 4 + "a" * 2 not in job_ids
    assert "a" * 6 + "a" + "x" not in job_ids


def test_an_id_may_be_any_text():
    job_ids = RecentJobIds(span=80.0)
    for request_id in ("", "\ud800", "\U0001f3ac", "x" * 10_000):
        assert job_ids.add(request_id, now=0.0, keep=False)
        assert request_id in job_ids
