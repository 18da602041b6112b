"""A store that speaks enough of S3's protocol for tests, and fails as they want; it shares no code with the client.

Source: the API reference of Amazon S3: PutObject, HeadObject, DeleteObjects, CreateMultipartUpload, UploadPart,
CompleteMultipartUpload and AbortMultipartUpload.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from xml.sax.saxutils import escape, unescape

import attrs
from aiohttp import web

Fault = Callable[[web.Request], "web.Response | None"]
"""Answers a request in the place of the store; None lets the store answer."""


@attrs.frozen
class Stored:
    content: bytes
    headers: dict[str, str]


def error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>{code}</Message></Error>")


@attrs.define(eq=False)
class IndependentStore:
    """One bucket."""

    bucket: str = "videos"
    objects: dict[str, Stored] = attrs.field(factory=dict)
    uploads: dict[str, dict[int, bytes]] = attrs.field(factory=dict)
    """The parts of each upload that is neither complete nor aborted."""
    requests: list[str] = attrs.field(factory=list)
    """The method and the key of each request."""
    faults: list[Fault] = attrs.field(factory=list)
    """Asked before each request is answered."""
    endpoint: str = ""
    _headers: dict[str, dict[str, str]] = attrs.field(factory=dict)

    @property
    def videos(self) -> dict[str, bytes]:
        """The content of each object."""
        return {key: stored.content for key, stored in self.objects.items()}

    def count(self, method: str, key: str = "") -> int:
        """How many requests of a method there were, for the keys that have this text in them."""
        return sum(one.startswith(f"{method} ") and key in one for one in self.requests)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        bucket, _, key = request.path.removeprefix("/").partition("/")
        self.requests.append(f"{request.method} {key}")
        for fault in self.faults:
            if (answer := fault(request)) is not None:
                return answer
        if bucket != self.bucket:
            return error(404, "NoSuchBucket")
        if "uploadId" in request.query or "uploads" in request.query:
            return self._handle_parts(request, key, body)
        if "delete" in request.query:
            keys = [unescape(key) for key in re.findall("<Key>(.*?)</Key>", body.decode())]
            for one in keys:
                self.objects.pop(one, None)
            deleted = "".join(f"<Deleted><Key>{escape(one)}</Key></Deleted>" for one in keys)
            return web.Response(text=f"<DeleteResult>{deleted}</DeleteResult>")
        return self._handle_object(request, key, body)

    def _handle_object(self, request: web.Request, key: str, body: bytes) -> web.Response:
        match request.method:
            case "PUT":
                return self._put(request, key, body)
            case "HEAD" | "GET" if key in self.objects:
                stored = self.objects[key]
                headers = {**stored.headers, "Last-Modified": "Wed, 01 Jul 2026 00:00:00 GMT"}
                return web.Response(body=stored.content, headers=headers)
        return error(404, "NoSuchKey")

    def _put(self, request: web.Request, key: str, body: bytes) -> web.Response:
        if request.headers.get("If-None-Match") == "*" and key in self.objects:
            return error(412, "PreconditionFailed")
        return self._store(key, body, _metadata(request))

    def _store(self, key: str, body: bytes, headers: dict[str, str]) -> web.Response:
        tag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        self.objects[key] = Stored(body, {**headers, "ETag": tag})
        return web.Response(headers={"ETag": tag})

    def _handle_parts(self, request: web.Request, key: str, body: bytes) -> web.Response:
        upload = request.query.get("uploadId", f"upload-{len(self.requests)}")
        match request.method:
            case "POST" if "uploads" in request.query:
                self.uploads[upload], self._headers[upload] = {}, _metadata(request)
                return web.Response(
                    text=f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                )
            case "PUT":
                self.uploads[upload][int(request.query["partNumber"])] = body
                return web.Response(headers={"ETag": f'"{len(body)}"'})
            case "POST":
                parts = self.uploads.pop(upload)
                self._store(key, b"".join(parts[number] for number in sorted(parts)), self._headers[upload])
                return web.Response(
                    text='<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>'
                )
        self.uploads.pop(upload, None)
        return web.Response(status=204)


def _metadata(request: web.Request) -> dict[str, str]:
    kept = re.compile(r"x-amz-meta-|content-type$", re.IGNORECASE)
    return {name: value for name, value in request.headers.items() if kept.match(name)}


@contextmanager
def run_store(store: IndependentStore) -> Iterator[IndependentStore]:
    """The store, which answers from a thread of its own: calls that block can use it."""
    started, loop = Event(), asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", store.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        store.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()

    stop = asyncio.Event()
    thread = Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield store
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
