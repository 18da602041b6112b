"""Lost submits that provably never arrived, and `on_ambiguous="resend_absent"`."""

from __future__ import annotations

import json
import pickle

import anyio
import attrs
import pytest
from virtual_service import EPOCH, KEY, Service, always, batch_of, on, reply, run, session_for

from kling_async import AmbiguousSubmitError, APIConnectionError, ResultState, VideoRequest
from kling_async._engine.submit import reconciler
from kling_async._journal.entry import Identity, fingerprint
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.open_journal import open_journal
from kling_async._journal.sqlite.store import SqliteStore
from kling_async.events import Notifier
from kling_async.journal import EntryState, Journal

LOST = APIConnectionError("the connection was lost")
MODEL = "kling-v2-6"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


async def write_at_once(write, changes):
    """Commit without a thread: the virtual clock would jump while a thread works."""
    write(changes)


async def run_with(path, service, requests, **settings):
    with WriteAheadJournal(SqliteStore(path), run_sync=write_at_once) as journal:
        return {one.index: one for one in await run(service, requests, journal=journal, **settings)}


def intend(path, *prompts, at=EPOCH - 1000.0, timeout=60.0, has_service_time=True):
    """Leave the journal as a kill between the intent and the POST leaves it."""
    with open_journal(path) as journal:
        for prompt in prompts:
            identity = Identity(None, fingerprint(MODEL, {"prompt": prompt}), 0)
            journal.record_intent(
                identity,
                model=MODEL,
                payload={"prompt": prompt},
                at=at,
                has_service_time=has_service_time,
                timeout=timeout,
                cost_usd=None,
            )


def prompts_of(service):
    return [job.payload["prompt"] for job in service.jobs.values()]


async def test_a_submit_that_a_kill_prevented_is_sent_again_once_the_list_proves_it(path):
    intend(path, "a cat")
    service = Service(ahead=0.0)
    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
    assert all(result.ok for result in results.values())
    assert prompts_of(service) == ["a dog", "a cat"]


async def test_the_default_reports_that_a_submit_is_absent_and_how_to_send_it_again(path):
    intend(path, "a cat")
    service = Service(ahead=0.0)
    results = await run_with(path, service, ["a cat", "a dog"])
    error = results[0].error
    assert results[0].state is ResultState.AMBIGUOUS
    assert isinstance(error, AmbiguousSubmitError)
    assert error.absent
    assert "absent" in error.message
    assert str(error).endswith("Say on_ambiguous='resend_absent' to send it again.")
    assert pickle.loads(pickle.dumps(error)).absent  # noqa: S301
    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
    assert results[0].ok
    assert service.posts == 2


@pytest.mark.parametrize("ahead", [-300.0, 0.0, 300.0])
async def test_a_submit_by_the_clock_of_an_earlier_process_alone_is_not_proven_absent(path, ahead):
    intend(path, "a cat", at=EPOCH - 1000.0 + ahead, has_service_time=False)
    service = Service(ahead=0.0)
    job = service.accept({"prompt": "a cat"})
    service.queue.put(attrs.evolve(job, status_times=(-999.0, *job.status_times[1:])))

    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")

    assert prompts_of(service) == ["a cat", "a dog"]
    assert results[0].ok is (ahead == 0.0)
    assert ahead == 0.0 or not results[0].error.absent


async def test_the_time_of_the_first_intent_is_by_the_service_clock(path):
    service = Service(ahead=300.0)
    await run_with(path, service, ["a cat"])
    (entry,) = Journal(path).entries()
    assert entry.has_service_time
    assert entry.sent_at == pytest.approx(EPOCH + 300.0, abs=2.0)


async def test_entries_of_a_journal_are_sent_again_in_the_same_way(path):
    intend(path, "a cat", "a dog")
    service = Service(ahead=0.0)
    with open_journal(path) as journal:
        journal.record_not_accepted(2, error="left early")
    entries = list(Journal(path).entries())
    assert [entry.state for entry in entries] == [EntryState.INTENDED, EntryState.NOT_SUBMITTED]
    results = await run_with(path, service, entries, on_ambiguous="resend_absent")
    assert all(result.ok for result in results.values())
    assert service.posts == 2


