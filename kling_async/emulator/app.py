"""The service as an `aiohttp.web` application: one handler for each call of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from kling_async.emulator.call_counter import CallCounter
from kling_async.emulator.fault_injection import apply_fault
from kling_async.emulator.faults import Faults, Operation
from kling_async.emulator.job_records import BUCKET
from kling_async.emulator.media import Clip
from kling_async.emulator.media_cache import MediaCache
from kling_async.emulator.middleware import fault_name, make_middleware
from kling_async.emulator.model_catalog import find_model
from kling_async.emulator.queue_api import QueueApi, read_json_object
from kling_async.emulator.service_queue import RefusedError, ServiceQueue, Status
from kling_async.emulator.settings import EmulatorSettings
from kling_async.emulator.storage import (
    NO_SUCH_KEY,
    UPLOAD_TYPES,
    StorageError,
    StoredFile,
    Uploads,
    parse_range,
)

PREFIX = "/api/v1/ie/requestqueue/apikey"
"""Path of the queue on the host."""

_MAX_BODY_BYTES = 128 * 2**20

Handler = Callable[[web.Request], Awaitable[web.Response]]
RouteHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """The handlers of one emulated service, and the state that they share.

    Args:
        settings: the settings of the emulator.
        queue: the jobs of the service.
        faults: the faults that calls meet.
        calls: counts the calls.
        clock: the time in Unix seconds.
        start_outage: refuses all connections for this many real seconds.
    """

    def __init__(
        self,
        settings: EmulatorSettings,
        *,
        queue: ServiceQueue,
        faults: Faults,
        calls: CallCounter,
        clock: Callable[[], float],
        start_outage: Callable[[float], None],
    ) -> None:
        self._settings = settings
        self._format = settings.response_format
        self._queue = queue
        self._api = QueueApi(settings, queue)
        self._faults = faults
        self._calls = calls
        self._clock = clock
        self._start_outage = start_outage
        self._uploads = Uploads(seed=settings.seed)
        self._media_cache = MediaCache(cache_bytes=settings.media_cache_bytes)

    def application(self) -> web.Application:
        """A new application with all routes of the service."""
        middleware = make_middleware(self._settings.host_names)
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[middleware])
        app.on_response_prepare.append(self._add_date)
        routes: tuple[tuple[str, str, Operation, Handler], ...] = (
            ("POST", f"{PREFIX}/requests", "submit", self._submit),
            ("GET", f"{PREFIX}/requests", "list", self._list_jobs),
            ("GET", f"{PREFIX}/requests/{{request_id}}", "status", self._get_job),
            ("GET", f"{PREFIX}/models", "models", self._list_models),
            ("GET", f"{PREFIX}/models/{{model_id}}", "models", self._get_model),
            ("POST", f"{PREFIX}/upload-url", "upload", self._create_upload_url),
        )
        for method, path, operation, handler in routes:
            app.router.add_route(method, path, self._make_route(operation, self._require_key(handler)))
        uploads, media = (
            "/{bucket}/uploads/{name}",
            "/{bucket}/user-assests/{org}/{request_id}.{extension:mp4|jpg}",
        )
        app.router.add_put(uploads, self._make_route("store", self._store_upload))
        app.router.add_get(uploads, self._make_route("media", self._get_upload))
        app.router.add_get(media, self._make_route("media", self._get_media))
        return app

    def _make_route(self, operation: Operation, handler: Handler) -> RouteHandler:
        """A handler that counts its calls, applies faults to them, and turns refusals into replies."""

        async def reply(request: web.Request) -> web.Response:
            try:
                return await handler(request)
            except RefusedError as refusal:
                return web.json_response(
                    {"error": refusal.error}, status=refusal.status, headers=refusal.headers
                )
            except StorageError as error:
                return web.Response(
                    text=error.xml, status=error.status, headers=error.headers, content_type="application/xml"
                )

        async def handle(request: web.Request) -> web.StreamResponse:
            with self._calls.track_call(operation, has_credentials="Authorization" in request.headers):
                job = self._queue.find(request.match_info.get("request_id", ""))
                action = self._faults.next_action(operation, job=job.number if job else None)
                fault_name.set(type(action).__name__ if action else None)
                return await apply_fault(action, request, reply, start_outage=self._start_outage)

        return handle

    def _require_key(self, handler: Handler) -> Handler:
        async def check_key(request: web.Request) -> web.Response:
            self._api.check_key(request.headers.get("Authorization", ""))
            return await handler(request)

        return check_key

    async def _submit(self, request: web.Request) -> web.Response:
        storage_url = self._storage_url(request)
        return web.json_response(
            self._api.submit(
                await request.read(),
                now=self._clock(),
                storage_url=storage_url,
                organization_id=request.headers.get("X-Organization-ID"),
                find_rejection=lambda payload: self._find_missing_upload(payload, storage_url),
            )
        )

    def _find_missing_upload(self, payload: Mapping[str, Any], storage_url: str) -> str | None:
        """The error of the service if the payload has an upload URL without an uploaded file, or None."""
        uploads = f"{storage_url}/{BUCKET}/uploads/"
        is_missing = any(
            isinstance(value, str)
            and value.startswith(uploads)
            and not self._uploads.get(urlsplit(value).path)
            for value in _walk(payload)
        )
        return "Failed to download media" if is_missing else None

    async def _get_job(self, request: web.Request) -> web.Response:
        return web.json_response(
            self._api.get_job(
                request.match_info["request_id"], now=self._clock(), storage_url=self._storage_url(request)
            )
        )

    async def _list_jobs(self, request: web.Request) -> web.Response:
        return web.json_response(
            self._api.list_jobs(request.query, now=self._clock(), storage_url=self._storage_url(request))
        )

    async def _list_models(self, _request: web.Request) -> web.Response:
        return web.json_response(self._api.list_models())

    async def _get_model(self, request: web.Request) -> web.Response:
        organization = request.headers.get("X-Organization-ID")
        return web.json_response(
            self._api.get_model(request.match_info["model_id"], organization_id=organization)
        )

    async def _create_upload_url(self, request: web.Request) -> web.Response:
        file_type = read_json_object(await request.read()).get("file_type")
        if not isinstance(file_type, str) or file_type not in UPLOAD_TYPES:
            raise RefusedError(400, f"file_type must be one of {', '.join(UPLOAD_TYPES)}")
        path, query = self._uploads.sign(file_type, now=self._service_time())
        public_url = self._storage_url(request) + path
        return web.json_response({"upload_url": f"{public_url}?{query}", "public_url": public_url})

    async def _store_upload(self, request: web.Request) -> web.Response:
        self._uploads.check(
            request.path,
            signature=request.query.get("X-Goog-Signature"),
            content_type=request.headers.get("Content-Type"),
            now=self._service_time(),
        )
        self._uploads.put(request.path, await request.read())
        return web.Response()

    async def _get_upload(self, request: web.Request) -> web.Response:
        file = self._uploads.get(request.path)
        if file is None:
            raise NO_SUCH_KEY
        return self._serve_file(request, file)

    async def _get_media(self, request: web.Request) -> web.Response:
        job = self._queue.find(request.match_info["request_id"])
        is_finished = job is not None and job.status_at(now=self._clock())[0] is Status.SUCCESS
        if job is None or not is_finished or job.organization_id != request.match_info["org"]:
            raise NO_SUCH_KEY
        if find_model(job.model).makes != "video":
            raise NO_SUCH_KEY
        file = await self._media_cache.get(request.match_info["extension"], Clip.from_payload(job.payload))
        return self._serve_file(request, file)

    def _serve_file(self, request: web.Request, file: StoredFile) -> web.Response:
        """The file, or the range of it that the call requests."""
        headers = {"Content-Type": file.content_type, "ETag": file.etag}
        if not self._format.ranges:
            return web.Response(body=file.content, headers=headers)
        headers["Accept-Ranges"] = "bytes"
        size = len(file.content)
        is_same = request.headers.get("If-Range", file.etag) == file.etag
        wanted = parse_range(request.headers.get("Range"), size_bytes=size) if is_same else None
        if wanted == "unsatisfiable":
            raise StorageError(
                416,
                "InvalidRange",
                "The requested range cannot be satisfied.",
                {"Content-Range": f"bytes */{size}"},
            )
        if wanted is None:
            return web.Response(body=file.content, headers=headers)
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
        return web.Response(status=206, body=file.content[wanted], headers=headers)

    async def _add_date(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Let the response tell the time of the service, by the same clock as its records."""
        response.headers["Date"] = formatdate(self._clock() + self._format.clock_ahead, usegmt=True)

    def _storage_url(self, request: web.Request) -> str:
        return self._settings.storage_url or f"{request.scheme}://{request.host}"

    def _service_time(self) -> float:
        return self._clock() * self._settings.time_scale


def _walk(value: Any) -> Iterator[Any]:
    """The values of a JSON object, also those in lists and in other objects."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield one
        yield from _walk(one)
