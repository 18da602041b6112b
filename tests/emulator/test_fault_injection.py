from __future__ import annotations

import asyncio
import json

import aiohttp
import anyio
import pytest

from kling_async.emulator import Fault, faults
from tests.emulator.conftest import PREFIX

GOOD = {"model": "kling-v2-6", "payload": {"prompt": "rain"}}
SUBMIT = "/requests"


async def raw_post(bench, *, headers=b"") -> bytes:
    """All bytes that a submit receives until the emulator closes the connection."""
    body = json.dumps(GOOD).encode()
    host, port = bench.emulator.url.removeprefix("http://").split(":")
    received = b""
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(
            b"POST %s/requests HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n"
            b"Content-Length: %d\r\n%s\r\n%s" % (PREFIX.encode(), len(body), headers, body)
        )
        with anyio.fail_after(5):
            async for chunk in stream:
                received += chunk
    return received


def count_paid(bench):
    return len(bench.emulator.stats.accepted)


@pytest.mark.parametrize(
    "reply, content_type, body",
    [
        (faults.BACKEND_ERROR, "application/json", b'{"error": "Backend error (400). Please try again."}'),
        (faults.BAD_GATEWAY, "text/html", None),
        (faults.Reply(503), "text/html", b""),
        (faults.Reply(400, "<x/>", "application/xml"), "application/xml", b"<x/>"),
        (faults.Reply(200, [1]), "application/json", b"[1]"),
        (faults.Reply(200, b"\xff\xfe"), "text/html", b"\xff\xfe"),
    ],
)
async def test_a_reply_replaces_the_real_one(bench, reply, content_type, body):
    bench.emulator.faults.add(Fault("submit", reply))
    async with bench.session.post(f"{PREFIX}/requests", json=GOOD) as response:
        assert (response.status, response.content_type) == (reply.status, content_type)
        assert await response.read() == (reply.body.encode() if body is None else body)
    assert count_paid(bench) == 0


async def test_a_reply_has_its_own_headers(bench):
    bench.emulator.faults.add(Fault("list", faults.Reply(429, headers={"Retry-After": "7"})))
    async with bench.session.get(f"{PREFIX}/requests") as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")


async def test_an_error_reply_can_leave_a_paid_job(bench):
    bench.emulator.faults.add(Fault("submit", faults.Reply(500, {"error": "no"}, accepted=True)))

    assert (await bench.post(SUBMIT, json=GOOD))[0] == 500
    assert count_paid(bench) == 1


@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_dropped_submit_creates_a_job_only_if_it_is_accepted(bench, accepted, jobs, reset):
    bench.emulator.faults.add(Fault("submit", faults.Drop(accepted=accepted, reset=reset)))

    with pytest.raises(aiohttp.ClientConnectionError):
        await bench.post(SUBMIT, json=GOOD)
    assert count_paid(bench) == jobs


async def test_a_drop_is_a_reset_or_an_orderly_close(bench):
    bench.emulator.faults.add(
        Fault("submit", faults.Drop(reset=False)), Fault("submit", faults.Drop(reset=True), nth=2)
    )

    assert await raw_post(bench) == b""
    with pytest.raises(anyio.BrokenResourceError):
        await raw_post(bench)


async def test_a_stalled_submit_gets_a_late_reply(bench):
    bench.emulator.faults.add(Fault("submit", faults.Stall(0.01)))

    assert (await bench.post(SUBMIT, json=GOOD))[0] == 200


async def test_a_submit_that_times_out_in_a_stall_creates_a_job(bench):
    bench.emulator.faults.add(Fault("submit", faults.Stall(60.0)))

    with pytest.raises(TimeoutError):
        await bench.post(SUBMIT, json=GOOD, timeout=aiohttp.ClientTimeout(total=0.05))
    assert count_paid(bench) == 1


async def test_a_stall_can_end_without_a_reply(bench):
    bench.emulator.faults.add(Fault("submit", faults.Stall(0.01, then="drop")))

    assert await raw_post(bench) == b""


async def test_a_stall_can_end_after_the_client_left(bench):
    bench.emulator.faults.add(Fault("submit", faults.Stall(0.05, then="drop")))
    client = asyncio.create_task(bench.post(SUBMIT, json=GOOD))
    with anyio.fail_after(5):
        while not count_paid(bench):  # noqa: ASYNC110 - the emulator has no event for it
            await anyio.sleep(0.001)
    client.cancel()
    await anyio.sleep(0.08)

    assert (await bench.get("/requests"))[1]["total"] == 1


