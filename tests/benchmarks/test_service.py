from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import machine
from benchmarks.jobs import Workload
from benchmarks.service import LATE, MEDIA_SIZE_BYTES

REQUESTS = "/api/v1/ie/requestqueue/apikey/requests"


@pytest.fixture(scope="module")
def service():
    with machine.service() as running:
        yield running


@pytest.fixture(autouse=True)
def new_run(service):
    service.reset(Workload())


def fetch(url: str, **headers: str) -> bytes:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # loopback
    with urllib.request.urlopen(request) as reply:  # noqa: S310  # loopback
        return reply.read()


def test_a_new_run_knows_nothing_of_the_last(service):
    fetch(service.url + REQUESTS)
    service.reset(Workload())
    assert service.report()["requests"] == {"submit": 0, "get": 0, "list": 0, "media": 0, "other": 0}


def test_what_the_benchmark_asks_is_not_counted(service):
    service.records()
    assert set(service.report()["requests"].values()) == {0}


def test_requests_in_pieces_and_in_one_piece_are_answered_in_order(service):
    body = b'{"model":"m","payload":{}}'
    post = b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (REQUESTS.encode(), len(body), body)
    get = b"GET /nowhere HTTP/1.1\r\n\r\n"
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        sent = post + get + post
        for piece in (sent[:10], sent[10:70], sent[70:]):
            connection.sendall(piece)
        received = b""
        while received.count(b"HTTP/1.1 ") < 3 or not received.endswith(b"}"):
            received += connection.recv(65536)
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def post(service) -> tuple[int, bytes]:
    body = b'{"model":"m","payload":{}}'
    request = urllib.request.Request(service.url + REQUESTS, data=body)  # noqa: S310  # loopback
    try:
        with urllib.request.urlopen(request, timeout=2 * LATE) as reply:  # noqa: S310  # loopback
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("how,status", [("500", 500), ("503", 503), ("late", 200), ("drop", 0), ("stall", 0)])
def test_a_fault_hits_as_many_answers_as_it_says_and_the_job_is_accepted_all_the_same(service, how, status):
    service.inject(on="submit", how=how, times=1)
    if status:
        assert post(service)[0] == status
    else:
        with pytest.raises((OSError, http.client.HTTPException)):
            post(service)
    assert post(service)[0] == 200
    assert len(service.ids()) == service.report()["accepted"] == 2


def test_a_word_that_no_client_knows_stands_for_the_status(service):
    service.inject(on="poll", how="word", times=1)
    request_id = json.loads(post(service)[1])["request_id"]
    records = [json.loads(fetch(f"{service.url}{REQUESTS}/{request_id}")) for _ in range(2)]
    assert [record["status"] for record in records] == ["polishing", "success"]


def test_a_new_run_has_no_faults(service):
    service.inject(on="submit", how="500")
    service.reset(Workload())
    assert post(service)[0] == 200


def test_a_range_is_the_same_part_of_the_same_file(service):
    url = f"{service.url}/media/any.mp4"
    with ThreadPoolExecutor() as pool:
        whole, part = pool.map(lambda headers: fetch(url, **headers), [{}, {"Range": "bytes=1000-1999"}])
    assert len(whole) == MEDIA_SIZE_BYTES
    assert part == whole[1000:2000]


def test_a_process_that_breaks_down_says_why():
    with pytest.raises(machine.ChildFailedError, match="KeyError"):
        machine.in_fresh_process("benchmarks.child", {})


def test_the_environment_can_be_written_as_json():
    described = json.loads(json.dumps(machine.environment()))
    assert described["python"].split()[0] in {"CPython", "PyPy"}
    assert "aiohttp" in described["packages"]
