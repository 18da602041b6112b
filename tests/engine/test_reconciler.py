from __future__ import annotations

import json
import random
import threading
from contextlib import nullcontext

import anyio
import attrs
import pytest
from virtual_journal import journal_at
from virtual_service import KEY, Service, always, batch_of, on, prompts, reply, run, session_for
from virtual_store import MemoryStore

from kling_async import (
    AmbiguousSubmitError,
    APIConnectionError,
    APITimeoutError,
    Job,
    JobStatus,
    JournalError,
    Limits,
    PollingPolicy,
    ResultState,
    VideoRequest,
)
from kling_async._engine import list_pages
from kling_async._engine.submit import list_search
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.sole_process import SoleProcess
from kling_async._wire.payloads import payload_of
from kling_async.emulator import JobScript
from kling_async.events import Finished, Notifier, SubmitLost, SubmitReconciled, Submitted

LOST = APIConnectionError("the connection was lost")
OOPS = reply(500, {"error": "Backend error (400). Please try again."})
REQUEST = VideoRequest("an eagle", model="kling-v2-6", duration=10, sound=True)


def lose_answers(probability, *, seed=0, accepted=True):
    """Drops the answers of some submits, or the submits themselves."""
    rng = random.Random(seed)  # noqa: S311

    def script(request, service):
        return LOST if service.kind(request) == "submit" and rng.random() < probability else None

    return {"after": [script]} if accepted else {"before": [script]}


def owners(results):
    ids = [result.job.request_id for result in results if result.job]
    assert len(set(ids)) == len(ids), "two items have one job"
    return ids


@pytest.mark.parametrize("lost", [LOST, OOPS, APITimeoutError("no answer"), reply(200, b"{half")])
async def test_the_job_of_a_lost_submit_is_found_in_the_list(lost):
    events = []
    service = Service(after=[on("submit", lost)])
    job = await session_for(service).submit(REQUEST, Notifier(events.append))
    assert job.request_id == "job-0"
    assert service.posts == 1
    assert [type(event) for event in events] == [SubmitLost, SubmitReconciled]


@pytest.mark.parametrize("wait_timeout", [3600.0, None])
async def test_a_list_that_is_too_long_to_be_searched_is_read_once(monkeypatch, wait_timeout):
    monkeypatch.setattr(list_pages, "MAX_PAGES", 3)
    service = Service(order="random", run_time=5.0, after=[on("submit", LOST)])
    for number in range(500):
        service.accept({"prompt": f"earlier {number}"})
    polling = PollingPolicy(wait_timeout=wait_timeout)
    with anyio.fail_after(600):
        [result] = await run(service, ["an eagle over a canyon"], polling=polling)
    assert result.state is ResultState.AMBIGUOUS
    assert "too many to search for one job" in str(result.error)
    assert service.calls["list"] < 20


async def test_many_rows_are_compared_while_other_tasks_run():
    has_turn = threading.Event()

    async def take_turn():
        has_turn.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_turn)
        assert await list_search._decide_on_rows(range(1001), lambda: has_turn.wait(60))
    assert await list_search._decide_on_rows(range(1000), threading.get_ident) == threading.get_ident()


@pytest.mark.parametrize("rows_on_loop", [0, 1000])
async def test_the_job_is_found_among_few_rows_and_among_many(monkeypatch, rows_on_loop):
    monkeypatch.setattr(list_search, "_MAX_ROWS_ON_LOOP", rows_on_loop)
    service = Service(after=[on("submit", LOST)])
    assert (await session_for(service).submit(REQUEST, Notifier())).request_id == "job-0"
    assert service.posts == 1


async def test_the_other_items_of_a_batch_are_submitted_during_a_reconciliation():
    events = []
    service = Service(after=[on("submit", LOST)])
    results = await run(service, prompts(30), at_once=10, notify=events.append)
    assert all(result.ok for result in results)
    assert service.posts == len(service.jobs) == 30
    types = [type(event) for event in events if event.index == 0]
    assert types[:2] == [SubmitLost, SubmitReconciled]
    assert types[-1] is Finished
    assert Submitted not in types


