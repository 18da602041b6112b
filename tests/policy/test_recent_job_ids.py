from __future__ import annotations

import tracemalloc
from uuid import UUID

import pytest

from kling_async._policy import recent_job_ids as module
from kling_async._policy.recent_job_ids import RecentJobIds


def test_a_recently_accepted_job_is_remembered():
    job_ids = RecentJobIds(span=80.0)
    for second in range(100):
        job_ids.add(str(second), now=float(second), keep=False)
    assert all(str(second) in job_ids for second in range(20, 100))
    assert "100" not in job_ids


def test_a_remembered_id_cannot_be_added_again():
    job_ids = RecentJobIds(span=80.0)
    assert all(job_ids.add(str(second), now=float(second), keep=False) for second in range(100))
    assert not job_ids.add("20", now=100.0, keep=False)
    assert not job_ids.add("99", now=100.0, keep=False)
    assert job_ids.add("100", now=100.0, keep=False)
    assert not job_ids.add("100", now=100.0, keep=False)


def test_a_uuid_is_one_id_in_any_case():
    job_ids, uuid = RecentJobIds(span=80.0), "550e8400-e29b-41d4-a716-446655440000"
    assert job_ids.add(uuid, now=0.0, keep=False)
    assert not job_ids.add(uuid.upper(), now=0.0, keep=False)
    assert job_ids.add("job-a", now=0.0, keep=False)
    assert job_ids.add("JOB-A", now=0.0, keep=False)


def test_the_last_id_is_remembered_until_another_follows():
    job_ids = RecentJobIds(span=80.0)
    assert job_ids.add("only", now=0.0, keep=False)
    assert not job_ids.add("only", now=1000.0, keep=False)


def test_an_id_older_than_the_span_is_forgotten():
    job_ids = RecentJobIds(span=80.0)
    for second in range(1000):
        job_ids.add(str(second), now=float(second), keep=False)
    assert sum(str(second) in job_ids for second in range(1000)) <= 110


def test_no_id_is_forgotten_while_a_submit_is_reconciled():
    job_ids = RecentJobIds(span=80.0)
    for second in range(1000):
        job_ids.add(str(second), now=float(second), keep=True)
    assert all(str(second) in job_ids for second in range(1000))


@pytest.mark.unmeasured
def test_many_ids_take_little_more_memory_than_their_digests():
    job_ids, ids = RecentJobIds(span=80.0), [str(UUID(int=number << 32)) for number in range(100_000)]
    tracemalloc.start()
    assert all(job_ids.add(request_id, now=0.0, keep=False) for request_id in ids)
    memory_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory_bytes < 13 * len(ids)
    assert not any(job_ids.add(request_id, now=0.0, keep=False) for request_id in ids)


def test_the_seam_of_two_digests_is_not_a_third(monkeypatch):
    monkeypatch.setattr(module, "_digest", lambda request_id: request_id.encode())
    job_ids = RecentJobIds(span=80.0)
    one, two = "a" * 8, "a" * 4 + "b" * 4
    for request_id in (two, one, two[:7] + "c"):
        assert job_ids.add(request_id, now=0.0, keep=False)
    for request_id in (one, two):
        assert request_id in job_ids
    assert "a" * 2 + "b" * 4 + "a" * 2 not in job_ids
    assert "a" * 6 + "a" + "x" not in job_ids


def test_an_id_can_be_any_text():
    job_ids = RecentJobIds(span=80.0)
    for request_id in ("", "\ud800", "\U0001f3ac", "x" * 10_000):
        assert job_ids.add(request_id, now=0.0, keep=False)
        assert request_id in job_ids
