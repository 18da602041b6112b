"""Uploads local pictures to URLs that the service can read."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._engine.threads import run_in_thread
from kling_async._policy.safe_urls import reason_to_refuse
from kling_async._transport.base import Request
from kling_async._wire.codec import structure_upload
from kling_async._wire.endpoints import UPLOAD_URL
from kling_async._wire.payloads import payload_of, plain_payload, upload_body
from kling_async.catalog import PICTURES, is_local_picture, wire_name
from kling_async.errors import ConfigurationError, InvalidRequestError, KlingError
from kling_async.lines import reason_of
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
    """Uploads each content once, even if many requests name its file."""

    api: ApiCaller
    emit: Emitter
    _urls: dict[tuple[str, str], str] = attrs.field(init=False, factory=dict)
    """By the digest of a file and its suffix, which says the type."""
    _lock: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)

    async def make_payload(self, request: VideoRequest, digests: Mapping[str, str]) -> dict[str, Any]:
        """The payload of a request, with the public URL of each local picture.

        Args:
            request: The request.
            digests: The SHA-256 of each local picture, by its path; see `PictureDigests.read`.

        Raises:
            InvalidRequestError: A picture cannot be read, or has another digest by now.
            KlingError: A picture cannot be uploaded; nothing was paid for.
        """
        payload = payload_of(request)
        for key, path in local_pictures(request):
            payload[key] = await self._url_of(path, digests[path])
        return plain_payload(payload)

    async def _url_of(self, path: str, sha256: str) -> str:
        name = sha256, _suffix_of(path)
        async with self._lock:
            if name not in self._urls:
                self._urls[name] = await upload(self.api, path, self.emit, sha256=sha256)
            return self._urls[name]


def local_pictures(request: VideoRequest) -> list[tuple[str, str]]:
    """The keys of the payload that name a file on this machine, each with its path."""
    found = []
    for field in PICTURES:
        picture = getattr(request, field)
        if picture is not None and is_local_picture(picture):
            key = wire_name(model_of(request), field)
            if payload_of(request)[key] is picture:
                found.append((key, os.fspath(picture)))
    return found


def payload_with_absolute_paths(request: VideoRequest) -> dict[str, Any]:
    """The payload, in which the path of a local picture holds in any working folder."""
    payload = payload_of(request)
    return payload | {key: os.path.abspath(path) for key, path in local_pictures(request)}  # noqa: PTH100 - keeps links


def _suffix_of(path: str) -> str:
    return Path(path).suffix.lower()


@contextmanager
def translate_read_errors(path: str) -> Iterator[None]:
    """Turn an error of reading a file into an `InvalidRequestError` that names the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise InvalidRequestError(f"{path!r} cannot be read: {reason}.") from error


@contextmanager
def open_picture(path: str) -> Iterator[BufferedReader]:
    """A regular file, open to be read: a pipe would block the thread, and with it the end of the process."""
    descriptor = os.open(path, os.O_RDONLY | _NO_WAIT)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def refuse_empty(size_bytes: int) -> None:
    """Raise an `OSError` for a file without a byte: it is no picture, and its job would be paid for."""
    if not size_bytes:
        raise OSError(errno.EINVAL, "it is an empty file")


def _read(path: str, sha256: str | None) -> bytes | None:
    """The bytes of a file; None if they have another digest than the expected one."""
    with open_picture(path) as file:
        content = file.read()
    if sha256 is None:
        refuse_empty(len(content))
    is_other = sha256 is not None and hashlib.sha256(content).hexdigest() != sha256
    return None if is_other else content


def _picture_path(path: object) -> str:
    try:
        return local_path(path, name="path")
    except ConfigurationError as error:
        raise InvalidRequestError(error.message) from error


async def upload(
    api: ApiCaller, path: str | os.PathLike[str], emit: Emitter, *, sha256: str | None = None
) -> str:
    """Upload a file; returns its public URL, which needs no key.

    Args:
        api: Sends the calls.
        path: The file.
        emit: Emits an event for each retry.
        sha256: The digest that the file has to have, in hex; None for any.

    Raises:
        InvalidRequestError: The file cannot be read or has another digest, or the service does not take its suffix.
        KlingError: The file cannot be uploaded.
    """
    path = _picture_path(path)
    suffix = _suffix_of(path)
    if suffix not in CONTENT_TYPES:
        raise InvalidRequestError(
            f"{path!r} cannot be uploaded: the service takes {', '.join(CONTENT_TYPES)}."
        )
    with translate_read_errors(path):
        content = await run_in_thread(partial(_read, path, sha256))
    if content is None:
        raise InvalidRequestError(
            f"{path!r} has changed since its request was read, so the request was not sent: give each picture a file of "
            "its own, and do not change the file while the call runs."
        )
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
            raise api.storage_error(reply.status, reply.headers, reply.body, about="the upload")
        except KlingError as error:
            await retries.wait_or_raise(error)
