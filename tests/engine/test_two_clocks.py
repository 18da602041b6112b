"""The service's clock differs from the clock of this machine, by minutes."""

from __future__ import annotations

from email.utils import formatdate

import anyio
import attrs
import pytest
from virtual_journal import journal_at
from virtual_service import EPOCH, Service, always, on, reply, run, session_for

from kling_async import AmbiguousSubmitError, APIConnectionError, ResultState, VideoRequest
from kling_async._journal.entry import Identity, fingerprint
from kling_async._journal.open_journal import open_journal
from kling_async._wire.endpoints import LIST
from kling_async.events import Notifier

pytestmark = pytest.mark.unmeasured

LOST = APIConnectionError("the connection was lost")
OFFSETS = [-3600.0, -600.0, -61.0, 61.0, 600.0, 3600.0]


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("ahead", OFFSETS)
async def test_a_lost_submit_is_reconciled_though_the_clocks_differ(ahead, order):
    service = Service(ahead=ahead, order=order, rows=3, after=[on("submit", None, LOST)])
    session = session_for(service)
    await session.submit(VideoRequest("first"), Notifier())
    job = await session.submit(VideoRequest("an eagle"), Notifier())
    assert job.payload["prompt"] == "an eagle"
    assert service.posts == 2


@pytest.mark.parametrize("ahead", OFFSETS)
async def test_the_first_call_of_a_client_can_be_the_lost_submit(ahead):
    service = Service(ahead=ahead, rows=3, after=[on("submit", LOST)])
    for number in range(10):  # so that the list has more than one page
        service.accept({"prompt": f"filler {number}"})
    job = await session_for(service).submit(VideoRequest("an eagle"), Notifier())
    assert job.payload["prompt"] == "an eagle"


@pytest.mark.parametrize("ahead", OFFSETS)
async def test_a_lost_submit_of_an_earlier_process_is_reconciled_though_the_clocks_differ(tmp_path, ahead):
    service = Service(ahead=ahead, after=[on("submit", None, LOST)])
    refused = always("list", reply(403, {"error": "no"}))
    service.before.append(refused)
    with open_journal(tmp_path / "run.db") as journal:
        results = await run(service, ["first", "an eagle"], at_once=1, journal=journal)
    assert results[1].state is ResultState.AMBIGUOUS
    service.before.remove(refused)
    with open_journal(tmp_path / "run.db") as journal:
        results = await run(service, ["first", "an eagle"], journal=journal)
    assert all(result.ok for result in results)
    assert service.posts == 2


@pytest.mark.parametrize(
    "is_known", [False, True], ids=["the first answer shows the clock", "the clock is known"]
)
@pytest.mark.parametrize("has_service_time", [False, True])
@pytest.mark.parametrize("ahead", OFFSETS)
async def test_a_fresh_submit_of_an_earlier_process_is_not_taken_for_an_old_one_by_two_clocks(
    tmp_path, ahead, has_service_time, is_known
):
    service = Service(ahead=ahead, shows=lambda _: service.now > 20)
    service.accept({"prompt": "an eagle"})
    with journal_at(tmp_path / "run.db") as journal:
        journal.record_intent(
            Identity(None, fingerprint("kling-v2-6", {"prompt": "an eagle"}), 0),
            model="kling-v2-6",
            payload={"prompt": "an eagle"},
            at=EPOCH - 1.0 + (ahead if has_service_time else 0.0),
            has_service_time=has_service_time,
            timeout=60.0,
            cost_usd=None,
        )
    session = session_for(service)
    if is_known:
        await session.api.fetch(LIST)
    with journal_at(tmp_path / "run.db") as journal:
        results = await run(service, ["an eagle"], journal=journal, session=session, on_ambiguous="resend")
    assert service.posts == 0
    assert results[0].ok


