"""The same simulated jobs in the wire form of each client that is measured.

Each form answers one request: (jobs, request) in, (status, JSON bytes) out. Replies carry the keys
that the client in question reads or demands, and for the queue of GMI Cloud what a real reply carries.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from benchmarks.jobs import UNKNOWN, Jobs

Reply = tuple[int, bytes]

NOT_FOUND: Reply = (404, b'{"error":"Request not found"}')

_STAMP = "2026-01-01T00:00:00.000Z"


@dataclass(slots=True)
class Request:
    """One HTTP request below a form's own prefix."""

    method: str
    path: str
    query: str
    body: bytes
    now: float
    """Monotonic seconds at which it was read."""
    host: str
    """Scheme, name and port under which the client sees the service."""


def gmi(jobs: Jobs, request: Request) -> Reply:
    """The request queue of GMI Cloud: create, get one, list."""
    if request.method == "POST" and request.path == "requests":
        jobs.counts.submit += 1
        sent = json.loads(request.body)
        payload = json.dumps(sent["payload"], ensure_ascii=False, separators=(",", ":")).encode()
        index = jobs.accept(sent["model"], payload, now=request.now)
        return 200, _gmi_record(jobs, index, is_final=False)
    if request.path == "requests":
        jobs.counts.list += 1
        return 200, _gmi_list(jobs, request)
    jobs.counts.get += 1
    index = jobs.index_of(request.path.removeprefix("requests/"))
    if index == UNKNOWN:
        return NOT_FOUND
    return 200, _gmi_record(jobs, index, is_final=jobs.tell_final(index, now=request.now))


def _gmi_record(jobs: Jobs, index: int, *, is_final: bool) -> bytes:
    request_id = jobs.id_of(index).encode()
    created = int(jobs.epoch + jobs.accepted[index])
    updated = created
    status, outcome = b"processing", b"null"
    if is_final:
        updated += int(jobs.finish[index] - jobs.accepted[index])
        url = jobs.workload.media_url.encode().replace(b"{id}", request_id)
        status = b"success"
        outcome = b'{"media_urls":[{"id":"0","url":"%b"}],"thumbnail_image_url":"%b.jpg"}' % (url, url)
    return (
        b'{"request_id":"%b","org_id":"org-1","user_id":"user-1","model":"%b","status":"%b","is_public":false,'
        b'"payload":%b,"outcome":%b,"created_at":%d,"updated_at":%d,"queued_at":%d}'
    ) % (
        request_id,
        jobs.models[index].encode(),
        status,
        jobs.payloads[index],
        outcome,
        created,
        updated,
        created,
    )


def _gmi_list(jobs: Jobs, request: Request) -> bytes:
    asked = parse_qs(request.query)
    most = jobs.workload.rows_per_call
    limit = min(int(asked.get("limit", [most])[0]), most)
    offset = int(asked.get("offset", [0])[0])
    page, total = jobs.list_page(asked.get("model_id", [None])[0], offset=offset, limit=limit)
    rows = [_gmi_record(jobs, index, is_final=jobs.tell_final(index, now=request.now)) for index in page]
    has_more = b"true" if offset + len(rows) < total else b"false"
    return b'{"requests":[%b],"total":%d,"has_more":%b}' % (b",".join(rows), total, has_more)


def fal(jobs: Jobs, request: Request) -> Reply:
    """The queue that fal-client speaks: submit, status, response."""
    if request.method == "POST":
        index = _accept_any(jobs, request)
        url = f"{request.host}/fal/requests/{jobs.id_of(index)}"
        return 200, _text(
            request_id=jobs.id_of(index),
            response_url=url,
            status_url=f"{url}/status",
            cancel_url=f"{url}/cancel",
        )
    request_id, _, wanted = request.path.removeprefix("requests/").partition("/")
    index, is_final = _look_up(jobs, request_id, request)
    if index == UNKNOWN:
        return NOT_FOUND
    if wanted != "status":
        return 200, _text(video={"url": _media_url(jobs, index)})
    if is_final:
        return 200, _text(
            status="COMPLETED", request_id=request_id, logs=None, metrics={"inference_time": 1.0}
        )
    return 200, _text(status="IN_PROGRESS", request_id=request_id, logs=None)


def replicate(jobs: Jobs, request: Request) -> Reply:
    """Predictions as replicate's client reads them."""
    index, is_final = _accept_or_look_up(jobs, request, request.path.rpartition("/")[2])
    if index == UNKNOWN:
        return NOT_FOUND
    return 200, _text(
        id=jobs.id_of(index),
        model="kling/kling",
        version="1",
        status="succeeded" if is_final else "processing",
        input=json.loads(jobs.payloads[index])["input"],
        output=_media_url(jobs, index) if is_final else None,
        logs="",
        error=None,
        metrics={},
        created_at=_STAMP,
        started_at=_STAMP,
        completed_at=_STAMP if is_final else None,
        urls={"get": f"{request.host}/replicate/v1/predictions/{jobs.id_of(index)}"},
    )


def openai(jobs: Jobs, request: Request) -> Reply:
    """Videos as openai's client reads them."""
    index, is_final = _accept_or_look_up(jobs, request, request.path.removeprefix("videos/"))
    if index == UNKNOWN:
        return NOT_FOUND
    return 200, _text(
        id=jobs.id_of(index),
        object="video",
        model="sora-2",
        status="completed" if is_final else "in_progress",
        progress=100 if is_final else 50,
        created_at=1767225600,
        completed_at=1767225600 if is_final else None,
        seconds="4",
        size="720x1280",
    )


def runwayml(jobs: Jobs, request: Request) -> Reply:
    """Tasks as runwayml's client reads them."""
    if request.method == "POST":
        return 200, _text(id=jobs.id_of(_accept_any(jobs, request)), estimatedCost={"credits": 20})
    index, is_final = _look_up(jobs, request.path.rpartition("/")[2], request)
    if index == UNKNOWN:
        return NOT_FOUND
    record = {"id": jobs.id_of(index), "createdAt": _STAMP}
    if is_final:
        return 200, _text(
            **record, status="SUCCEEDED", output=[_media_url(jobs, index)], cost={"credits": 20}
        )
    return 200, _text(**record, status="RUNNING", progress=0.5, estimatedCost={"credits": 20})


def _accept_or_look_up(jobs: Jobs, request: Request, request_id: str) -> tuple[int, bool]:
    if request.method == "POST":
        return _accept_any(jobs, request), False
    return _look_up(jobs, request_id, request)


def _accept_any(jobs: Jobs, request: Request) -> int:
    jobs.counts.submit += 1
    return jobs.accept("peer", request.body, now=request.now)


def _look_up(jobs: Jobs, request_id: str, request: Request) -> tuple[int, bool]:
    jobs.counts.get += 1
    index = jobs.index_of(request_id)
    return index, index != UNKNOWN and jobs.tell_final(index, now=request.now)


def _media_url(jobs: Jobs, index: int) -> str:
    return jobs.workload.media_url.replace("{id}", jobs.id_of(index))


def _text(**keys: object) -> bytes:
    return json.dumps(keys, separators=(",", ":")).encode()


FORMS: dict[str, Callable[[Jobs, Request], Reply]] = {
    "api/v1/ie/requestqueue/apikey/": gmi,
    "fal/": fal,
    "replicate/": replicate,
    "openai/": openai,
    "runwayml/": runwayml,
}
"""Every form by the first part of its paths."""
