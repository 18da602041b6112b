"""Uploads local pictures to URLs that the service can read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.descriptors import run_in_thread
from kling_async._engine.emitter import Emitter
from kling_async._policy.safe_urls import reason_to_refuse
from kling_async._transport.base import Request
from kling_async._wire.codec import payload_of, structure_upload, to_plain, upload_body
from kling_async._wire.endpoints import UPLOAD_URL
from kling_async.catalog import PICTURES, is_local_picture, wire_name
from kling_async.errors import ConfigurationError, InvalidRequestError, KlingError
from kling_async.paths import local_path
from kling_async.requests import VideoRequest, model_of

CONTENT_TYPES: Mapping[str, tuple[str, str]] = {
    ".jpg": ("jpeg", "image/jpeg"),
    ".jpeg": ("jpeg", "image/jpeg"),
    ".png": ("png", "image/png"),
    ".mp4": ("mp4", "video/mp4"),
    ".mp3": ("mp3", "audio/mpeg"),
    ".wav": ("wav", "audio/wav"),
}
"""By the file's suffix: the type to request, and the header that the upload URL is signed for.

A .jpg is requested as jpeg, because the service signs `jpg` as image/jpg. Source: probes by clients of the service.
"""
_OK = range(200, 300)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@attrs.define(eq=False)
class Uploader:
    """Uploads each file once, even if many requests name it."""

    api: ApiCaller
    emit: Emitter
    _urls: dict[str, str] = attrs.field(init=False, factory=dict)
    _lock: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)

    async def payload(self, request: VideoRequest) -> dict[str, Any]:
        """The payload of a request, with the public URL of each local picture.

        Raises:
            InvalidRequestError: A picture cannot be read.
            KlingError: A picture cannot be uploaded; nothing was paid for.
        """
        payload = payload_of(request)
        for key, path in local_pictures(request, payload):
            payload[key] = await self._url_of(path)
        return to_plain(payload)

    async def _url_of(self, path: str) -> str:
        async with self._lock:
            if path not in self._urls:
                self._urls[path] = await upload(self.api, path, self.emit)
            return self._urls[path]


def local_pictures(request: VideoRequest, payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The keys of the payload that name a file on this machine, each with its path."""
    found = []
    for field in PICTURES:
        picture = getattr(request, field)
        if picture is not None and is_local_picture(picture):
            key = wire_name(model_of(request), field)
            if payload[key] is picture:
                found.append((key, os.fspath(picture)))
    return found


def payload_with_absolute_paths(request: VideoRequest) -> dict[str, Any]:
    """The payload, in which the path of a local picture holds in any working folder."""
    payload = payload_of(request)
    return payload | {key: os.path.abspath(path) for key, path in local_pictures(request, payload)}  # noqa: PTH100 - keeps links


async def content_of(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
        InvalidRequestError: It cannot be read.
    """
    try:
        return await run_in_thread(partial(_read, Path(path)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequestError(f"{os.fspath(path)!r} cannot be read: {reason}.") from error


def _read(path: Path) -> bytes:
    """The bytes of a regular file: a pipe would block the thread, and with it the end of the process."""
    descriptor = os.open(path, os.O_RDONLY | _NO_WAIT)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _picture_path(path: object) -> str:
    try:
        return local_path(path, name="path")
    except ConfigurationError as error:
        raise InvalidRequestError(error.message) from error


async def upload(api: ApiCaller, path: str | os.PathLike[str], emit: Emitter) -> str:
    """Upload a file; returns its public URL, which needs no key.

    Raises:
        InvalidRequestError: The file cannot be read, or the service does not take its suffix.
        KlingError: The file cannot be uploaded.
    """
    path = _picture_path(path)
    suffix = Path(path).suffix.lower()
    if suffix not in CONTENT_TYPES:
        raise InvalidRequestError(
            f"{path!r} cannot be uploaded: the service takes {', '.join(CONTENT_TYPES)}."
        )
    content = await content_of(path)
    file_type, content_type = CONTENT_TYPES[suffix]
    ticket = await api.send_with_retries(UPLOAD_URL, structure_upload, body=upload_body(file_type), emit=emit)
    if reason := reason_to_refuse(ticket.upload_url, allow_private=api.allow_private):
        raise InvalidRequestError(f"The service gave an upload URL that is not safe: {reason}.")
    await _put(api, ticket.upload_url, content, content_type, emit)
    return ticket.public_url


async def _put(api: ApiCaller, url: str, content: bytes, content_type: str, emit: Emitter) -> None:
    """Put the bytes at a signed URL, without the API key: the storage is another host."""
    headers = {"Content-Type": content_type}
    request = Request(
        "PUT",
        url,
        headers,
        content,
        api.timeout,
        UPLOAD_URL.max_reply_bytes,
        is_public_only=not api.allow_private,
    )
    retries = api.retries("upload", emit)
    while True:
        try:
            reply = await api.transport.send(request)
            if reply.status in _OK:
                return
            raise api.error_for(reply.status, reply.headers, reply.body, about="the upload")
        except KlingError as error:
            await retries.wait_or_raise(error)
