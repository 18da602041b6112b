from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._engine.poll.due_queue import DueQueue


class Entry:
    """As much of a job in flight, or of a list, as the queue knows."""

    def __init__(self, name):
        self.name = name
        self.queue_entry = 0

    def __repr__(self):
        return f"<{self.name}>"


class Queue(DueQueue[Entry]):
    def number_of(self, one):
        return one.queue_entry

    def set_number(self, one, number):
        one.queue_entry = number


@pytest.fixture
def queue():
    return Queue()


def take_all(queue, now=math.inf):
    taken = []
    while (job := queue.take(now)) is not None:
        taken.append(job.name)
    return taken


def test_jobs_come_in_the_order_in_which_they_are_due(queue):
    for name, due in [("b", 2.0), ("c", 3.0), ("a", 1.0)]:
        queue.put(Entry(name), due)
    assert take_all(queue, now=2.5) == ["a", "b"]
    assert queue.first_at == 3.0


def test_jobs_that_are_due_together_come_in_the_order_in_which_they_were_queued(queue):
    for name in "abc":
        queue.put(Entry(name), 1.0)
    assert take_all(queue) == ["a", "b", "c"]


def test_an_empty_queue_has_nothing_due(queue):
    assert queue.take(1e9) is None
    assert queue.first_at == math.inf


def test_a_job_has_one_entry_the_last(queue):
    job = Entry("a")
    queue.put(job, 1.0)
    queue.put(job, 5.0)
    assert queue.take(4.0) is None
    queue.put(job, 2.0)
    assert take_all(queue) == ["a"]


def test_putting_a_job_says_whether_it_is_the_first(queue):
    assert queue.put(Entry("a"), 5.0)
    assert not queue.put(Entry("b"), 6.0)
    assert queue.put(Entry("c"), 4.0)


def test_a_job_that_is_dropped_does_not_come(queue):
    job, other = Entry("a"), Entry("b")
    queue.put(job, 1.0)
    queue.put(other, 2.0)
    queue.drop(job)
    queue.drop(job)
    assert take_all(queue) == ["b"]


def test_all_entries_can_be_brought_forward_but_none_is_put_off(queue):
    jobs = [Entry("a"), Entry("b"), Entry("gone")]
    for job, due in zip(jobs, [1.0, 10.0, 10.0], strict=True):
        queue.put(job, due)
    queue.drop(jobs[2])
    queue.bring_forward(5.0)
    assert queue.first_at == 1.0
    assert take_all(queue, now=5.0) == ["a", "b"]
    assert queue.take(1e9) is None


@pytest.mark.unmeasured
def test_the_queue_stays_small_though_each_scan_queues_every_job_again(queue):
    jobs = [Entry(str(number)) for number in range(100)]
    for turn in range(1000):
        for job in jobs:
            queue.put(job, 1000.0 - turn)
    assert len(queue._heap) <= 2 * len(jobs) + 100
    assert sorted(take_all(queue)) == sorted(job.name for job in jobs)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["put", "drop", "take"]), st.floats(0.0, 100.0)),
        max_size=80,
    )
)
def test_the_queue_is_what_a_sorted_list_would_be(steps):
    queue, jobs, due = Queue(), [Entry(str(number)) for number in range(10)], {}
    for number, action, at in steps:
        if action == "put":
            queue.put(jobs[number], at)
            due[number] = at
        elif action == "drop":
            queue.drop(jobs[number])
            due.pop(number, None)
        elif (job := queue.take(at)) is None:
            assert all(moment > at for moment in due.values())
        else:
            assert due[int(job.name)] == min(due.values()) <= at
            del due[int(job.name)]
    assert sorted(take_all(queue)) == sorted(map(str, due))