async def test_without_a_later_job_of_ours_nothing_is_sent_again(path):
    intend(path, "a cat")
    service = Service(ahead=0.0)
    service.accept({"prompt": "a stranger's"})
    results = await run_with(path, service, ["a cat"], on_ambiguous="resend_absent")
    assert results[0].state is ResultState.AMBIGUOUS
    assert not results[0].error.absent
    assert "'resend_absent' sends it again once the list proves that it is absent" in str(results[0].error)
    assert service.posts == 0


async def test_the_proof_waits_until_the_answer_was_given_up_by_the_process_that_sent_the_submit(path):
    intend(path, "a cat", at=EPOCH - 100.0, timeout=300.0)
    service = Service(ahead=0.0)

    async def accept_late():
        await anyio.sleep(150)
        service.accept({"prompt": "a cat"})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept_late)
        session = session_for(service, timeout=10.0)
        results = await run_with(
            path, service, ["a cat", "a dog"], session=session, on_ambiguous="resend_absent"
        )

    assert all(result.ok for result in results.values())
    assert prompts_of(service) == ["a dog", "a cat"]
    assert service.posts == 1


@pytest.mark.parametrize("recorded", [10.0, None], ids=["known", "unknown"])
async def test_a_job_that_was_made_after_the_sender_gave_up_is_a_strangers(path, recorded):
    intend(path, "a cat", at=EPOCH - 100.0, timeout=recorded)
    service = Service(ahead=0.0)
    job = service.accept({"prompt": "a cat"})
    later = (-20.0, *job.status_times[1:])  # 80 seconds after the submit
    service.queue.put(attrs.evolve(job, status_times=later))

    results = await run_with(path, service, ["a cat"], session=session_for(service, timeout=300.0))

    expected = ResultState.AMBIGUOUS if recorded is not None else ResultState.SUCCEEDED
    assert (results[0].state, service.posts) == (expected, 0)


async def test_the_timeout_of_the_client_that_sends_is_in_the_journal(path):
    service = Service(ahead=0.0)
    await run_with(path, service, ["a cat"], session=session_for(service, timeout=45.0))
    (entry,) = Journal(path).entries()
    assert entry.timeout == 45.0


@pytest.mark.parametrize(
    "payload", [{"prompt": "a cat "}, {}], ids=["in another spelling", "without an echo"]
)
async def test_a_job_that_may_be_the_lost_one_prevents_the_proof(path, payload):
    intend(path, "a cat")
    service = Service(ahead=0.0)
    job = service.accept({"prompt": "a cat"})
    service.queue.put(attrs.evolve(job, payload=payload, status_times=(-999.0, *job.status_times[1:])))
    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
    assert results[0].state is ResultState.AMBIGUOUS
    assert (results[1].ok, service.posts) == (True, 1)


@pytest.mark.parametrize("prompt", [f"a cat with {KEY}", f'a "{KEY}" and {KEY * 2} é'])
async def test_a_job_whose_prompt_has_the_key_in_it_is_found_and_not_bought_again(path, prompt):
    intend(path, prompt)
    service = Service(ahead=0.0)
    job = service.accept({"prompt": prompt})
    service.queue.put(attrs.evolve(job, status_times=(-999.0, *job.status_times[1:])))
    results = await run_with(path, service, [prompt, "a dog"], on_ambiguous="resend_absent")
    assert results[0].ok
    assert prompts_of(service) == [prompt, "a dog"]


@pytest.mark.parametrize("key", ["key\\of-the-tests", "sk/of-the-tests", "key&of<tests>", 'key"of-the-tests'])
async def test_the_job_is_found_however_json_writes_the_key(path, monkeypatch, key):
    def escape_more(request, service):
        if service.kind(request) != "list":
            return None
        text = json.dumps(service.call("list", request)).replace("/", "\\/")
        for letter in "&<>":
            text = text.replace(letter, f"\\u{ord(letter):04x}")
        return reply(200, text.encode())

    monkeypatch.setattr("virtual_service.KEY", key)
    prompt = f"a cat with {key}"
    intend(path, prompt)
    service = Service(ahead=0.0, before=[escape_more])
    job = service.accept({"prompt": prompt})
    service.queue.put(attrs.evolve(job, status_times=(-999.0, *job.status_times[1:])))
    results = await run_with(path, service, [prompt, "a dog"], on_ambiguous="resend_absent")
    assert results[0].ok
    assert prompts_of(service) == [prompt, "a dog"]


