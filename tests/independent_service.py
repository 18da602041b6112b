"""A second fake service, written from the API contract alone, without code of the package and without an HTTP library.

    python tests/independent_service.py --port-file FILE

The service runs, and keeps every job, until it is killed. `GET /control` returns its counts; `POST /control` takes a
JSON object with any of these keys:

- `script`: by call, the faults of the next calls: `{"submit": ["drop", null, "500"]}`
- `probabilities`: by call, the probability of each fault: `{"submit": {"drop": 0.1}}`; `seed`: the seed of random numbers
- `run_time`, `list_delay`, `latency` (of any call), `media_time` (of a download): seconds, partly random
- `media_bytes`; `rows`: the most rows of a page; `ranges`: bool

Calls are `submit`, `status`, `list` and `media`. Every fault but `refuse` comes after the call has taken effect:

- `500`, `502`, `503`, `404`, `429`, `408`: this status instead of the reply
- `refuse`: a 503, and the call has no effect
- `drop`: a reset; `stall`: no reply until the client leaves; `half`: half of the body, then an orderly close
- `unknown_status`: a status that is not documented; `duplicate`: the reply, then the same reply again
- `cut:0.3`: this share of the body, then a reset; `long`, `short`: a Content-Length that is wrong by 10
- `redirect:URL`: a redirect to this URL
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
class Reply:
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


def video_bytes(request_id: str, size_bytes: int) -> bytes:
    """The bytes of a job's video, different for each job."""
    return hashlib.shake_256(request_id.encode()).digest(size_bytes)