async def test_a_job_that_shows_late_is_found_late():
    service = Service(after=[on("submit", LOST)], shows=lambda _: anyio.current_time() > 20)
    job = await session_for(service).submit(REQUEST, Notifier())
    assert job.request_id == "job-0"
    assert 20 <= anyio.current_time() <= 31


async def test_a_post_that_never_arrived_is_ambiguous_after_half_a_minute():
    service = Service(before=[on("submit", LOST)])
    with pytest.raises(AmbiguousSubmitError, match=r"list does not show it.*not sent again") as caught:
        await session_for(service).submit(REQUEST, Notifier())
    assert "on_ambiguous" not in str(caught.value)  # `submit` has no such option
    assert not caught.value.absent
    assert service.posts == 1
    assert service.calls["list"] == 6
    assert anyio.current_time() == pytest.approx(30, abs=1)


async def test_no_job_is_matched_if_a_strangers_job_of_the_same_request_is_listed_too():
    service = Service(after=[on("submit", None, LOST)])
    await session_for(service).submit(REQUEST, Notifier())
    with pytest.raises(AmbiguousSubmitError):
        await session_for(service).submit(REQUEST, Notifier())
    assert service.posts == 2


def rows_of_others(organization_id, *, number=1):
    """Has others submit the same request just before each lost one."""

    def script(request, service):
        if service.kind(request) == "submit":
            for _ in range(number):
                service.accept(payload_of(REQUEST), organization_id=organization_id)

    return script


async def test_the_job_of_another_organization_is_not_matched_once_the_own_one_is_known():
    service = Service(before=[rows_of_others("org of others"), on("submit", None, LOST)])
    session = session_for(service)
    await session.submit(VideoRequest("first"), Notifier())
    with pytest.raises(
        AmbiguousSubmitError, match="only job in the list that could match is of another user"
    ):
        await session.submit(REQUEST, Notifier())
    assert service.posts == 2


async def test_the_own_job_is_found_among_equal_jobs_of_another_organization():
    service = Service(before=[rows_of_others("org of others", number=3)])
    session = session_for(service)
    await session.submit(VideoRequest("first"), Notifier())
    service.after = [on("submit", LOST)]
    job = await session.submit(REQUEST, Notifier())
    assert service.jobs[job.request_id].organization_id == "org"


def short_answers(request, service):
    """Answers each POST with the id and the status alone."""
    if service.kind(request) != "submit":
        return None
    job = service.queue.jobs[-1]
    return reply(200, {"request_id": job.request_id, "status": "queued"})


async def test_the_row_of_an_answered_job_names_the_own_organization_where_the_answer_does_not():
    service = Service(before=[rows_of_others("org of others")], after=[short_answers])
    session = session_for(service)
    await session.submit(VideoRequest("first"), Notifier())
    service.after = [on("submit", LOST)]
    job = await session.submit(REQUEST, Notifier())
    assert service.jobs[job.request_id].organization_id == "org"
    assert session.shared.own_user.organizations == {"org"}


async def test_equal_jobs_of_several_organizations_are_ambiguous_while_the_own_one_is_unknown():
    service = Service(before=[rows_of_others("org of others")], after=[on("submit", LOST)])
    session = session_for(service)
    with pytest.raises(AmbiguousSubmitError, match="the list shows jobs of several users that could match"):
        await session.submit(REQUEST, Notifier())
    assert service.posts == 1


REFUSED = reply(404, {"error": "Request not found"})


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_job_that_the_status_call_does_not_show_is_not_matched_while_the_own_user_is_unknown(status):
    refusal = reply(status, {"error": "Request not found"})
    service = Service(before=[always("status", refusal)], after=[on("submit", LOST)])
    with pytest.raises(AmbiguousSubmitError, match="the list shows a job that could match"):
        await session_for(service).submit(REQUEST, Notifier())
    assert service.posts == 1
    assert service.calls["status"] == service.calls["list"] == 6