async def test_each_first_intent_waits_for_the_one_question_for_the_time(tmp_path):
    async def films():
        for number in range(5):
            yield f"film {number}"
            await anyio.sleep(0.1)

    service = Service(ahead=600.0, latency=1.0)
    with open_journal(tmp_path / "run.db") as journal:
        await run(service, films(), journal=journal)
        entries = list(journal.entries())
    assert len(entries) == 5
    assert all(entry.has_service_time for entry in entries)
    assert len({entry.sent_at for entry in entries}) == 1  # as soon as it was answered


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_an_old_job_of_the_same_request_is_not_matched_because_the_clocks_differ(ahead):
    service = Service(ahead=ahead, before=[on("submit", LOST)])
    job = service.accept({"prompt": "an eagle"})
    service.queue.put(attrs.evolve(job, status_times=(-abs(ahead), *job.status_times[1:])))
    with pytest.raises(AmbiguousSubmitError, match=r"the list does not show it.*not sent again"):
        await session_for(service).submit(VideoRequest("an eagle"), Notifier())


async def test_the_message_says_that_the_clock_is_unknown_if_no_answer_has_a_date():
    service = Service(after=[on("submit", LOST)])
    session = session_for(service)
    session.api.clock.wall = lambda: EPOCH - 600.0
    with pytest.raises(AmbiguousSubmitError, match=r"by the clock of this machine.*no answer.*Date header"):
        await session.submit(VideoRequest("an eagle"), Notifier())


async def test_retry_after_with_a_date_is_by_the_service_clock():
    service = Service(ahead=600.0)
    session = session_for(service)
    await session.submit(VideoRequest("first"), Notifier())
    at = {"retry-after": formatdate(EPOCH + 600.0 + 30, usegmt=True)}
    service.before.append(on("submit", reply(429, {"error": "slow down"}, at)))
    await session.submit(VideoRequest("an eagle"), Notifier())
    assert 28 <= service.now <= 31


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_a_resumed_job_has_its_age_by_the_service_clock(tmp_path, ahead):
    service = Service(ahead=ahead, run_time=1000.0)
    with open_journal(tmp_path / "run.db") as journal:
        results = await run(service, ["an eagle"], journal=journal)
    assert results[0].ok
    assert service.lags()[0] < 30


class SlowLossService(Service):
    """A service that accepts the third submit, whose answer is given up 40 seconds later."""

    async def send(self, request):
        answer = await super().send(request)
        if self.kind(request) == "submit" and self.posts == 3:
            await anyio.sleep(40)
            raise LOST
        return answer


@pytest.mark.parametrize("step", [-300.0, 300.0])
@pytest.mark.parametrize("moment", [2.0, 30.0, 43.0, 50.0, 70.0, 85.0, 87.0, 100.0, 150.0, 200.0])
async def test_a_submit_in_flight_while_the_clock_of_the_machine_is_set_is_found_and_not_bought_again(
    moment, step
):
    service = SlowLossService(ahead=0.0, run_time=40.0, latency=1.0)
    session = session_for(service)
    by_the_service = session.api.clock.wall
    session.api.clock.wall = lambda: by_the_service() + (step if service.now > moment else 0.0)
    requests = [f"{number:02} videos" for number in range(20)]

    results = await run(service, requests, session=session, at_once=2, on_ambiguous="resend_absent")

    assert all(result.ok for result in results)
    assert service.posts == 20


@pytest.mark.parametrize("step", [-300.0, 300.0])
async def test_nothing_is_proven_absent_across_a_moment_in_which_the_clock_of_the_machine_was_set(step):
    service = Service(ahead=0.0, run_time=40.0, before=[on("submit", None, LOST)])
    session = session_for(service)
    by_the_service = session.api.clock.wall
    session.api.clock.wall = lambda: by_the_service() + (step if service.now > 60 else 0.0)
    requests = [f"{number:02} videos" for number in range(12)]

    results = await run(service, requests, session=session, at_once=2, on_ambiguous="resend_absent")

    assert [(result.index, result.error.absent) for result in results if not result.ok] == [(1, False)]
    assert service.posts == 12