@dataclass
class Service:
    jobs: dict[str, Job] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    """By prompt, the accepted POSTs."""
    calls: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    """Open calls, by kind."""
    media: list[dict[str, str]] = field(default_factory=list)
    """The request headers of every media call."""
    script: dict[str, list[str | None]] = field(default_factory=dict)
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    run_time: float = 0.1
    latency: float = 0.0
    list_delay: float = 0.0
    media_time: float = 0.0
    media_bytes: int = 100_000
    rows: int = 50
    ranges: bool = True
    rng: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    def handle_control(self, call: Call) -> Reply:
        if call.method == "POST":
            settings = json.loads(call.body)
            if "seed" in settings:
                self.rng.seed(settings.pop("seed"))
            for name, value in settings.items():
                setattr(self, name, value)
        counts = {
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
        return json_reply(200, counts)

    def next_fault(self, kind: str) -> str | None:
        if self.script.get(kind):
            return self.script[kind].pop(0)
        number = self.rng.random()
        for fault, probability in self.probabilities.get(kind, {}).items():
            number -= probability
            if number < 0:
                return fault
        return None

    def make_reply(self, call: Call) -> Reply:
        if call.kind != "media" and not call.headers.get("authorization", "").startswith("Bearer "):
            return json_reply(401, {"error": "token signature is invalid"})
        if call.kind == "submit":
            return self.accept_submit(json.loads(call.body))
        if call.kind == "status":
            job = self.jobs.get(unquote(call.path.rpartition("/")[2]))
            return json_reply(200, self.make_record(job, call)) if job else json_reply(*STATUSES["404"])
        if call.kind == "list":
            return self.list_jobs(call)
        if call.kind == "media":
            return self.get_video(call)
        return json_reply(404, {"error": "no such call"})

    def accept_submit(self, body: dict) -> Reply:
        self.posts[body["payload"]["prompt"]] += 1
        now = time.time()
        ends_at = now + self.run_time * (0.5 + self.rng.random())
        job = Job(str(uuid.uuid4()), body["model"], body["payload"], now, ends_at, self.media_bytes)
        self.jobs[job.request_id] = job
        stamps = dict.fromkeys(("created_at", "updated_at", "queued_at"), int(now))
        record = {"request_id": job.request_id, "model": job.model, "status": "dispatched", **stamps}
        return json_reply(200, record)

    def make_record(self, job: Job, call: Call) -> dict:
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

    def list_jobs(self, call: Call) -> Reply:
        if "model_id" not in call.query:
            return json_reply(400, {"error": "model_id is required"})
        newest = time.time() - self.list_delay
        rows = [job for job in self.jobs.values() if job.accepted_at <= newest]
        rows = [job for job in reversed(rows) if job.model == call.query["model_id"][0]]
        offset = int(call.query.get("offset", ["0"])[0])
        limit = min(int(call.query.get("limit", ["10"])[0]), self.rows)
        page = rows[offset : offset + limit]
        has_more = offset + len(page) < len(rows)
        return json_reply(
            200,
            {
                "requests": [self.make_record(job, call) for job in page],
                "total": len(rows),
                "has_more": has_more,
            },
        )

    def get_video(self, call: Call) -> Reply:
        self.media.append(call.headers)
        job = self.jobs.get(unquote(call.path.rpartition("/")[2].removesuffix(".mp4")))
        if job is None or time.time() < job.ends_at:
            return Reply(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
        whole = video_bytes(job.request_id, job.size_bytes)
        etag = f'"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}"'
        wanted = call.headers.get("range", "")
        if not self.ranges or not wanted or call.headers.get("if-range", etag) != etag:
            return Reply(200, whole, "video/mp4", {"ETag": etag})
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(whole), len(whole))
        if start >= len(whole):
            return Reply(416, b"", "video/mp4", {"Content-Range": f"bytes */{len(whole)}"})
        headers = {"ETag": etag, "Content-Range": f"bytes {start}-{stop - 1}/{len(whole)}"}
        return Reply(206, whole[start:stop], "video/mp4", headers)


def json_reply(status: int, value: object) -> Reply:
    if isinstance(value, str):
        return Reply(status, value.encode(), "text/html")
    return Reply(status, json.dumps(value).encode())


def call_kind(method: str, path: str) -> str:
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
    return Call(call_kind(method, parts.path), method, parts.path, parse_qs(parts.query), headers, body)


def encode_reply(reply: Reply, *, length: int | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} X",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body) if length is None else length}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + reply.body


async def send_reply(
    writer: asyncio.StreamWriter, reader: asyncio.StreamReader, reply: Reply, fault: str | None
) -> bool:
    """Send the reply under the fault; True if the connection stays open."""
    name, _, value = (fault or "").partition(":")
    if name == "stall":
        await reader.read()
    elif name == "drop":
        reset_on_close(writer)
    elif name in {"half", "cut"}:
        share = 0.5 if name == "half" else float(value)
        cut = Reply(
            reply.status, reply.body[: int(len(reply.body) * share)], reply.content_type, reply.headers
        )
        writer.write(encode_reply(cut, length=len(reply.body)))
        await writer.drain()
        if name == "cut":
            reset_on_close(writer)
    elif name in {"long", "short"}:
        difference = 10 if name == "long" else -10
        writer.write(encode_reply(reply, length=len(reply.body) + difference))
        await writer.drain()
    else:
        writer.write(encode_reply(change_reply(reply, name, value)) * (2 if name == "duplicate" else 1))
        await writer.drain()
        return True
    return False


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Make the next close of the connection a TCP reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def change_reply(reply: Reply, name: str, value: str) -> Reply:
    """The reply under a fault that changes its content."""
    if name in STATUSES:
        return json_reply(*STATUSES[name])
    if name == "redirect":
        return Reply(302, b"", headers={"Location": value})
    if name == "unknown_status":
        reply.body = reply.body.replace(b'"status": "processing"', b'"status": "polishing"')
    return reply


async def serve_connection(
    service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        is_open = True
        while is_open:
            call = await read_call(reader)
            if call.kind == "control":
                writer.write(encode_reply(service.handle_control(call)))
                continue
            service.in_flight[call.kind] += 1
            try:
                is_open = await serve_call(service, call, reader, writer)
            finally:
                service.in_flight[call.kind] -= 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client left or was killed
    finally:
        writer.close()


async def serve_call(
    service: Service, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Reply to one call; True if the connection stays open. The call takes effect at a random time within its latency."""
    fault = service.next_fault(call.kind)
    service.calls[call.kind] += 1
    if fault:
        service.faults[f"{call.kind} {fault}"] += 1
    before, after = (service.latency * service.rng.random() for _ in range(2))
    await asyncio.sleep(before)
    reply = service.make_reply(call) if fault != "refuse" else json_reply(*STATUSES["refuse"])
    await asyncio.sleep(after)
    if call.kind == "media" and fault is None and service.media_time:
        return await send_slowly(writer, reply, service.media_time * service.rng.random())
    return await send_reply(writer, reader, reply, fault)


async def send_slowly(writer: asyncio.StreamWriter, reply: Reply, seconds: float) -> bool:
    """Send a reply in ten pieces over this time."""
    whole = encode_reply(reply)
    size = len(whole) // 10 + 1
    for start in range(0, len(whole), size):
        writer.write(whole[start : start + size])
        await writer.drain()
        await asyncio.sleep(seconds / 10)
    return True


async def serve(port_file: Path, host: str) -> None:
    service = Service()
    server = await asyncio.start_server(
        lambda reader, writer: serve_connection(service, reader, writer), host, 0, backlog=1024
    )
    temporary = port_file.with_name(port_file.name + ".new")
    temporary.write_text(str(server.sockets[0].getsockname()[1]))
    temporary.replace(port_file)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port_file, arguments.host))