async def test_a_job_that_the_status_call_shows_late_is_matched_then():
    service = Service(before=[on("status", REFUSED, OOPS, LOST)], after=[on("submit", LOST)])
    job = await session_for(service).submit(REQUEST, Notifier())
    assert job.request_id == "job-0"
    assert service.calls["status"] == 4


async def test_an_answer_that_names_the_own_organization_during_the_status_call_prevents_a_match():
    def learn(request, service):
        if service.kind(request) == "status":
            session.shared.own_user.learn(
                Job(request_id="own", model="m", status=JobStatus.QUEUED, organization_id="org")
            )

    service = Service(before=[rows_of_others("org of others"), on("submit", LOST), learn])
    session = session_for(service)
    with pytest.raises(AmbiguousSubmitError, match="is of another user"):
        await session.submit(REQUEST, Notifier())


async def test_no_status_call_is_made_for_a_match_once_the_own_user_is_known():
    service = Service(after=[on("submit", None, LOST)])
    session = session_for(service)
    await session.submit(VideoRequest("first"), Notifier())
    await session.submit(REQUEST, Notifier())
    assert service.calls["status"] == 0


@pytest.mark.parametrize(
    "ids", [{"user_id": 2}, {"user_id": ["me"]}, {"org_id": {"id": "org"}}, {"org_id": 0}]
)
async def test_a_row_that_names_another_user_by_a_value_of_another_type_matches_no_submit(ids):
    def change(request, service):
        if service.kind(request) != "list":
            return None
        rows = json.loads(service.answer("list", request).body)["requests"]
        return reply(200, {"requests": [{**row, **ids} for row in rows if row["request_id"] == "job-1"]})

    service = Service(after=[on("submit", None, LOST), change])
    session = session_for(service)
    await session.submit(VideoRequest("first"), Notifier())
    with pytest.raises(AmbiguousSubmitError, match="is of another user"):
        await session.submit(REQUEST, Notifier())


@pytest.mark.parametrize(
    "spelled",
    [
        "550E8400-E29B-41D4-A716-446655440000",
        "550e8400e29b41d4a716446655440000",
        "{550e8400-e29b-41d4-a716-446655440000}",
        " 550e8400-e29b-41d4-a716-446655440000 ",
    ],
)
async def test_two_spellings_of_one_uuid_are_one_job(spelled):
    uuid = "550e8400-e29b-41d4-a716-446655440000"
    first = reply(200, {"request_id": uuid, "status": "queued"})
    again = reply(200, {"request_id": spelled, "status": "queued"})
    service = Service(before=[on("submit", first, again)])
    session = session_for(service)
    assert (await session.submit(REQUEST, Notifier())).request_id == uuid
    with pytest.raises(AmbiguousSubmitError, match="another submit's job"):
        await session.submit(VideoRequest("a"), Notifier())


async def test_a_job_of_the_journal_has_its_owner_however_the_list_spells_it():
    uuid = "550e8400-e29b-41d4-a716-446655440000"
    in_upper_case = reply(200, {"request_id": uuid.upper(), "status": "queued"})
    service = Service(script=lambda _: JobScript(request_id=uuid), after=[on("submit", in_upper_case)])
    journal = WriteAheadJournal(MemoryStore())
    request = VideoRequest("an eagle", key="one")
    [first] = await run(service, [request], journal=journal)
    assert first.job.request_id == uuid.upper()
    service.before = [on("submit", LOST)]
    [second] = await run(service, [attrs.evolve(request, key="two")], journal=journal)
    assert second.state is ResultState.AMBIGUOUS


async def test_two_ids_that_differ_in_case_are_two_jobs():
    names = iter(["job-a", "JOB-A"])
    results = await run(Service(script=lambda _: JobScript(request_id=next(names))), ["a", "b"])
    assert sorted(result.job.request_id for result in results) == ["JOB-A", "job-a"]
    assert all(result.ok for result in results)


