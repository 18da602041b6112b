from __future__ import annotations

import asyncio
import json

import aiohttp
import anyio
import pytest

from kling_async.emulator import (
    BACKEND_ERROR,
    BAD_GATEWAY,
    NOT_FOUND,
    Drop,
    DuplicateReply,
    Edit,
    Fault,
    Flood,
    Outage,
    Raw,
    Redirect,
    Reply,
    SlowReply,
    Stall,
    TruncatedReply,
    WrongLength,
)

GOOD = {"model": "kling-v2-6", "payload": {"prompt": "rain"}}
SUBMIT = "/requests"


async def raw_post(bench, *, headers=b"") -> bytes:
    """Everything a submit gets over the wire until the other side hangs up."""
    body = json.dumps(GOOD).encode()
    host, port = bench.emulator.url.removeprefix("http://").split(":")
    received = b""
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(
            b"POST /api/v1/ie/requestqueue/apikey/requests HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
            b"Content-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)
        )
        with anyio.fail_after(5):
            async for chunk in stream:
                received += chunk
    return received


def paid(bench):
    return len(bench.emulator.stats.accepted)


@pytest.mark.parametrize(
    "reply, content_type, body",
    [
        (BACKEND_ERROR, "application/json", b'{"error": "Backend error (400). Please try again."}'),
        (BAD_GATEWAY, "text/html", None),
        (Reply(503), "text/html", b""),
        (Reply(400, "<x/>", "application/xml"), "application/xml", b"<x/>"),
        (Reply(200, [1]), "application/json", b"[1]"),
        (Reply(200, b"\xff\xfe"), "text/html", b"\xff\xfe"),
    ],
)
async def test_a_reply_takes_the_place_of_the_truth(bench, reply, content_type, body):
    bench.emulator.faults.add(Fault("submit", reply))
    async with bench.session.post("/api/v1/ie/requestqueue/apikey/requests", json=GOOD) as response:
        assert (response.status, response.content_type) == (reply.status, content_type)
        assert await response.read() == (reply.body.encode() if body is None else body)
    assert paid(bench) == 0


async def test_a_reply_carries_its_own_headers(bench):
    bench.emulator.faults.add(Fault("list", Reply(429, headers={"Retry-After": "7"})))
    async with bench.session.get("/api/v1/ie/requestqueue/apikey/requests") as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")


async def test_an_error_may_hide_a_paid_job(bench):
    bench.emulator.faults.add(Fault("submit", Reply(500, {"error": "no"}, accepted=True)))

    assert (await bench.post(SUBMIT, json=GOOD))[0] == 500
    assert paid(bench) == 1


@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_dropped_submit_is_paid_only_if_it_was_accepted(bench, accepted, jobs, reset):
    bench.emulator.faults.add(Fault("submit", Drop(accepted=accepted, reset=reset)))

    with pytest.raises(aiohttp.ClientConnectionError):
        await bench.post(SUBMIT, json=GOOD)
    assert paid(bench) == jobs


async def test_a_reset_and_an_end_of_stream_are_two_things(bench):
    bench.emulator.faults.add(Fault("submit", Drop(reset=False)), Fault("submit", Drop(reset=True), nth=2))

    assert await raw_post(bench) == b""
    with pytest.raises(anyio.BrokenResourceError):
        await raw_post(bench)


async def test_a_stalled_submit_is_answered_late(bench):
    bench.emulator.faults.add(Fault("submit", Stall(0.01)))

    assert (await bench.post(SUBMIT, json=GOOD))[0] == 200


async def test_a_stall_may_outlast_the_caller_who_pays_all_the_same(bench):
    bench.emulator.faults.add(Fault("submit", Stall(60.0)))

    with pytest.raises(TimeoutError):
        await bench.post(SUBMIT, json=GOOD, timeout=aiohttp.ClientTimeout(total=0.05))
    assert paid(bench) == 1


async def test_a_stall_may_end_in_silence(bench):
    bench.emulator.faults.add(Fault("submit", Stall(0.01, then="drop")))

    assert await raw_post(bench) == b""


async def test_a_caller_who_left_cannot_be_hung_up_on(bench):
    bench.emulator.faults.add(Fault("submit", Stall(0.05, then="drop")))
    caller = asyncio.create_task(bench.post(SUBMIT, json=GOOD))
    with anyio.fail_after(5):
        while not paid(bench):  # noqa: ASYNC110 - the emulator tells nobody
            await anyio.sleep(0.001)
    caller.cancel()
    await anyio.sleep(0.08)

    assert (await bench.get("/requests"))[1]["total"] == 1


