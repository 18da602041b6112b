"""The service once more, written by hand from its contract alone: no code of the package, no HTTP library.

    python tests/independent_service.py --port-file FILE

It runs until it is killed, and keeps every job for as long. `GET /control` tells what it has seen; `POST /control`
takes a JSON object with any of

- `script`: by call, what befalls the next ones: `{"submit": ["drop", null, "500"]}`
- `chances`: by call and fault, how likely it is: `{"submit": {"drop": 0.1}}`; `seed` seeds the dice
- `run_time`, `list_delay`, `latency` (of any call), `media_time` (of a download): seconds, more or less
- `media_bytes`; `rows`: most rows of a page; `ranges`: bool

Calls are `submit`, `status`, `list`, `media`. Each fault strikes after the call has taken effect, but for `refuse`:

- `500`, `502`, `503`, `404`, `429`, `408`: that answer instead; `refuse` a 503 of a call that has no effect
- `drop`: a reset; `stall`: silence until the caller leaves; `half`: half of the body, then the end
- `word`: a status that nobody knows; `twice`: the answer, and the same once more
- `cut:0.3`: that share of the body, then a reset; `long`, `short`: a Content-Length that is 10 off
- `away:URL`: a redirect to that address
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import socket
import struct
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

QUEUE = "/api/v1/ie/requestqueue/apikey"
STATUSES = {
    "500": (500, {"error": "Backend error (400). Please try again."}),
    "502": (502, "<html><body>502 Bad Gateway</body></html>"),
    "503": (503, {"error": "unavailable"}),
    "404": (404, {"error": "Request not found"}),
    "429": (429, {"error": "rate limit exceeded"}),
    "408": (408, {"error": "timeout"}),
    "refuse": (503, {"error": "unavailable"}),
}


@dataclass
class Job:
    request_id: str
    model: str
    payload: dict
    accepted_at: float
    ends_at: float
    size_bytes: int


@dataclass
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Call:
    kind: str
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


def content_of(request_id: str, size_bytes: int) -> bytes:
    """The bytes of a job's video; no other job has them."""
    return hashlib.shake_256(request_id.encode()).digest(size_bytes)


@dataclass
class Service:
    jobs: dict[str, Job] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    """By prompt, every POST that was taken."""
    calls: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    """Calls that are being answered."""
    media: list[dict[str, str]] = field(default_factory=list)
    """The headers of every call of the storage."""
    script: dict[str, list[str | None]] = field(default_factory=dict)
    chances: dict[str, dict[str, float]] = field(default_factory=dict)
    run_time: float = 0.1
    latency: float = 0.0
    list_delay: float = 0.0
    media_time: float = 0.0
    media_bytes: int = 100_000
    rows: int = 50
    ranges: bool = True
    dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    def control(self, call: Call) -> Answer:
        if call.method == "POST":
            told = json.loads(call.body)
            if "seed" in told:
                self.dice.seed(told.pop("seed"))
            for name, value in told.items():
                setattr(self, name, value)
        seen = {
            "posts": self.posts,
            "calls": self.calls,
            "faults": self.faults,
            "in_flight": self.in_flight,
            "media": self.media,
            "jobs": [
                {"request_id": job.request_id, "prompt": job.payload.get("prompt"), "bytes": job.size_bytes}
                for job in self.jobs.values()
            ],
        }
        return as_json(200, seen)

    def next_fault(self, kind: str) -> str | None:
        if self.script.get(kind):
            return self.script[kind].pop(0)
        roll = self.dice.random()
        for fault, chance in self.chances.get(kind, {}).items():
            roll -= chance
            if roll < 0:
                return fault
        return None

    def answer(self, call: Call) -> Answer:
        if call.kind != "media" and not call.headers.get("authorization", "").startswith("Bearer "):
            return as_json(401, {"error": "token signature is invalid"})
        if call.kind == "submit":
            return self.accept(json.loads(call.body))
        if call.kind == "status":
            job = self.jobs.get(unquote(call.path.rpartition("/")[2]))
            return as_json(200, self.record(job, call)) if job else as_json(*STATUSES["404"])
        if call.kind == "list":
            return self.listed(call)
        if call.kind == "media":
            return self.video(call)
        return as_json(404, {"error": "no such call"})

    def accept(self, body: dict) -> Answer:
        self.posts[body["payload"]["prompt"]] += 1
        now = time.time()
        ends_at = now + self.run_time * (0.5 + self.dice.random())
        job = Job(str(uuid.uuid4()), body["model"], body["payload"], now, ends_at, self.media_bytes)
        self.jobs[job.request_id] = job
        stamps = dict.fromkeys(("created_at", "updated_at", "queued_at"), int(now))
        told = {"request_id": job.request_id, "model": job.model, "status": "dispatched", **stamps}
        return as_json(200, told)

    def record(self, job: Job, call: Call) -> dict:
        now = time.time()
        is_done = now >= job.ends_at
        url = f"http://{call.headers['host']}/bucket/{quote(job.request_id, safe='')}.mp4"
        outcome = {"media_urls": [{"id": "0", "url": url}], "thumbnail_image_url": f"{url}.jpg"}
        return {
            "request_id": job.request_id,
            "org_id": "org-1",
            "user_id": "user-1",
            "model": job.model,
            "status": "success" if is_done else "processing",
            "is_public": False,
            "payload": job.payload,
            "outcome": outcome if is_done else None,
            "created_at": int(job.accepted_at),
            "updated_at": int(job.ends_at if is_done else job.accepted_at),
            "queued_at": int(job.accepted_at),
        }

    def listed(self, call: Call) -> Answer:
        if "model_id" not in call.query:
            return as_json(400, {"error": "model_id is required"})
        shown = time.time() - self.list_delay
        rows = [job for job in self.jobs.values() if job.accepted_at <= shown]
        rows = [job for job in reversed(rows) if job.model == call.query["model_id"][0]]
        offset = int(call.query.get("offset", ["0"])[0])
        limit = min(int(call.query.get("limit", ["10"])[0]), self.rows)
        page = rows[offset : offset + limit]
        has_more = offset + len(page) < len(rows)
        return as_json(
            200,
            {"requests": [self.record(job, call) for job in page], "total": len(rows), "has_more": has_more},
        )

    def video(self, call: Call) -> Answer:
        self.media.append(call.headers)
        job = self.jobs.get(unquote(call.path.rpartition("/")[2].removesuffix(".mp4")))
        if job is None or time.time() < job.ends_at:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
        whole = content_of(job.request_id, job.size_bytes)
        etag = f'"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}"'
        asked = call.headers.get("range", "")
        if not self.ranges or not asked or call.headers.get("if-range", etag) != etag:
            return Answer(200, whole, "video/mp4", {"ETag": etag})
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(whole), len(whole))
        if start >= len(whole):
            return Answer(416, b"", "video/mp4", {"Content-Range": f"bytes */{len(whole)}"})
        told = {"ETag": etag, "Content-Range": f"bytes {start}-{stop - 1}/{len(whole)}"}
        return Answer(206, whole[start:stop], "video/mp4", told)