async def test_a_job_with_an_owner_in_this_client_is_not_matched():
    service = Service(after=[on("submit", None, LOST)])
    session = session_for(service)
    first = await session.submit(REQUEST, Notifier())
    second = await session.submit(REQUEST, Notifier())
    assert (first.request_id, second.request_id) == ("job-0", "job-1")


async def test_the_job_of_a_prompt_with_the_key_in_it_is_found_in_the_list():
    service = Service(after=[on("submit", LOST)])
    job = await session_for(service).submit(VideoRequest(f"an eagle with {KEY}"), Notifier())
    assert (job.request_id, job.payload["prompt"]) == ("job-0", "an eagle with ***")


async def test_a_job_whose_prompt_differs_beside_the_key_is_not_matched():
    service = Service(before=[on("submit", LOST)])
    service.accept({"prompt": f"a crow with {KEY}"})
    with pytest.raises(AmbiguousSubmitError, match="the list does not show it"):
        await session_for(service).submit(VideoRequest(f"an eagle with {KEY}"), Notifier())


async def test_a_row_without_the_payload_is_not_matched():
    service = Service(script=lambda _: JobScript(payload_echo=False), after=[on("submit", LOST)])
    with pytest.raises(AmbiguousSubmitError):
        await session_for(service).submit(REQUEST, Notifier())


async def test_a_row_that_the_list_skips_in_a_later_scan_still_counts():
    service = Service(after=[on("submit", LOST)])
    service.shows = lambda job: job.request_id == "job-0" or anyio.current_time() < 3
    service.accept(payload_of(REQUEST))
    with pytest.raises(AmbiguousSubmitError, match="more than one"):
        await session_for(service).submit(REQUEST, Notifier())
    assert service.calls["list"] > 3


async def test_a_row_that_the_list_skips_in_a_later_reconciliation_still_counts():
    service = Service(after=[on("submit", LOST)])
    session, stranger = session_for(service), payload_of(REQUEST)
    service.accept(stranger)
    with pytest.raises(AmbiguousSubmitError, match="more than one"):
        await session.submit(REQUEST, Notifier())
    service.shows = lambda job: job.request_id != "job-0"
    service.before.append(on("submit", LOST))
    service.accept(stranger)
    with pytest.raises(AmbiguousSubmitError, match="more than one"):
        await session.submit(REQUEST, Notifier())
    assert service.posts == 2


async def test_a_row_of_a_scan_that_failed_later_counts():
    down = reply(500, {"error": "Backend error"})
    service = Service(rows=1, before=[on("list", None, down)], after=[on("submit", LOST)])
    service.shows = lambda job: (job.request_id != "job-2") is (service.calls["list"] == 1)
    for prompt in ("filler", REQUEST.prompt):
        service.accept(payload_of(REQUEST) | {"prompt": prompt})
    with pytest.raises(AmbiguousSubmitError, match="more than one"):
        await session_for(service).submit(REQUEST, Notifier())


async def test_only_the_latest_rows_are_remembered_after_a_reconciliation(monkeypatch):
    monkeypatch.setattr(list_search, "_MAX_ROWS", 2)
    service = Service(order="oldest")
    session = session_for(service)
    for number in range(4):
        await session.submit(VideoRequest(f"filler {number}"), Notifier())
    service.after.append(on("submit", LOST))
    await session.submit(REQUEST, Notifier())
    assert list(session.reconciler._list_search._rows[REQUEST.model]) == ["job-3", "job-4"]


async def test_without_a_journal_the_job_of_an_unresolved_submit_is_not_matched_to_a_later_one():
    service = Service(before=[on("list", *[reply(403, {"error": "no"})])], after=[on("submit", LOST)])
    session = session_for(service)
    with pytest.raises(AmbiguousSubmitError, match="list cannot be read"):
        await session.submit(VideoRequest("an eagle", duration=10), Notifier())
    service.before.append(on("submit", LOST))
    with pytest.raises(AmbiguousSubmitError, match="may be that of another submit"):
        await session.submit(VideoRequest("an eagle"), Notifier())
    assert len(service.jobs) == 1


