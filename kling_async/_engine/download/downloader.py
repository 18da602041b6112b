"""Finished files: to a part file, gone on with where they were cut, checked, flushed to the disk, renamed into place."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.download.fetch import fetch
from kling_async._engine.download.partial_file import AdaptiveWriter, PartialFile, opened, sha256_of
from kling_async._engine.emitter import Emitter
from kling_async._policy.file_names import file_name
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import APIStatusError, ConfigurationError, DownloadError, KlingError
from kling_async.events import Downloading
from kling_async.jobs import Job

_GONE = frozenset({403, 404, 410})
"""What storage answers at an address that is no longer good."""
_FLUSHES_PER_FETCH = 4
"""So that the network does not wait for the disk, which takes many files at once in little more time than one."""
_BETWEEN_TELLS = 0.5
"""Seconds after which it is told again how much of a video has come."""


@attrs.frozen
class Saved:
    """A video that is on the disk, whole."""

    size_bytes: int
    sha256: str | None = None
    """In hex, if it was asked for."""


def is_whole(path: Path, *, size_bytes: int | None, sha256: str | None = None) -> bool:
    """Whether a file is there with the size that it was saved with, and with its digest if one is given.

    It blocks: for the time of a look at the folder, and with a digest for that of reading the file.
    """
    try:
        return path.stat().st_size == size_bytes and (sha256 is None or sha256_of(path) == sha256)
    except OSError:
        return False


class Downloader:
    """Fetches videos, so many at once for all batches of the client."""

    def __init__(self, caller: ApiCaller, at_once: int) -> None:
        self.caller = caller
        self._disk = AdaptiveWriter(caller.clock)
        self._fetches = anyio.Semaphore(at_once, fast_acquire=True)
        self._flushes = anyio.Semaphore(at_once * _FLUSHES_PER_FETCH, fast_acquire=True)
        # The flushes are bounded already: they take no worker threads from others.
        self._threads = anyio.CapacityLimiter(math.inf)

    async def download(
        self, job: Job, path: Path, *, emit: Emitter, index: int | None = None, digest: bool = False
    ) -> Saved:
        """The job's video, now whole at `path`.

        What was at `path` before is replaced only by a whole video. Cancelling it leaves at most a `.part` file and
        its note, with which the next download of the job to the same place goes on.

        Args:
            job: With the address of its video.
            path: A file.
            emit: Tells of each retry, and how much has come.
            index: The place of the job in a batch.
            digest: Whether to tell the SHA-256, which costs about a millisecond a MiB, in a thread.

        Raises:
            DownloadError: The job has no video, or it could not be fetched or written.
        """
        if job.video_url is None:
            raise DownloadError(
                f"Job {job.request_id} has no video to download (it is {job.status}).",
                request_id=job.request_id,
                job=job,
            )
        try:
            return await self._saved(job, job.video_url, path, emit, index=index, digest=digest)
        except (KlingError, OSError) as error:
            raise DownloadError(
                f"The video of job {job.request_id} was not saved to {os.fspath(path)!r}: {_reason(error)}. "
                f"It is still at the service: `await client.download({job.request_id!r}, ...)` tries again.",
                request_id=job.request_id,
                status_code=getattr(error, "status_code", None),
                job=job,
            ) from error

    async def _saved(
        self, job: Job, url: str, path: Path, emit: Emitter, *, index: int | None, digest: bool
    ) -> Saved:
        """Fetch in one of the places for that, then flush in one of those for that."""
        place = self._fetches
        await place.acquire()
        try:
            async with opened(path, request_id=job.request_id, disk=self._disk) as part:
                if emit:
                    part.on_growth = self._teller(part, emit, index)
                await self._fetch_from_anywhere(job, url, part, emit)
                await self._flushes.acquire()
                place.release()
                place = self._flushes
                keep = partial(part.keep, digest=digest)
                sha256 = await anyio.to_thread.run_sync(keep, limiter=self._threads)
                return Saved(part.size, sha256)
        finally:
            place.release()

    def _teller(self, part: PartialFile, emit: Emitter, index: int | None) -> Callable[[], None]:
        """Tells how much of a part there is: at once, and whenever it is called."""
        clock = self.caller.clock

        def tell() -> None:
            part.tells_at = clock.now() + _BETWEEN_TELLS
            total = part.version.size_bytes if part.version is not None else None
            emit(
                Downloading,
                index=index,
                request_id=part.request_id,
                size_bytes=part.size,
                total_bytes=total,
            )

        tell()
        return tell

    async def _fetch_from_anywhere(self, job: Job, url: str, part: PartialFile, emit: Emitter) -> None:
        """Fetch the video; where its address is no longer good, ask the service once for the present one."""
        try:
            await self._fetch_until_whole(url, part, emit)
        except APIStatusError as error:
            fresh = await self._present_address(job) if error.status_code in _GONE else None
            if fresh is None or fresh == url:
                raise
            await self._fetch_until_whole(fresh, part, emit)

    async def _present_address(self, job: Job) -> str | None:
        """Where the service says now that the video is; None where it does not say."""
        with suppress(KlingError):  # that the video is not where it was is what the caller is told
            return (await self.caller.send(STATUS, structure_job, id=job.request_id)).video_url
        return None

    async def _fetch_until_whole(self, url: str, part: PartialFile, emit: Emitter) -> None:
        """Fetch the missing bytes; a try that brings the file further grants all retries anew."""
        retries, furthest = self.caller.retries("download", emit), part.size
        while True:
            try:
                await fetch(self.caller, url, part)
            except KlingError as error:
                if part.size > furthest:
                    retries.attempt, furthest = 0, part.size
                await retries.wait_or_raise(error)
            else:
                return


def _reason(error: KlingError | OSError) -> str:
    if isinstance(error, KlingError):
        return error.message.rstrip(".")
    told = error.strerror or type(error).__name__
    return f"{told} ({os.fspath(error.filename)!r})" if error.filename is not None else told


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
        raise ConfigurationError(
            f"Videos cannot be saved in {os.fspath(output)!r}: {reason}. Choose another folder."
        ) from error
    return folder