def as_json(status: int, value: object) -> Answer:
    if isinstance(value, str):
        return Answer(status, value.encode(), "text/html")
    return Answer(status, json.dumps(value).encode())


def kind_of(method: str, path: str) -> str:
    if path == "/control":
        return "control"
    if path.startswith("/bucket/"):
        return "media"
    if path == f"{QUEUE}/requests":
        return "submit" if method == "POST" else "list"
    return "status" if path.startswith(f"{QUEUE}/requests/") else "other"


async def read_call(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, target, _ = head.split("\r\n", 1)[0].split(" ")
    lines = (line.partition(":") for line in head.split("\r\n")[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Call(kind_of(method, parts.path), method, parts.path, parse_qs(parts.query), headers, body)


def in_bytes(answer: Answer, *, length: int | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} X",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body) if length is None else length}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


async def say(
    writer: asyncio.StreamWriter, reader: asyncio.StreamReader, answer: Answer, fault: str | None
) -> bool:
    """Answer as the fault wants it; whether the connection is kept."""
    name, _, value = (fault or "").partition(":")
    if name == "stall":
        await reader.read()
    elif name == "drop":
        reset(writer)
    elif name in {"half", "cut"}:
        share = 0.5 if name == "half" else float(value)
        cut = Answer(
            answer.status, answer.body[: int(len(answer.body) * share)], answer.content_type, answer.headers
        )
        writer.write(in_bytes(cut, length=len(answer.body)))
        await writer.drain()
        if name == "cut":
            reset(writer)
    elif name in {"long", "short"}:
        off = 10 if name == "long" else -10
        writer.write(in_bytes(answer, length=len(answer.body) + off))
        await writer.drain()
    else:
        writer.write(in_bytes(changed(answer, name, value)) * (2 if name == "twice" else 1))
        await writer.drain()
        return True
    return False


def reset(writer: asyncio.StreamWriter) -> None:
    """Have the connection end with a reset once it is closed."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def changed(answer: Answer, name: str, value: str) -> Answer:
    """What a fault makes of an answer that is said as it is otherwise."""
    if name in STATUSES:
        return as_json(*STATUSES[name])
    if name == "away":
        return Answer(302, b"", headers={"Location": value})
    if name == "word":
        answer.body = answer.body.replace(b'"status": "processing"', b'"status": "polishing"')
    return answer


async def converse(service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        is_kept = True
        while is_kept:
            call = await read_call(reader)
            if call.kind == "control":
                writer.write(in_bytes(service.control(call)))
                continue
            service.in_flight[call.kind] += 1
            try:
                is_kept = await serve_call(service, call, reader, writer)
            finally:
                service.in_flight[call.kind] -= 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the caller left, or was killed
    finally:
        writer.close()


async def serve_call(
    service: Service, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Answer one call; it takes effect somewhere within its latency."""
    fault = service.next_fault(call.kind)
    service.calls[call.kind] += 1
    if fault:
        service.faults[f"{call.kind} {fault}"] += 1
    before, after = (service.latency * service.dice.random() for _ in range(2))
    await asyncio.sleep(before)
    answer = service.answer(call) if fault != "refuse" else as_json(*STATUSES["refuse"])
    await asyncio.sleep(after)
    if call.kind == "media" and fault is None and service.media_time:
        return await dripped(writer, answer, service.media_time * service.dice.random())
    return await say(writer, reader, answer, fault)


async def dripped(writer: asyncio.StreamWriter, answer: Answer, seconds: float) -> bool:
    """Say an answer in ten pieces over some time."""
    whole = in_bytes(answer)
    size = len(whole) // 10 + 1
    for start in range(0, len(whole), size):
        writer.write(whole[start : start + size])
        await writer.drain()
        await asyncio.sleep(seconds / 10)
    return True


async def serve(port_file: Path) -> None:
    service = Service()
    server = await asyncio.start_server(
        lambda reader, writer: converse(service, reader, writer), "127.0.0.1", 0, backlog=1024
    )
    fresh = port_file.with_name(port_file.name + ".new")
    fresh.write_text(str(server.sockets[0].getsockname()[1]))
    fresh.replace(port_file)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port-file", type=Path, required=True)
    asyncio.run(serve(parser.parse_args().port_file))