@pytest.mark.parametrize("delay", [0.0, 0.01])
@pytest.mark.parametrize("size_bytes", [None, 0, 10])
async def test_a_truncated_body_is_shorter_than_its_length(bench, size_bytes, delay):
    bench.emulator.faults.add(Fault("submit", faults.TruncatedReply(size_bytes, delay=delay)))
    head, _, body = (await raw_post(bench)).partition(b"\r\n\r\n")
    (length,) = [int(line.split()[1]) for line in head.splitlines() if line.startswith(b"Content-Length")]

    assert head.startswith(b"HTTP/1.1 200 OK")
    assert len(body) == (length // 2 if size_bytes is None else size_bytes) < length
    assert count_paid(bench) == 1


@pytest.mark.parametrize("share", [0.1, 0.9])
async def test_a_truncated_reply_has_a_share_of_the_body(bench, share):
    whole = await raw_post(bench, headers=b"Connection: close\r\n")
    bench.emulator.faults.add(Fault("submit", faults.TruncatedReply(share=share)))
    head, _, body = (await raw_post(bench)).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK")
    assert len(body) == int(share * len(whole.partition(b"\r\n\r\n")[2]))


async def test_a_reply_can_be_truncated_within_the_head(bench):
    bench.emulator.faults.add(Fault("submit", faults.TruncatedReply(within="head")))
    head = await raw_post(bench)

    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type")
    assert b"\r\n\r\n" not in head
    assert count_paid(bench) == 1


async def test_a_truncated_reply_can_end_in_a_reset(bench):
    bench.emulator.faults.add(Fault("submit", faults.TruncatedReply(0, reset=True)))

    with pytest.raises(anyio.BrokenResourceError):
        await raw_post(bench)


async def test_a_truncated_reply_with_a_matching_length_keeps_the_connection(bench):
    reply = await bench.submit()
    bench.emulator.faults.add(Fault("status", faults.TruncatedReply(40, declares_full_length=False)))
    path = f"{PREFIX}/requests/{reply['request_id']}"
    async with bench.session.get(path) as response:
        assert await response.read() == f'{{"request_id": "{reply["request_id"]}"'.encode()[:40]

    assert (await bench.get(f"/requests/{reply['request_id']}"))[0] == 200


async def test_a_slow_reply_is_the_real_reply(bench):
    reply = await bench.submit()
    bench.emulator.faults.add(Fault("status", faults.SlowReply(0.001, pieces=7)))

    assert (await bench.get(f"/requests/{reply['request_id']}"))[1]["request_id"] == reply["request_id"]


async def test_a_duplicate_reply_is_sent_twice(bench):
    bench.emulator.faults.add(Fault("submit", faults.DuplicateReply(0.001)))
    received = await raw_post(bench, headers=b"Connection: close\r\n")
    first, second = received.split(b"HTTP/1.1 200 OK")[1:]

    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]
    assert count_paid(bench) == 1


async def test_a_duplicate_reply_is_not_sent_to_a_client_that_left(bench):
    bench.emulator.faults.add(Fault("submit", faults.DuplicateReply(0.03)))
    status, _ = await bench.post(SUBMIT, json=GOOD, headers={"Connection": "close"})
    await anyio.sleep(0.05)

    assert (status, (await bench.get("/requests"))[0]) == (200, 200)


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
async def test_a_flood_has_its_size(bench, is_compressed, accepted, jobs):
    bench.emulator.faults.add(
        Fault("submit", faults.Flood(3_000_000, is_compressed=is_compressed, accepted=accepted))
    )
    async with bench.session.post(f"{PREFIX}/requests", json=GOOD) as response:
        assert response.headers.get("Content-Encoding") == ("gzip" if is_compressed else None)
        assert await response.read() == b" " * 3_000_000
    assert count_paid(bench) == jobs


async def test_a_redirect_has_the_same_path_on_another_host(bench):
    bench.emulator.faults.add(Fault("list", faults.Redirect("http://other.example:81", status=307)))
    path = f"{PREFIX}/requests?model_id=a%20b"
    async with bench.session.get(path, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, f"http://other.example:81{path}")


@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
async def test_an_outage_refuses_connections_until_it_ends(bench, accepted, jobs):
    bench.emulator.faults.add(Fault("submit", faults.Outage(0.05, accepted=accepted)))
    with pytest.raises(aiohttp.ClientConnectionError):
        await bench.post(SUBMIT, json=GOOD)

    refused = 0
    with anyio.fail_after(5):
        while True:
            try:
                assert (await bench.get("/requests"))[1]["total"] == jobs
                break
            except aiohttp.ClientConnectionError:
                refused += 1
                await anyio.sleep(0.005)
    assert refused > 0


