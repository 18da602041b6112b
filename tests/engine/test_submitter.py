from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import re
import signal
import textwrap
from decimal import Decimal
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from virtual_service import Service, VirtualLoop, always, on, reply, session_for
from virtual_store import MemoryStore

from kling_async import (
    AmbiguousSubmitError,
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    JobStatus,
    JournalError,
    Limits,
    RateLimitError,
    RetryPolicy,
    VideoRequest,
)
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.submitter import Submitter
from kling_async._journal.entry import EntryState, Identity
from kling_async._journal.journal import WriteAheadJournal
from kling_async._policy.budget import Budget
from kling_async._policy.matching import could_match
from kling_async._wire.endpoints import LIST
from kling_async._wire.payloads import payload_of
from kling_async.events import Notifier, Retrying, Spent, SubmitLost, Submitted, Throttled

REQUEST = VideoRequest("an eagle", model="kling-v2-6", duration=10, sound=True)


async def submit(service, notify=None, **settings):
    return await session_for(service, **settings).submit(REQUEST, Notifier(notify))


async def test_a_submit_is_one_post_with_the_payload_of_the_request():
    service = Service()
    job = await submit(service)
    assert service.posts == 1
    assert (job.request_id, job.status) == ("job-0", JobStatus.PROCESSING)
    assert service.jobs["job-0"].payload == {"prompt": "an eagle", "sound": "on", "duration": "10"}


@pytest.mark.parametrize(
    "lost",
    [
        reply(500, {"error": "Backend error (400). Please try again."}),
        reply(502, b"<html>Bad Gateway</html>"),
        reply(408, {"error": "timeout"}),
        reply(200, b"{half a js"),
        reply(200, {"status": "queued"}),
        reply(200, []),
        APIConnectionError("the connection was lost"),
        APITimeoutError("no answer"),
    ],
    ids=["500", "502 page", "408", "half", "no id", "list", "dropped", "stalled"],
)
async def test_a_post_with_an_ambiguous_answer_is_never_sent_again(lost):
    service = Service(before=[always("submit", lost)])
    with pytest.raises(AmbiguousSubmitError) as caught:
        await submit(service)
    assert service.posts == 1
    assert caught.value.status_code == getattr(lost, "status", None)
    assert "not sent again" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [{"request_id": "job-0"}, {"request_id": "job-0", "status": 7}, {"request_id": "job-0", "status": None}],
)
async def test_an_unexpected_answer_with_an_id_is_a_job(answer):
    job = await submit(Service(after=[on("submit", reply(200, answer))]))
    assert (job.request_id, job.status, job.model) == ("job-0", JobStatus.UNKNOWN, "kling-v2-6")


async def test_a_post_that_never_connected_is_sent_again_after_a_growing_delay():
    refused = APIConnectionError("refused", was_sent=False)
    events = []
    service = Service(before=[on("submit", refused, refused)])
    await submit(service, events.append)
    assert service.posts == 3
    assert [type(event) for event in events] == [Retrying, Retrying, Submitted]
    assert events[0].delay < events[1].delay


async def test_a_service_that_cannot_be_reached_is_an_error_after_the_retries():
    refused = APIConnectionError("refused", was_sent=False)
    service = Service(before=[always("submit", refused)])
    with pytest.raises(APIConnectionError):
        await submit(service, retry=RetryPolicy(max_retries=2))
    assert service.posts == 3


async def test_a_refusal_is_raised_and_not_retried():
    service = Service(before=[always("submit", reply(400, {"error": "missing prompt"}))])
    with pytest.raises(BadRequestError, match="missing prompt"):
        await submit(service)
    assert service.posts == 1


async def test_the_pause_after_a_429_is_the_time_that_the_service_names():
    events = []
    service = Service(before=[on("submit", reply(429, {"error": "slow"}, {"retry-after": "7"}))])
    await submit(service, events.append)
    assert anyio.current_time() == pytest.approx(7.0)
    assert [type(event) for event in events] == [Throttled, Submitted]


async def test_the_pause_after_a_429_is_never_longer_than_the_setting_allows():
    service = Service(before=[on("submit", reply(429, b"", {"retry-after": "86400"}))])
    await submit(service, retry=RetryPolicy(max_retry_after=60))
    assert anyio.current_time() == pytest.approx(60.0)