@pytest.mark.parametrize("second", [None, "b.db"], ids=["without a journal", "another journal"])
@pytest.mark.parametrize("has_arrived", [False, True])
async def test_the_job_of_an_unresolved_submit_of_one_journal_is_not_matched_to_a_submit_of_another(
    tmp_path, second, has_arrived
):
    service = Service(before=[always("list", reply(403, {"error": "no"}))], after=[on("submit", LOST)])
    session = session_for(service)
    longer = VideoRequest("an eagle", duration=10)
    with journal_at(tmp_path / "a.db") as journal:
        [first] = await run(service, [longer], session=session, journal=journal)
    service.before[:] = [] if has_arrived else [on("submit", LOST)]
    service.after[:] = [on("submit", LOST)]
    with nullcontext() if second is None else journal_at(tmp_path / second) as journal:
        [later] = await run(service, ["an eagle"], session=session, journal=journal)

    assert first.state is ResultState.AMBIGUOUS
    assert later.job is None if not has_arrived else later.job.request_id == "job-1"
    with journal_at(tmp_path / "a.db") as journal:
        [again] = await run(service, [longer], session=session, journal=journal)
    assert (again.ok, again.job.request_id, service.posts) == (True, "job-0", 2)


async def test_equal_submits_of_two_journals_are_matched_by_count(tmp_path):
    service = Service(before=[always("list", reply(403, {"error": "no"}))], after=[on("submit", LOST, LOST)])
    session = session_for(service)
    with journal_at(tmp_path / "a.db") as journal:
        await run(service, ["an eagle"], session=session, journal=journal)
    service.before.clear()
    with journal_at(tmp_path / "b.db") as journal:
        [later] = await run(service, ["an eagle"], session=session, journal=journal)
    with journal_at(tmp_path / "a.db") as journal:
        [again] = await run(service, ["an eagle"], session=session, journal=journal)

    assert {later.job.request_id, again.job.request_id} == {"job-0", "job-1"}
    assert service.posts == 2


async def test_an_unresolved_submit_of_a_journal_that_is_resolved_later_counts_no_more(tmp_path):
    refused = always("list", reply(403, {"error": "no"}))
    service = Service(before=[refused], after=[on("submit", LOST)])
    session = session_for(service)
    with journal_at(tmp_path / "a.db") as journal:
        await run(service, ["an eagle"], session=session, journal=journal)
        service.before[:] = []
        [again] = await run(service, ["an eagle"], session=session, journal=journal)
    service.accept({"prompt": "an eagle"})
    service.after[:] = [on("submit", LOST)]

    with pytest.raises(AmbiguousSubmitError, match="more than one job that could match"):
        await session.submit(VideoRequest("an eagle"), Notifier())

    assert again.ok


async def test_a_reconciliation_that_is_cancelled_during_a_scan_takes_no_job():
    service = Service(latency=1.0, after=[on("submit", LOST, LOST)])
    session = session_for(service)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.submit, VideoRequest("one that waits"), Notifier())
        await anyio.sleep(0.1)
        with anyio.move_on_after(2.5):
            await session.submit(REQUEST, Notifier())
    prompts = {job.payload["prompt"]: job.request_id for job in service.jobs.values()}
    assert session.shared.job_owners.has_owner(prompts["one that waits"], {})
    assert not session.shared.job_owners.has_owner(prompts[REQUEST.prompt], {})


async def test_an_old_job_of_the_same_request_is_not_matched():
    service = Service(after=[on("submit", None)], before=[on("submit", None, LOST)])
    await session_for(service).submit(REQUEST, Notifier())
    await anyio.sleep(100)
    with pytest.raises(AmbiguousSubmitError):
        await session_for(service).submit(REQUEST, Notifier())


