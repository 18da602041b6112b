from __future__ import annotations

import tracemalloc
from uuid import UUID

from kling_async._policy import recent_job_ids as room
from kling_async._policy.recent_job_ids import RecentJobIds


def test_what_was_accepted_lately_is_known():
    claims = RecentJobIds(span=80.0)
    for second in range(100):
        claims.add(str(second), now=float(second), keep=False)
    assert all(str(second) in claims for second in range(20, 100))
    assert "100" not in claims


def test_what_is_remembered_is_not_taken_a_second_time():
    claims = RecentJobIds(span=80.0)
    assert all(claims.add(str(second), now=float(second), keep=False) for second in range(100))
    assert not claims.add("20", now=100.0, keep=False)
    assert not claims.add("99", now=100.0, keep=False)
    assert claims.add("100", now=100.0, keep=False)
    assert not claims.add("100", now=100.0, keep=False)


def test_the_last_one_is_remembered_for_as_long_as_nothing_follows():
    claims = RecentJobIds(span=80.0)
    assert claims.add("only", now=0.0, keep=False)
    assert not claims.add("only", now=1000.0, keep=False)


def test_what_is_older_is_forgotten():
    claims = RecentJobIds(span=80.0)
    for second in range(1000):
        claims.add(str(second), now=float(second), keep=False)
    assert sum(str(second) in claims for second in range(1000)) <= 110


def test_nothing_is_forgotten_while_a_reply_is_sought():
    claims = RecentJobIds(span=80.0)
    for second in range(1000):
        claims.add(str(second), now=float(second), keep=True)
    assert all(str(second) in claims for second in range(1000))


def test_many_ids_take_little_more_than_their_digests():
    claims, ids = RecentJobIds(span=80.0), [str(UUID(int=number << 32)) for number in range(100_000)]
    tracemalloc.start()
    assert all(claims.add(request_id, now=0.0, keep=False) for request_id in ids)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 13 * len(ids)
    assert not any(claims.add(request_id, now=0.0, keep=False) for request_id in ids)


def test_what_two_digests_make_where_they_meet_is_no_third(monkeypatch):
    monkeypatch.setattr(room, "_digest", lambda request_id: request_id.encode())
    claims = RecentJobIds(span=80.0)
    one, two = "a" * 8, "a" * 4 + "b" * 4
    for request_id in (two, one, two[:7] + "c"):
        assert claims.add(request_id, now=0.0, keep=False)
    for request_id in (one, two):
        assert request_id in claims
    assert "a" * 2 + "b" * 4 + "a" * 2 not in claims
    assert "a" * 6 + "a" + "x" not in claims


def test_an_id_may_be_any_text():
    claims = RecentJobIds(span=80.0)
    for request_id in ("", "\ud800", "\U0001f3ac", "x" * 10_000):
        assert claims.add(request_id, now=0.0, keep=False)
        assert request_id in claims
