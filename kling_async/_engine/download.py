"""Finished files: to a part file, length checked, flushed to the disk, then renamed into place."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.call import Caller
from kling_async._policy.fetching import LARGEST_VIDEO_BYTES, refusal
from kling_async._policy.naming import file_name
from kling_async._policy.retry import next_delay
from kling_async._transport.base import Request, StreamedReply
from kling_async._wire.replies import error_for
from kling_async.errors import APIConnectionError, ConfigurationError, DownloadError, KlingError
from kling_async.events import Notifier, Retrying
from kling_async.models import Job

_HEADERS: Mapping[str, str] = {"Accept": "*/*", "Accept-Encoding": "identity"}
"""No credential: storage is another host, and its addresses are public."""
_REDIRECTS = range(300, 400)
_MOST_REDIRECTS = 5
_OK = 200
_WRITE_BYTES = 1024 * 1024
_MOST_PIECES = 512
"""Pieces for one call of the system, which takes 1,024 on all that have it."""


@attrs.frozen
class Saved:
    """A video that is on the disk, whole."""

    size_bytes: int
    sha256: str | None = None


def is_whole(path: Path, *, size_bytes: int | None) -> bool:
    """Whether a file is there with the size that it was saved with."""
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


@attrs.define(eq=False)
class Downloader:
    """Fetches videos, so many at once for all batches of the client."""

    caller: Caller
    at_once: int
    _slots: anyio.Semaphore = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = anyio.Semaphore(self.at_once, fast_acquire=True)

    async def download(self, job: Job, path: Path, *, notify: Notifier) -> Saved:
        """The job's video, now whole at `path`.

        What was at `path` before is replaced only by a whole video. Cancelling it leaves at most a `.part` file.

        Raises:
            DownloadError: The job has no video, or it could not be fetched or written.
        """
        url = job.video_url
        if url is None:
            raise DownloadError(
                f"Job {job.request_id} has no video to download (it is {job.status}).",
                request_id=job.request_id,
                job=job,
            )
        try:
            async with self._slots:
                return Saved(await self._until_whole(url, path, notify))
        except (KlingError, OSError) as error:
            raise DownloadError(
                f"The video of job {job.request_id} was not saved to {os.fspath(path)!r}: {_reason(error)}. "
                f"It is still at the service: `await client.download({job.request_id!r}, ...)` tries again.",
                request_id=job.request_id,
                status_code=getattr(error, "status_code", None),
                job=job,
            ) from error

    async def _until_whole(self, url: str, path: Path, notify: Notifier) -> int:
        attempt = 0
        while True:
            try:
                return await self._fetch(url, path)
            except KlingError as error:
                chance = self.caller.dice.random()
                delay = next_delay(self.caller.retry, attempt=attempt, error=error, chance=chance)
                if delay is None:
                    raise
                attempt += 1
                if notify:
                    at = self.caller.clock.wall()
                    notify(Retrying(at=at, call="download", attempt=attempt, delay=delay, error=error))
            await self.caller.clock.sleep(delay)

    async def _fetch(self, url: str, path: Path) -> int:
        for _ in range(_MOST_REDIRECTS + 1):
            if reason := refusal(url):
                raise DownloadError(f"{url[:200]!r} is not fetched: {reason}")
            request = Request("GET", url, _HEADERS, timeout=self.caller.timeout)
            async with self.caller.transport.stream(request) as reply:
                if reply.status == _OK:
                    return await _save(reply, path)
                if reply.status not in _REDIRECTS or "location" not in reply.headers:
                    raise await self._error(reply)
                url = _followed(url, reply.headers["location"])
        raise DownloadError(f"more than {_MOST_REDIRECTS} redirects")

    async def _error(self, reply: StreamedReply) -> KlingError:
        body = b""
        async for piece in reply.chunks():
            body += piece
            if len(body) > _WRITE_BYTES:
                break
        now = self.caller.clock.wall()
        return error_for(
            reply.status, reply.headers, body, call="download", secret=self.caller.secret, now=now
        )


def _followed(url: str, location: str) -> str:
    """Where a redirect leads; what is no address stays as it is, to be refused."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


async def _save(reply: StreamedReply, path: Path) -> int:
    """Write the reply beside `path`, make sure that it is whole and on the disk, and put it in place."""
    part = path.with_name(path.name + ".part")
    promised = _promised_bytes(reply)
    file = await anyio.to_thread.run_sync(_open_part, part)
    try:
        size = await _write_all(reply, file)
        if size == 0 or (promised is not None and size != promised):
            raise APIConnectionError(f"{size:,} bytes came of {promised or 'some'} promised")
        await anyio.to_thread.run_sync(os.fsync, file.fileno())
    finally:
        file.close()
    await anyio.to_thread.run_sync(os.replace, part, path)
    return size


async def _write_all(reply: StreamedReply, file: io.FileIO) -> int:
    """Write what comes, in a thread of its own so that reading goes on in others; the bytes written."""
    pieces: list[bytes] = []
    size = gathered = 0
    async for piece in reply.chunks():
        pieces.append(piece)
        size += len(piece)
        gathered += len(piece)
        if size > LARGEST_VIDEO_BYTES:
            raise DownloadError(f"it is larger than {LARGEST_VIDEO_BYTES:,} bytes")
        if gathered >= _WRITE_BYTES:
            await anyio.to_thread.run_sync(_write, file, pieces)
            pieces, gathered = [], 0
    await anyio.to_thread.run_sync(_write, file, pieces)
    return size


def _open_part(part: Path) -> io.FileIO:
    part.parent.mkdir(parents=True, exist_ok=True)
    return part.open("wb", buffering=0)


def _write(file: io.FileIO, pieces: list[bytes]) -> None:
    """Write the pieces to the last byte, whatever the system takes at once."""
    written = os.writev(file.fileno(), pieces[:_MOST_PIECES]) if pieces and hasattr(os, "writev") else 0
    if written < sum(map(len, pieces)):
        left = memoryview(b"".join(pieces))[written:]
        while left:
            left = left[file.write(left) :]


def _promised_bytes(reply: StreamedReply) -> int | None:
    """The length that the reply announced; None where it announced none, or one of a packed body."""
    text = reply.headers.get("content-length", "")
    # A number of thousands of digits cannot be read, and 18 are more than any file has.
    return int(text[:18]) if text.isdecimal() and "content-encoding" not in reply.headers else None


def _reason(error: KlingError | OSError) -> str:
    if isinstance(error, KlingError):
        return error.message.rstrip(".")
    return f"{error.strerror or type(error).__name__}"


async def target(destination: str | os.PathLike[str], job: Job) -> Path:
    """The file that a video goes to: the destination itself, or a file within it where that is a folder."""
    text = os.fspath(destination)
    path = Path(text)
    if text.endswith(("/", os.sep)) or await anyio.to_thread.run_sync(path.is_dir):
        prompt = job.payload.get("prompt")
        return path / file_name(job.request_id, prompt=prompt if isinstance(prompt, str) else "")
    return path


def _make_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".kling_async-{os.getpid()}.part"
    with suppress(FileNotFoundError):
        probe.unlink()
    probe.touch()
    probe.unlink()


async def check_folder(output: str | os.PathLike[str]) -> Path:
    """The folder, made if it was missing, and shown to be writable before anything is paid for.

    Raises:
        ConfigurationError: It cannot be made or written.
    """
    folder = Path(output)
    try:
        await anyio.to_thread.run_sync(_make_writable, folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"Videos cannot be saved in {os.fspath(output)!r}: {reason}.") from error
    return folder