@pytest.mark.unmeasured
@pytest.mark.parametrize("order", ["newest", "oldest", "random"])
async def test_the_list_can_have_any_order_and_length(order):
    service = Service(run_time=1.0, order=order)
    session = session_for(service, limits=Limits(max_polls_per_second=1e6, max_concurrent_submits=64))
    for number in range(730):
        await session.submit(VideoRequest(f"filler {number}"), Notifier())
        await anyio.sleep(1)
    service.after.append(on("submit", LOST))
    before = service.calls["list"]
    job = await session.submit(REQUEST, Notifier())
    assert job.payload["prompt"] == "an eagle"
    pages = service.calls["list"] - before
    assert pages <= (8 if order == "random" else 4)


@pytest.mark.parametrize("envelope", [{"has_total": False}, {"has_more": False}, {"rows": 7}])
async def test_the_list_can_leave_out_its_total_and_has_more(envelope):
    service = Service(run_time=1.0, after=[], **envelope)
    session = session_for(service)
    for number in range(60):
        await session.submit(VideoRequest(f"filler {number}"), Notifier())
    service.after.append(on("submit", LOST))
    job = await session.submit(REQUEST, Notifier())
    assert job.payload["prompt"] == "an eagle"


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("envelope", [{}, {"has_total": False}])
async def test_rows_of_the_same_second_show_no_order(order, envelope):
    service = Service(run_time=1.0, rows=3, order=order, **envelope)
    session = session_for(service)
    for number in range(6):
        await session.submit(VideoRequest(f"filler {number}"), Notifier())
    await anyio.sleep(400)
    service.after.append(on("submit", LOST))
    job = await session.submit(REQUEST, Notifier())
    assert job.payload["prompt"] == "an eagle"


async def test_an_outage_of_the_list_does_not_end_a_reconciliation():
    down = [reply(503, b"<html>down</html>")] * 12
    service = Service(after=[on("submit", LOST)], before=[on("list", *down)])
    job = await session_for(service).submit(REQUEST, Notifier())
    assert job.request_id == "job-0"
    assert anyio.current_time() > 60


async def test_an_outage_of_the_list_ends_a_reconciliation_at_the_wait_timeout():
    service = Service(after=[on("submit", LOST)], before=[always("list", reply(503, b"down"))])
    with pytest.raises(AmbiguousSubmitError, match="list cannot be read"):
        await session_for(service, polling=PollingPolicy(wait_timeout=600)).submit(REQUEST, Notifier())
    assert 600 <= anyio.current_time() <= 700


@pytest.mark.parametrize("on_ambiguous", ["report", "resend_absent", "resend"])
async def test_a_journal_that_fails_during_a_reconciliation_leaves_the_submit_ambiguous(on_ambiguous):
    class FailingProcess(SoleProcess):
        """A process that cannot read its journal once the list was scanned for the last time."""

        async def find_jobs(self, request_ids):
            if service.now > 29:
                raise JournalError("The journal cannot be read.")
            return set()

    async def write_at_once(write, changes):
        write(changes)

    service = Service(before=[on("submit", LOST)])
    with WriteAheadJournal(MemoryStore(), run_sync=write_at_once) as journal:
        journal.sharing = FailingProcess(journal._writes, journal._entries)
        [result] = await run(service, ["x"], journal=journal, on_ambiguous=on_ambiguous)

        assert result.state is ResultState.AMBIGUOUS
        assert isinstance(result.error, AmbiguousSubmitError)
        assert "The journal cannot be read" in result.error.message
        assert service.posts == 1