@pytest.mark.parametrize("delay", [0.0, 0.01])
@pytest.mark.parametrize("size_bytes", [None, 0, 10])
async def test_a_cut_body_is_shorter_than_its_length(bench, size_bytes, delay):
    bench.emulator.faults.add(Fault("submit", TruncatedReply(size_bytes, delay=delay)))
    head, _, body = (await raw_post(bench)).partition(b"\r\n\r\n")
    (length,) = [int(line.split()[1]) for line in head.splitlines() if line.startswith(b"Content-Length")]

    assert head.startswith(b"HTTP/1.1 200 OK")
    assert len(body) == (length // 2 if size_bytes is None else size_bytes) < length
    assert paid(bench) == 1


@pytest.mark.parametrize("share", [0.1, 0.9])
async def test_a_cut_lets_a_share_through(bench, share):
    whole = await raw_post(bench, headers=b"Connection: close\r\n")
    bench.emulator.faults.add(Fault("submit", TruncatedReply(share=share)))
    head, _, body = (await raw_post(bench)).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK")
    assert len(body) == int(share * len(whole.partition(b"\r\n\r\n")[2]))


async def test_a_cut_may_fall_within_the_head(bench):
    bench.emulator.faults.add(Fault("submit", TruncatedReply(within="head")))
    head = await raw_post(bench)

    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type")
    assert b"\r\n\r\n" not in head
    assert paid(bench) == 1


async def test_a_cut_may_end_in_a_reset(bench):
    bench.emulator.faults.add(Fault("submit", TruncatedReply(0, reset=True)))

    with pytest.raises(anyio.BrokenResourceError):
        await raw_post(bench)


async def test_a_cut_that_is_not_told_is_an_answer_like_any_other(bench):
    told = await bench.submit()
    bench.emulator.faults.add(Fault("status", TruncatedReply(40, declares_full_length=False)))
    path = f"/api/v1/ie/requestqueue/apikey/requests/{told['request_id']}"
    async with bench.session.get(path) as response:
        assert await response.read() == f'{{"request_id": "{told["request_id"]}"'.encode()[:40]

    assert (await bench.get(f"/requests/{told['request_id']}"))[0] == 200


async def test_a_drip_brings_the_truth_in_the_end(bench):
    told = await bench.submit()
    bench.emulator.faults.add(Fault("status", SlowReply(0.001, pieces=7)))

    assert (await bench.get(f"/requests/{told['request_id']}"))[1]["request_id"] == told["request_id"]


async def test_an_answer_may_come_twice(bench):
    bench.emulator.faults.add(Fault("submit", DuplicateReply(0.001)))
    received = await raw_post(bench, headers=b"Connection: close\r\n")
    first, second = received.split(b"HTTP/1.1 200 OK")[1:]

    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]
    assert paid(bench) == 1


async def test_an_answer_does_not_come_twice_to_one_who_left(bench):
    bench.emulator.faults.add(Fault("submit", DuplicateReply(0.03)))
    status, _ = await bench.post(SUBMIT, json=GOOD, headers={"Connection": "close"})
    await anyio.sleep(0.05)

    assert (status, (await bench.get("/requests"))[0]) == (200, 200)


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
async def test_a_flood_is_as_long_as_it_says(bench, is_compressed, accepted, jobs):
    bench.emulator.faults.add(
        Fault("submit", Flood(3_000_000, is_compressed=is_compressed, accepted=accepted))
    )
    async with bench.session.post("/api/v1/ie/requestqueue/apikey/requests", json=GOOD) as response:
        assert response.headers.get("Content-Encoding") == ("gzip" if is_compressed else None)
        assert await response.read() == b" " * 3_000_000
    assert paid(bench) == jobs


async def test_a_redirect_leads_to_the_same_path_of_another_host(bench):
    bench.emulator.faults.add(Fault("list", Redirect("http://other.example:81", status=307)))
    path = "/api/v1/ie/requestqueue/apikey/requests?model_id=a%20b"
    async with bench.session.get(path, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, f"http://other.example:81{path}")


@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
async def test_an_outage_refuses_connections_until_it_is_over(bench, accepted, jobs):
    bench.emulator.faults.add(Fault("submit", Outage(0.05, accepted=accepted)))
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