async def test_a_429_without_a_time_pauses_longer_each_time_and_is_raised_in_the_end():
    events = []
    service = Service(before=[always("submit", reply(429, b""))])
    with pytest.raises(RateLimitError):
        await submit(service, events.append, retry=RetryPolicy(max_retries=3))
    delays = [event.delay for event in events]
    assert len(delays) == 3
    assert delays[0] < delays[-1]
    assert min(delays) >= 1.0


async def test_one_429_pauses_all_submits_of_the_client():
    service = Service(before=[on("submit", reply(429, b"", {"retry-after": "30"}))])
    session = session_for(service)
    sent_at = []

    async def one():
        await session.submit(REQUEST, Notifier(lambda _: sent_at.append(anyio.current_time())))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await anyio.sleep(1)
        tasks.start_soon(one)
    assert min(sent_at[1:]) >= 30


async def test_concurrent_submits_are_limited():
    service = Service(latency=1.0)
    session = session_for(service, limits=Limits(max_concurrent_submits=3))
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(session.submit, REQUEST, Notifier())
    assert service.most_concurrent["submit"] == 3
    assert anyio.current_time() == pytest.approx(4.0)


async def test_submits_per_hour_are_limited():
    service = Service()
    session = session_for(service, limits=Limits(max_concurrent_submits=4, max_submits_per_hour=60))
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(session.submit, REQUEST, Notifier())
    assert anyio.current_time() == pytest.approx(6 * 60)


async def cancel_by_timeout(call):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await call


async def cancel_by_task(call, *, times=1):
    task = asyncio.ensure_future(call)
    for _ in range(times):
        await anyio.sleep(1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_by_scope(call):
    with anyio.move_on_after(1) as scope:
        await call
    assert scope.cancelled_caught


async def cancel_by_scope_and_task(call):
    async def under_scope():
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(1, scope.cancel)
            await call

    await cancel_by_task(under_scope(), times=2)


class MemoryJournal(WriteAheadJournal):
    """A journal in memory that writes each intent by itself."""

    def __init__(self):
        super().__init__(MemoryStore(), run_sync=run_at_once)


async def run_at_once(function, changes):
    function(changes)


class BrokenJournal(MemoryJournal):
    """A journal that cannot record an accepted job."""

    def record_job(self, number, *, request_id, record):
        raise JournalError("the disk is gone")


async def submit_with(journal, session, notify=None):
    """Submit one request with a journal, as an item of a batch."""
    emit = session.api.emitter(Notifier(notify))
    budget = Budget({"kling-v2-6": Decimal("0.35")})
    ledger = Ledger(emit=emit, budget=budget, journal=journal)
    identity = Identity(key=None, fingerprint="f", occurrence=0)
    item = BatchItem(request=REQUEST, identity=identity, price=Decimal("0.35"))
    try:
        return await session.submitter.submit(payload_of(REQUEST), item, ledger=ledger)
    finally:
        assert budget.spent == Decimal("0.35")


def test_the_page_on_money_lists_the_steps_of_a_submit_in_their_order():
    page = (Path(__file__).parents[2] / "docs/explanation/money.md").read_text(encoding="utf-8")
    steps = [name.rpartition(".")[2] for name in re.findall(r"(?m)^\d+\. \*\*`([\w.]+)`\*\*", page)]
    source = inspect.getsource(Submitter._send).partition("while True")[2]
    places = [re.search(rf"(?<!\w){step}\b", source).start() for step in steps]
    assert len(steps) == 11
    assert places == sorted(places)


async def slow_session(latency, *after):
    """A session that knows the time, so that it first sends its POST."""
    service = Service(ahead=0.0)
    session = session_for(service)
    await session.api.fetch(LIST)
    service.latency, service.after[:] = latency, after
    return session


@pytest.mark.parametrize(
    "cancel",
    [
        cancel_by_timeout,
        cancel_by_task,
        partial(cancel_by_task, times=2),
        cancel_by_scope,
        cancel_by_scope_and_task,
    ],
    ids=["timeout", "task", "task twice", "scope", "scope and task"],
)
async def test_a_submit_that_is_cancelled_during_its_post_records_the_id(cancel, caplog):
    caplog.set_level(logging.INFO, "kling_async")
    events, journal = [], MemoryJournal()
    await cancel(submit_with(journal, await slow_session(5.0), events.append))
    assert anyio.current_time() == pytest.approx(5.0)
    assert journal.has_job("job-0")
    assert [event.request_id for event in events] == ["job-0", "job-0"]
    assert [type(event) for event in events] == [Spent, Submitted]
    assert "job-0" in caplog.text


@pytest.mark.parametrize("in_a_task", [False, True], ids=["main task", "task of the main task"])
def test_an_interrupted_program_records_the_id_before_its_loop_closes(in_a_task, caplog, interruptible):
    caplog.set_level(logging.INFO, "kling_async")
    journal = MemoryJournal()

    async def main():
        asyncio.get_running_loop().call_later(1.0, signal.raise_signal, signal.SIGINT)
        call = submit_with(journal, await slow_session(5.0))
        await (asyncio.create_task(call) if in_a_task else call)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert journal.has_job("job-0")
    assert "job-0" in caplog.text


def test_a_post_that_the_end_of_the_loop_cancels_is_reported_as_ambiguous(caplog):
    """`asyncio.run` cancels the tasks that the program left behind, and no shield holds against that."""
    events, journal = [], MemoryJournal()

    async def main():
        task = asyncio.create_task(submit_with(journal, await slow_session(5.0), events.append))
        await anyio.sleep(1)
        assert not task.done()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert [type(event) for event in events] == [Spent, SubmitLost]
    assert [entry.state for entry in journal.entries()] == [EntryState.INTENDED]
    assert "may have accepted the request (kling-v2-6)" in caplog.text


async def test_an_error_of_the_journal_after_the_post_is_raised_and_the_id_is_logged(caplog):
    caplog.set_level(logging.INFO, "kling_async")
    journal = BrokenJournal()
    service = Service()
    with pytest.raises(JournalError, match="the disk is gone"):
        await submit_with(journal, session_for(service))
    assert service.posts == 1
    assert "job-0" in caplog.text


async def test_no_other_task_runs_between_the_answer_and_the_record_of_the_id():
    journal, is_recorded = MemoryJournal(), []

    def answer(request, service):
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: is_recorded.append(journal.has_job("job-0")))

    await submit_with(journal, await slow_session(1.0, answer))
    await anyio.sleep(1)
    assert is_recorded == [True]