async def test_a_list_that_is_refused_leaves_the_submit_ambiguous():
    service = Service(after=[on("submit", LOST)], before=[always("list", reply(403, {"error": "no"}))])
    with pytest.raises(AmbiguousSubmitError, match="list cannot be read"):
        await session_for(service).submit(REQUEST, Notifier())
    assert anyio.current_time() < 5


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(10))
async def test_lost_submits_of_equal_prompts_are_matched_by_count(seed):
    service = Service(run_time=40.0, latency=0.5, **lose_answers(0.2, seed=seed))
    results = await run(service, ["the same"] * 20, at_once=20)
    assert all(result.ok for result in results)
    assert service.posts == len(service.jobs) == len(owners(results)) == 20


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(10))
async def test_equal_prompts_of_which_some_never_arrived_are_accepted_once_or_ambiguous(seed):
    service = Service(run_time=40.0, latency=0.5, **lose_answers(0.2, seed=seed, accepted=False))
    results = await run(service, ["the same"] * 20, at_once=20)
    states = [result.state for result in results]
    assert service.posts == 20
    assert len(owners(results)) == len(service.jobs) == states.count(ResultState.SUCCEEDED)
    assert states.count(ResultState.AMBIGUOUS) == 20 - len(service.jobs)


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(10))
async def test_requests_that_differ_in_optional_fields_are_matched_to_their_own_jobs(seed):
    items = [VideoRequest("same"), VideoRequest("same", duration=10), VideoRequest("same", sound=True)] * 5
    service = Service(run_time=40.0, latency=0.5, **lose_answers(0.3, seed=seed))
    results = await run(service, items, at_once=15)
    assert service.posts == len(service.jobs) == 15
    for result in results:
        if result.ok:
            assert (result.job.payload.get("duration") == "10") == (result.request.duration == 10)
    owners(results)


async def test_an_ambiguous_submit_is_sent_again_once_if_the_caller_asks_for_that():
    service = Service(before=[on("submit", LOST)])
    [result] = await run(service, ["x"], on_ambiguous="resend")
    assert result.ok
    assert service.posts == 2
    service = Service(before=[always("submit", LOST)])
    [result] = await run(service, ["x"], on_ambiguous="resend")
    assert result.state is ResultState.AMBIGUOUS
    assert service.posts == 2


async def test_many_lost_submits_share_their_list_scans():
    service = Service(run_time=300.0, after=[always("submit", LOST)])
    results = await run(service, prompts(16), at_once=16, polling=PollingPolicy(use_lists="never"))
    assert all(result.ok for result in results)
    assert service.calls["list"] <= 3


async def test_a_cancelled_reconciliation_unblocks_other_submits():
    service = Service(latency=2.0, before=[on("submit", LOST)])
    session = session_for(service)
    with anyio.move_on_after(1):
        await session.submit(REQUEST, Notifier())
    with anyio.move_on_after(5):
        await session.submit(VideoRequest("an eagle"), Notifier())
    assert service.posts == 2
    job = await session.submit(REQUEST, Notifier())
    assert job.payload["prompt"] == "an eagle"


async def test_an_answer_with_the_job_of_another_submit_is_a_lost_submit():
    stale = reply(200, {"request_id": "job-0", "status": "queued"})
    service = Service(after=[on("submit", None, stale)])
    results = await run(service, ["first", "second"], at_once=1)
    assert [result.job.payload["prompt"] for result in results] == ["first", "second"]
    assert service.posts == len(owners(results)) == 2


@pytest.mark.parametrize("at", [0.5, 1.0, 1.5, 2.0, 2.5, 30.0])
async def test_whenever_a_lost_submit_is_cancelled_a_look_alike_can_leave_after_it(at):
    service = Service(latency=1.0, after=[on("submit", LOST)])
    session = session_for(service)
    with anyio.move_on_after(at):
        await session.submit(REQUEST, Notifier())
    with anyio.fail_after(60):
        await session.submit(REQUEST, Notifier())
    assert service.posts == 2


async def test_a_batch_that_is_left_with_a_lost_submit_holds_no_look_alike_back():
    service = Service(latency=1.0, after=[on("submit", LOST)])
    session = session_for(service)
    for seconds in (0.5, 1.0, 1.5):
        async with batch_of(service, [REQUEST], session=session):
            await anyio.sleep(seconds)
        assert session.reconciler._look_alikes.reconciliations == []
    with anyio.fail_after(60):
        await session.submit(REQUEST, Notifier())
