"""Downloads videos into a partial video, resumed after a cut and checked, and lets the destination publish the whole one."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import partial
from typing import Any, Self

import anyio
import anyio.to_thread
import attrs

from kling_async._callbacks import SafeLogger
from kling_async._engine.api import ApiCaller, Retries
from kling_async._engine.descriptors import retry_for_descriptor
from kling_async._engine.download.destination import AlreadySavedError, Destination, SavedFile
from kling_async._engine.download.fetch import fetch
from kling_async._engine.download.outputs import Outputs
from kling_async._engine.download.partial_file import AdaptiveWriter
from kling_async._engine.download.partial_video import PartialVideo
from kling_async._engine.emitter import Emitter
from kling_async._policy.transfer_limits import is_progress
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import APIStatusError, DownloadError, KlingError
from kling_async.events import Downloading
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl

_log = SafeLogger("kling_async")

_GONE = frozenset({403, 404, 410})
"""The statuses with which a storage answers at a URL that is no longer valid."""
_LAST_ANSWER = 1.0
"""Seconds that a store gets after the end of a download: an answer until then says more than a timeout."""
_FLUSHES_PER_FETCH = 4
"""The network does not wait for the disk: to flush many files at once takes little longer than to flush one."""


@attrs.define(eq=False)
class _HeldSlot:
    """The slot that one download holds."""

    _slots: anyio.Semaphore

    async def __aenter__(self) -> Self:
        await self._slots.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()

    async def move_to(self, slots: anyio.Semaphore) -> None:
        """Wait for one of these slots, and only then free the slot before."""
        if slots is not self._slots:
            await slots.acquire()
            self._slots.release()
            self._slots = slots


class Downloader:
    """Downloads videos, at most `max_concurrent` at once for all batches of the client."""

    def __init__(self, api: ApiCaller, max_concurrent: int) -> None:
        self.api = api
        self._writer = AdaptiveWriter(api.clock)
        self._fetch_slots = anyio.Semaphore(max_concurrent, fast_acquire=True)
        self._flush_slots = anyio.Semaphore(max_concurrent * _FLUSHES_PER_FETCH, fast_acquire=True)
        self._upload_slots = anyio.Semaphore(max_concurrent, fast_acquire=True)
        self.outputs = Outputs()
        # The semaphore bounds the flushes already, so they take no worker threads from other calls.
        self._threads = anyio.CapacityLimiter(math.inf)

    async def download_to(
        self, job: Job, destination: str | ObjectUrl, *, emit: Emitter, ascii_names: bool = False
    ) -> SavedFile:
        """Download a job's video to the place that the caller names; see `Outputs.choose`.

        Another file of the same name stays as it is: the video gets a name with the job's tag beside it.

        Raises:
            DownloadError: See `download`.
        """
        try:
            chosen = await self.outputs.choose(destination, job, ascii_names=ascii_names)
        except (OSError, ValueError) as error:
            raise _not_saved(job, destination, error) from error
        saved = await self.download(job, chosen, emit=emit)
        if saved.path != chosen.path:
            _log.warning(
                "%r is another file and is kept: the video is in %r", str(chosen.path), str(saved.path)
            )
        return saved

    async def download(
        self,
        job: Job,
        destination: Destination[Any],
        *,
        emit: Emitter,
        index: int | None = None,
        digest: bool = False,
    ) -> SavedFile:
        """Download a job's video.

        Only a whole video gets the name of the destination, which is a file or an object of a store. The bytes come into a
        partial file, or for a direct upload into memory. A cancelled download leaves at most a `.part` file and its note;
        the next download of the job to the same destination resumes from them.

        Args:
            job: The job, with the URL of its video.
            destination: The place of the video.
            emit: Emits an event for each retry, and for the bytes saved so far.
            index: The job's index in a batch.
            digest: Whether to compute the SHA-256, which takes about a millisecond per MiB, in a thread.

        Raises:
            DownloadError: The job has no video, or its video cannot be fetched or written.
        """
        if job.video_url is None:
            raise DownloadError(
                f"Job {job.request_id} has no video to download (it is {job.status}).",
                request_id=job.request_id,
                job=job,
            )
        save = partial(self._save, job, job.video_url, destination, emit, index=index, digest=digest)
        try:
            return await retry_for_descriptor(save)
        except AlreadySavedError as found:
            return found.saved
        except (KlingError, OSError) as error:
            raise _not_saved(job, destination.path, error) from error

    async def _save(
        self,
        job: Job,
        url: str,
        destination: Destination[Any],
        emit: Emitter,
        *,
        index: int | None,
        digest: bool,
    ) -> SavedFile:
        """Fetch the video with a fetch slot, then flush it with a flush slot: a fetch does not wait for the disk.

        A video for an object store is uploaded with an upload slot, and a fetch waits for that: so there are at most
        twice as many partial files as fetch slots, and the uploads have a limit to their memory.
        """
        async with _HeldSlot(self._fetch_slots) as slot:
            # The wait for a slot does not count: a batch can be longer than the time that one download gets.
            timeout = self.api.retry.download_timeout
            ends_at = math.inf if timeout is None else self.api.clock.now() + timeout
            with anyio.CancelScope() as scope:
                if timeout is not None and destination.is_remote:
                    scope.deadline = anyio.current_time() + timeout + _LAST_ANSWER
                report = partial(_emit_size, emit, index, job.request_id) if emit else None
                retries = self.api.retries("store", emit, ends_at=ends_at)
                if (found := await destination.find(retries=retries)) is not None:
                    return found
                async with destination.open_partial(writer=self._writer, report=report) as partial_video:
                    retries = self.api.retries("store", emit, ends_at=ends_at)
                    while True:
                        await self._fetch_from_current_url(job, url, partial_video, emit, ends_at=ends_at)
                        await slot.move_to(self._upload_slots if destination.is_remote else self._flush_slots)
                        saved = await self._publish(
                            destination, partial_video, digest=digest, retries=retries
                        )
                        if saved is not None:
                            return saved
            raise DownloadError(
                f"the store did not answer before the end of the download, by its download_timeout of {timeout:,g} s"
            )

    async def _publish(
        self, destination: Destination[Any], partial_video: PartialVideo, *, digest: bool, retries: Retries
    ) -> SavedFile | None:
        """The published video; None if its bytes are gone, and can be fetched again."""
        try:
            return await destination.publish(
                partial_video, digest=digest, retries=retries, limiter=self._threads
            )
        except KlingError as error:
            if partial_video.size:
                raise
            return await _find_or_wait(destination, error, retries)

    async def _fetch_from_current_url(
        self, job: Job, url: str, partial_video: PartialVideo, emit: Emitter, *, ends_at: float
    ) -> None:
        """Fetch the video; if its URL is no longer valid, ask the service once for the current URL."""
        try:
            await self._fetch_until_whole(url, partial_video, emit, ends_at=ends_at)
        except APIStatusError as error:
            fresh = await self._find_current_url(job, ends_at) if error.status_code in _GONE else None
            if fresh is None or fresh == url:
                raise
            await self._fetch_until_whole(fresh, partial_video, emit, ends_at=ends_at)

    async def _find_current_url(self, job: Job, ends_at: float) -> str | None:
        """The URL that the service gives for the video now; None if it gives none."""
        within = ends_at - self.api.clock.now()
        with suppress(KlingError):  # the caller gets the error of the first URL
            return (await self.api.send(STATUS, structure_job, id=job.request_id, within=within)).video_url
        return None

    async def _fetch_until_whole(
        self, url: str, partial_video: PartialVideo, emit: Emitter, *, ends_at: float
    ) -> None:
        """Fetch the missing bytes; tries that bring a good part of them reset the count of retries.

        After the clock's time `ends_at` no try goes on, and none is waited for.
        """
        retries = self.api.retries("download", emit, ends_at=ends_at)
        furthest = partial_video.size
        while True:
            try:
                await fetch(self.api, url, partial_video, ends_at=ends_at)
            except KlingError as error:
                version = partial_video.version
                total = version.size_bytes if version is not None else None
                if is_progress(partial_video.size - furthest, size_bytes=total):
                    retries.attempt, furthest = 0, partial_video.size
                if self.api.clock.now() >= ends_at:
                    raise
                await retries.wait_or_raise(error)
            else:
                return


async def _find_or_wait(
    destination: Destination[Any], error: KlingError, retries: Retries
) -> SavedFile | None:
    """The video, if the store has it and only its answer was lost; else None, when its bytes can be fetched again.

    Raises:
        KlingError: The store does not have it, and the policy allows no further try.
    """
    if (found := await destination.find(retries=retries)) is not None:
        return found
    await retries.wait_or_raise(error)
    return await destination.find(retries=retries)


def _emit_size(
    emit: Emitter, index: int | None, request_id: str, size_bytes: int, total_bytes: int | None
) -> None:
    emit(Downloading, index=index, request_id=request_id, size_bytes=size_bytes, total_bytes=total_bytes)


def _not_saved(
    job: Job, path: str | os.PathLike[str], error: KlingError | OSError | ValueError
) -> DownloadError:
    return DownloadError(
        f"The video of job {job.request_id} was not saved to {os.fspath(path)!r}: {_reason(error)}. "
        "It is paid for and still at the service.",
        advice=f"`await client.download({job.request_id!r}, ...)` tries again.",
        request_id=job.request_id,
        status_code=getattr(error, "status_code", None),
        job=job,
    )


def _reason(error: KlingError | OSError | ValueError) -> str:
    if isinstance(error, KlingError):
        return error.message.rstrip(".")
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or type(error).__name__
    return f"{reason} ({os.fspath(error.filename)!r})" if error.filename is not None else reason