async def test_no_other_task_runs_between_the_check_for_look_alikes_and_the_start_of_a_post():
    """One submit becomes lost in every step of the loop around the turn of another one."""
    were_blocked = set()

    async def scenario(steps):
        lost = on("submit", reply(500, b""))
        session = session_for(Service(latency=1.0, after=[lost]))
        look_alikes = session.reconciler._look_alikes

        class Posts(set):
            def add(self, post):
                assert not any(
                    could_match(post.payload, one.lost.payload) for one in look_alikes.reconciliations
                )
                super().add(post)

        look_alikes._posts = Posts()

        async def submit_later():
            await anyio.sleep(1.0)
            for _ in range(steps):
                await asyncio.sleep(0)
            began = anyio.current_time()
            await session.submit(REQUEST, Notifier())
            were_blocked.add(anyio.current_time() - began > 1.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.submit, REQUEST, Notifier())
            tasks.start_soon(submit_later)

    for steps in range(30):
        await scenario(steps)
    assert were_blocked == {False, True}


async def test_a_submit_that_is_cancelled_before_its_post_sends_nothing():
    service = Service(before=[on("submit", reply(429, b"", {"retry-after": "60"}))])
    with anyio.move_on_after(10):
        await submit(service)
    assert service.posts == 1
    assert service.jobs == {}


def test_a_post_awaits_its_answer_alone():
    """Whatever else it awaits could be cancelled between the answer and its record, and the id of a paid job be lost."""
    (post,) = ast.parse(textwrap.dedent(inspect.getsource(Submitter._post))).body
    awaited = [ast.unparse(node.value.func) for node in ast.walk(post) if isinstance(node, ast.Await)]
    assert awaited == ["self.api.send"]


def test_a_registered_post_awaits_its_reservation_and_its_intent_and_nothing_else_before_it_leaves():
    (send,) = ast.parse(textwrap.dedent(inspect.getsource(Submitter._send))).body
    source = ast.unparse(send)
    registered = source.partition("register_post(")[2].partition("run_to_end(")[0]
    assert re.findall(r"await ([\w.]+)", registered + "run_to_end") == [
        "ledger.reserve_post",
        "ledger.record_intent",
        "run_to_end",
    ]
