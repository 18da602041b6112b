from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import pytest
from virtual_service import EPOCH, Service, always, reply, session_for

from kling_async._engine.list_pages import read_since
from kling_async._policy.retry import is_transient
from kling_async.errors import APIResponseError, KlingError
from kling_async.events import Notifier

UNREADABLE = reply(200, {"requests": [{"id": 7}, None], "has_more": True})


async def read_list(service):
    return [job async for jobs in session_for(service).list_pages("m", 100, Notifier()) for job in jobs]


async def read_pages_since(service, *, since=0.0):
    session = session_for(service)
    pages = read_since(session.api, "m", since=since, polls=session.shared.poll_rate)
    return [job async for page in pages for job in page]


async def test_each_job_is_listed_once_however_it_is_spelled():
    uuid = "550e8400-e29b-41d4-a716-446655440000"
    rows = [{"request_id": id_, "status": "success"} for id_ in ("a", "A", uuid, uuid.upper(), "a")]
    listed = await read_list(Service(before=[always("list", reply(200, {"requests": rows}))]))
    assert [job.request_id.lower() for job in listed] == ["a", "a", uuid]


@pytest.mark.parametrize("read", [read_list, read_pages_since])
async def test_reading_ends_after_ten_pages_without_a_readable_row(read):
    service = Service(before=[always("list", UNREADABLE)])
    assert await read(service) == []
    assert service.calls["list"] == 10


async def test_reading_an_endless_list_ends_with_an_error():
    def endless(request, service):
        number = service.calls["list"]
        row = {"request_id": f"job-{number}", "status": "success", "created_at": 1_800_000_000 + number % 7}
        return reply(200, {"requests": [row], "has_more": True})

    service = Service(before=[endless])
    with pytest.raises(KlingError, match="1,000 pages") as caught:
        await read_pages_since(service)
    assert not is_transient(caught.value)


async def test_only_the_end_is_read_of_a_long_list_with_the_oldest_rows_first():
    def rows(request, service):
        query = parse_qs(urlsplit(request.url).query)
        offset = int(query["offset"][0])
        page = [
            {"request_id": f"job-{number}", "status": "success", "created_at": EPOCH + number}
            for number in range(offset, min(offset + 100, 5000))
        ]
        return reply(200, {"requests": page, "total": 5000, "has_more": offset + 100 < 5000})

    service = Service(before=[rows])
    found = await read_pages_since(service, since=EPOCH + 4650)
    assert {f"job-{number}" for number in range(4650, 5000)} <= {job.request_id for job in found}
    assert service.calls["list"] < 10


@pytest.mark.parametrize("total", [10**9, 10**12, 10**4000], ids=["most", "more", "4,000 digits"])
async def test_a_total_of_any_size_costs_few_calls(total):
    rows = [{"request_id": f"job-{n}", "status": "success", "created_at": EPOCH + n} for n in range(2)]
    service = Service(before=[always("list", reply(200, {"requests": rows, "total": total}))])
    assert await read_pages_since(service, since=EPOCH + 10)
    assert service.calls["list"] < 40


@pytest.mark.parametrize("read", [read_list, read_pages_since])
async def test_other_tasks_run_while_the_rows_of_a_long_page_are_read(read):
    rows = [{"request_id": f"job-{number}", "status": "success"} for number in range(20_000)]
    service = Service(before=[always("list", reply(200, {"requests": rows, "has_more": False}))])
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_turns)
        assert len(await read(service)) == 20_000
        tasks.cancel_scope.cancel()
    assert turns >= 19


async def test_a_list_of_800_000_rows_is_an_error():
    rows = b'{"requests":[' + b",".join([b'{"request_id":"a","status":"success"}'] * 800_000) + b"]}"
    service = Service(before=[always("list", reply(200, rows))])
    with pytest.raises(APIResponseError, match="more than 1,000,000 values"):
        await read_list(service)