async def test_an_emulator_can_be_closed_during_an_outage(bench):
    bench.emulator.faults.add(Fault("submit", faults.Outage(60.0), times=2))
    both = [asyncio.create_task(raw_post(bench)) for _ in range(2)]
    await asyncio.wait(both)
    await bench.emulator.aclose()

    assert [type(task.exception()) for task in both] == [anyio.BrokenResourceError] * 2

    assert "not running" in repr(bench.emulator)


async def test_a_truncated_download_can_be_resumed(bench):
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    whole = (await bench.fetch(url))[2]
    bench.emulator.faults.add(Fault("media", faults.TruncatedReply(100)))

    with pytest.raises(aiohttp.ClientPayloadError):
        await bench.fetch(url)
    status, _, rest = await bench.fetch(url, headers={"Range": "bytes=100-"})

    assert (status, whole[:100] + rest) == (206, whole)


@pytest.mark.parametrize("difference", [50, -50, -100_000])
async def test_a_wrong_length_has_the_whole_body(bench, difference):
    bench.emulator.faults.add(Fault("submit", faults.WrongLength(difference)))
    head, _, body = (await raw_post(bench)).partition(b"\r\n\r\n")

    assert f"Content-Length: {max(0, len(body) + difference)}".encode() in head
    assert json.loads(body)["status"] == "queued"


async def test_an_edit_changes_and_removes_keys(bench):
    reply = await bench.submit()
    bench.emulator.faults.add(
        Fault("status", faults.Edit({"status": "paused"}, without=("payload", "nothing")))
    )

    _, edited = await bench.get(f"/requests/{reply['request_id']}")
    _, real = await bench.get(f"/requests/{reply['request_id']}")

    assert edited == {key: value for key, value in real.items() if key != "payload"} | {"status": "paused"}


async def test_an_edit_writes_any_text_as_a_value(bench):
    reply = await bench.submit()
    edit = faults.Edit(raw_json={"payload": "[" * 50 + "]" * 50, "created_at": "NaN"})
    bench.emulator.faults.add(Fault("status", edit))
    path = f"{PREFIX}/requests/{reply['request_id']}"
    async with bench.session.get(path) as response:
        text = await response.text()

    assert f'"payload": {"[" * 50}{"]" * 50}, ' in text
    assert '"created_at": NaN' in text


async def test_an_edit_moves_the_times_of_a_record(bench):
    reply = await bench.submit()
    bench.emulator.faults.add(
        Fault("status", faults.Edit({"queued_at": None}, time_offset=-3600.0)),
        Fault("status", faults.Edit({"queued_at": "x"}, time_offset=3600.0), nth=2),
    )
    rows = [(await bench.get(f"/requests/{reply['request_id']}"))[1] for _ in range(3)]

    assert [row["created_at"] - reply["created_at"] for row in rows] == [-3600, 3600, 0]
    assert [row["queued_at"] for row in rows] == [None, "x", reply["queued_at"]]


async def test_an_edit_leaves_a_reply_that_is_not_json(bench):
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    whole = await bench.fetch(url)
    bench.emulator.faults.add(Fault("media", faults.Edit({"status": 7})))

    assert (await bench.fetch(url))[2] == whole[2]


async def test_an_edit_changes_each_row_of_a_list(bench):
    await bench.submit()
    await bench.submit()
    bench.emulator.faults.add(Fault("list", faults.Edit({"created_at": None})))
    _, page = await bench.get("/requests")

    assert [row["created_at"] for row in page["requests"]] == [None, None]
    assert page["total"] == 2


@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
async def test_raw_bytes_are_sent_unchanged(bench, accepted, jobs):
    bench.emulator.faults.add(Fault("submit", faults.Raw(b"HTTP/1.1 20", accepted=accepted)))

    assert await raw_post(bench) == b"HTTP/1.1 20"
    assert count_paid(bench) == jobs


async def test_a_job_can_become_unknown_after_a_status_call(bench):
    first, second = await bench.submit(), await bench.submit()
    bench.emulator.faults.add(Fault("status", faults.NOT_FOUND, job=1, nth=2, times=None))
    statuses = [
        (await bench.get(f"/requests/{reply['request_id']}"))[0]
        for reply in (first, second)
        for _ in range(3)
    ]

    assert statuses == [200, 404, 404, 200, 200, 200]