async def test_an_emulator_can_be_closed_in_an_outage_and_a_second_one_is_the_same(bench):
    bench.emulator.faults.add(Fault("submit", Outage(60.0), times=2))
    both = [asyncio.create_task(raw_post(bench)) for _ in range(2)]
    await asyncio.wait(both)
    await bench.emulator.aclose()

    assert [type(task.exception()) for task in both] == [anyio.BrokenResourceError] * 2

    assert "not running" in repr(bench.emulator)


async def test_a_cut_download_can_be_resumed(bench):
    url = (await bench.finished())["outcome"]["thumbnail_image_url"]
    whole = (await bench.file(url))[2]
    bench.emulator.faults.add(Fault("media", TruncatedReply(100)))

    with pytest.raises(aiohttp.ClientPayloadError):
        await bench.file(url)
    status, _, rest = await bench.file(url, headers={"Range": "bytes=100-"})

    assert (status, whole[:100] + rest) == (206, whole)


@pytest.mark.parametrize("difference", [50, -50, -100_000])
async def test_a_length_may_be_a_lie(bench, difference):
    bench.emulator.faults.add(Fault("submit", WrongLength(difference)))
    head, _, body = (await raw_post(bench)).partition(b"\r\n\r\n")

    assert f"Content-Length: {max(0, len(body) + difference)}".encode() in head
    assert json.loads(body)["status"] == "queued"


async def test_keys_of_the_answer_can_be_changed_and_left_out(bench):
    told = await bench.submit()
    bench.emulator.faults.add(Fault("status", Edit({"status": "paused"}, without=("payload", "nothing"))))

    _, odd = await bench.get(f"/requests/{told['request_id']}")
    _, right = await bench.get(f"/requests/{told['request_id']}")

    assert odd == {key: value for key, value in right.items() if key != "payload"} | {"status": "paused"}


async def test_a_value_may_be_any_text(bench):
    told = await bench.submit()
    edit = Edit(raw_json={"payload": "[" * 50 + "]" * 50, "created_at": "NaN"})
    bench.emulator.faults.add(Fault("status", edit))
    path = f"/api/v1/ie/requestqueue/apikey/requests/{told['request_id']}"
    async with bench.session.get(path) as response:
        text = await response.text()

    assert f'"payload": {"[" * 50}{"]" * 50}, ' in text
    assert '"created_at": NaN' in text


async def test_the_services_clock_may_jump(bench):
    told = await bench.submit()
    bench.emulator.faults.add(
        Fault("status", Edit({"queued_at": None}, time_offset=-3600.0)),
        Fault("status", Edit({"queued_at": "x"}, time_offset=3600.0), nth=2),
    )
    seen = [(await bench.get(f"/requests/{told['request_id']}"))[1] for _ in range(3)]

    assert [row["created_at"] - told["created_at"] for row in seen] == [-3600, 3600, 0]
    assert [row["queued_at"] for row in seen] == [None, "x", told["queued_at"]]


async def test_what_is_no_json_is_not_edited(bench):
    url = (await bench.finished())["outcome"]["thumbnail_image_url"]
    whole = await bench.file(url)
    bench.emulator.faults.add(Fault("media", Edit({"status": 7})))

    assert (await bench.file(url))[2] == whole[2]


async def test_an_edit_of_the_list_changes_its_rows(bench):
    await bench.submit()
    await bench.submit()
    bench.emulator.faults.add(Fault("list", Edit({"created_at": None})))
    _, page = await bench.get("/requests")

    assert [row["created_at"] for row in page["requests"]] == [None, None]
    assert page["total"] == 2


@pytest.mark.parametrize("accepted, jobs", [(True, 1), (False, 0)])
async def test_raw_bytes_go_out_as_they_are(bench, accepted, jobs):
    bench.emulator.faults.add(Fault("submit", Raw(b"HTTP/1.1 20", accepted=accepted)))

    assert await raw_post(bench) == b"HTTP/1.1 20"
    assert paid(bench) == jobs


async def test_a_job_may_vanish_after_it_was_seen(bench):
    first, second = await bench.submit(), await bench.submit()
    bench.emulator.faults.add(Fault("status", NOT_FOUND, job=1, nth=2, times=None))
    seen = [
        (await bench.get(f"/requests/{told['request_id']}"))[0] for told in (first, second) for _ in range(3)
    ]

    assert seen == [200, 404, 404, 200, 200, 200]