async def test_a_list_without_dates_or_without_its_end_proves_nothing(path):
    intend(path, "a cat")
    for service in (Service(), Service(ahead=0.0, rows=1, has_total=False)):
        results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
        assert results[0].state is ResultState.AMBIGUOUS
        assert service.posts <= 1


async def test_a_long_list_is_read_to_its_end(path):
    intend(path, "a cat")
    service = Service(ahead=0.0, rows=3)
    for number in range(10):
        service.accept({"prompt": f"a stranger's {number}"})
    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
    assert results[0].ok


async def test_the_default_reads_some_pages_and_the_option_reads_all(path, monkeypatch):
    monkeypatch.setattr(reconciler, "_FEW_PAGES", 2)
    intend(path, "a cat")
    service = Service(ahead=0.0, rows=3)
    for number in range(10):
        service.accept({"prompt": f"a stranger's {number}"})
    results = await run_with(path, service, ["a cat", "a dog"])
    assert not results[0].error.absent
    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
    assert results[0].ok


async def test_a_running_batch_waits_for_the_proof_and_sends_again(path):
    service = Service(ahead=600.0, before=[on("submit", LOST)], run_time=100.0)
    requests = ["a cat", *(f"filler {number}" for number in range(6))]
    results = await run_with(path, service, requests, at_once=2, on_ambiguous="resend_absent")
    assert all(result.ok for result in results.values())
    assert len(service.jobs) == 7
    assert service.posts == 8


async def test_a_job_that_is_accepted_and_listed_late_is_found_and_not_bought_again(path):
    service = Service(ahead=0.0, after=[on("submit", LOST)], run_time=100.0)
    service.shows = lambda job: job.payload["prompt"] != "a cat" or service.now > 55
    requests = ["a cat", *(f"filler {number}" for number in range(6))]
    results = await run_with(path, service, requests, at_once=2, on_ambiguous="resend_absent")
    assert all(result.ok for result in results.values())
    assert service.posts == 7


async def test_a_submit_that_is_lost_again_is_not_sent_a_third_time(path):
    intend(path, "a cat")
    service = Service(ahead=0.0)
    service.before.append(lambda request, _: LOST if b"a cat" in (request.body or b"") else None)
    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
    assert results[0].state is ResultState.AMBIGUOUS
    assert service.posts == 2


async def test_many_absent_submits_do_not_stop_the_batch(path):
    lost = [f"a cat {number}" for number in range(30)]
    intend(path, *lost)
    service = Service(ahead=0.0)
    results = await run_with(path, service, [*lost, "a dog"], at_once=50, on_ambiguous="resend_absent")
    assert all(result.ok for result in results.values())
    assert service.posts == 31


async def test_an_outage_of_the_list_during_the_proof_leaves_the_submit_ambiguous(path):
    intend(path, "a cat")
    service = Service(ahead=0.0)
    service.before.append(
        lambda request, s: LOST_LIST if s.kind(request) == "list" and s.calls["list"] > 2 else None
    )
    results = await run_with(path, service, ["a cat", "a dog"], on_ambiguous="resend_absent")
    assert results[0].state is ResultState.AMBIGUOUS
    assert "cannot be read" in results[0].error.message


LOST_LIST = AmbiguousSubmitError("no list")


async def test_submit_advises_no_option_that_it_does_not_have():
    service = Service(ahead=0.0, before=[always("submit", LOST)])
    with pytest.raises(AmbiguousSubmitError) as caught:
        await session_for(service).submit(VideoRequest("a cat"), Notifier())
    assert "resend" not in str(caught.value)
    assert str(caught.value).endswith("before you submit it again.")


async def test_a_batch_without_a_journal_sends_again_what_it_saw_to_be_absent():
    service = Service(ahead=0.0, before=[on("submit", LOST)], run_time=100.0)
    requests = ["a cat", *(f"filler {number}" for number in range(6))]
    async with batch_of(service, requests, at_once=2, on_ambiguous="resend_absent") as results:
        assert all([result.ok async for result in results])
    assert service.posts == 8
