from __future__ import annotations

from kling_async._policy.job_owners import JobOwners, JournalRun

NO_JOURNAL = JournalRun()
FIRST, SECOND = JournalRun("run.db", 1), JournalRun("run.db", 2)
OTHER = JournalRun("other.db", 1)


def owners_of(*jobs, span=80.0):
    owners = JobOwners(span)
    for second, (request_id, owner) in enumerate(jobs):
        owners.add(request_id, owner, now=float(second), keep=False)
    return owners


def test_a_job_has_an_owner_once_it_was_added():
    owners = owners_of(("a", FIRST), ("b", NO_JOURNAL))
    assert [owners.has_owner(request_id, {}) for request_id in "abc"] == [True, True, False]


def test_a_job_is_new_where_neither_this_owner_nor_another_has_it():
    owners = owners_of(("a", FIRST))
    assert owners.add("b", SECOND, now=1.0, keep=False)
    assert not owners.add("b", SECOND, now=1.0, keep=False)
    assert not owners.add("a", SECOND, now=1.0, keep=False)
    assert owners.has_owner("a", {"run.db": SECOND})  # all the same


def test_the_job_of_an_earlier_run_is_not_owned_for_the_present_run_of_its_journal():
    owners = owners_of(("a", FIRST))
    assert owners.has_owner("a", {})
    assert owners.has_owner("a", {"other.db": OTHER})
    assert owners.has_owner("a", {"run.db": FIRST})
    assert not owners.has_owner("a", {"run.db": SECOND})
    assert not owners.has_owner("b", {})


def test_a_job_that_the_present_run_has_taken_too_is_owned():
    assert owners_of(("a", FIRST), ("a", SECOND)).has_owner("a", {"run.db": SECOND})


def test_a_job_without_a_journal_is_owned_for_every_journal():
    assert owners_of(("a", NO_JOURNAL)).has_owner("a", {"run.db": SECOND})


def test_jobs_are_forgotten_after_the_span_and_not_before():
    owners = owners_of(("a", FIRST))
    owners.add("b", OTHER, now=70.0, keep=False)
    assert owners.has_owner("a", {})
    owners.add("c", SECOND, now=200.0, keep=True)
    assert owners.has_owner("a", {})
    owners.add("d", NO_JOURNAL, now=250.0, keep=False)
    assert [owners.has_owner(request_id, {}) for request_id in "abcd"] == [False, False, True, True]


def test_a_longer_span_holds_for_the_jobs_that_come_later():
    owners = owners_of(("a", FIRST))
    owners.span = 1000.0
    owners.add("b", FIRST, now=1.0, keep=False)
    owners.add("c", FIRST, now=500.0, keep=False)
    owners.add("d", OTHER, now=500.0, keep=False)
    assert owners.has_owner("a", {})


def test_another_thread_can_add_an_owner_at_any_moment():
    owners, runs = owners_of(("a", FIRST), ("b", OTHER)), iter(range(100))

    class Interrupted(str):
        """An id: whenever it is compared, another thread has its turn."""

        __slots__ = ()

        def encode(self, *args, **options):
            owners.add("c", JournalRun("third.db", next(runs)), now=3.0, keep=True)
            return super().encode(*args, **options)

    assert owners.add(Interrupted("d"), FIRST, now=2.0, keep=True)
    assert not owners.has_owner(Interrupted("e"), {})
