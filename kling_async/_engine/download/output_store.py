"""Videos in an object store: a whole, checked file on this machine is sent, and removed when the store has it."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from kling_async._callbacks import SafeLogger
from kling_async._engine.api import Retries
from kling_async._engine.download.destination import AlreadySavedError, SavedFile
from kling_async._engine.download.file_lock import remove_partial_files
from kling_async._engine.download.output_folder import try_name
from kling_async._engine.download.partial_file import AdaptiveWriter, PartialFile, open_partial
from kling_async._engine.download.partial_video import Report
from kling_async._engine.download.streamed_video import StreamedVideo, open_streamed
from kling_async._engine.threads import run_in_thread
from kling_async._journal.entry import Entry
from kling_async._policy.file_names import file_name, longest_name, names_beside
from kling_async._policy.object_stores import Name, job_mark, judge_name
from kling_async._stores import Bucket, ObjectWriter
from kling_async.errors import APIConnectionError, ConfigurationError, DownloadError, KlingError
from kling_async.jobs import Job
from kling_async.lines import reason_of
from kling_async.paths import ObjectUrl

_log = SafeLogger("kling_async")

_OWNER_ONLY = 0o700
_PROBE = b"kling_async tests whether it may write here; you can delete this object"


@attrs.frozen
class ObjectDestination:
    """The object of one video."""

    bucket: Bucket
    path: ObjectUrl
    request_id: str
    """The id of the video's job."""
    is_remote: bool = attrs.field(default=True, init=False)

    async def find(self, *, retries: Retries) -> SavedFile | None:
        """The video, if an earlier run stored it and could not record that any more.

        Raises:
            KlingError: The store does not answer, or other objects have the names.
        """
        place = await retries.run(partial(_choose, self.bucket, self.path, self.request_id))
        if not isinstance(place, SavedFile):
            return None
        await _remove_partial_files(self.request_id)
        return place

    def open_partial(
        self, *, writer: AdaptiveWriter, report: Report | None
    ) -> AbstractAsyncContextManager[PartialFile]:
        """The partial file, in a folder of ours in the folder for temporary files."""
        return open_partial(
            _partial_path(self.request_id), request_id=self.request_id, writer=writer, report=report
        )

    async def publish(
        self,
        partial_video: PartialFile,
        *,
        digest: bool,  # noqa: ARG002 - the store keeps it in any case
        retries: Retries,
        limiter: anyio.CapacityLimiter,
    ) -> SavedFile:
        """Store the whole video, and remove the file, also those that dead processes left of other downloads of the job."""
        sha256 = await anyio.to_thread.run_sync(partial_video.sha256, limiter=limiter)
        content, size_bytes = partial_video.file_path, partial_video.size
        put = partial(
            _put, self.bucket, self.path, self.request_id, content, size_bytes=size_bytes, sha256=sha256
        )
        saved = await retries.run(put)
        await partial_video.truncate()  # an empty partial file is removed when it is closed
        await _remove_partial_files(self.request_id)
        return saved


@attrs.frozen
class StreamedDestination:
    """The object of one video, which is sent while it comes."""

    bucket: Bucket
    path: ObjectUrl
    request_id: str
    """The id of the video's job."""
    is_remote: bool = attrs.field(default=True, init=False)

    async def find(self, *, retries: Retries) -> SavedFile | None:
        """The video, as `ObjectDestination.find` finds it."""
        return await ObjectDestination(self.bucket, self.path, self.request_id).find(retries=retries)

    def open_partial(
        self,
        *,
        writer: AdaptiveWriter,  # noqa: ARG002 - see `Destination`
        report: Report | None,
    ) -> AbstractAsyncContextManager[StreamedVideo]:
        """The video in memory, and in the parts of an upload."""
        return open_streamed(self.request_id, open_writer=self._open_writer, report=report)

    async def _open_writer(self) -> ObjectWriter:
        place = await _choose(self.bucket, self.path, self.request_id)
        if isinstance(place, SavedFile):
            raise AlreadySavedError(place)
        return self.bucket.open_writer(place.key, mark=job_mark(self.request_id))

    async def publish(
        self,
        partial_video: StreamedVideo,
        *,
        digest: bool,  # noqa: ARG002 - the store keeps it in any case
        retries: Retries,
        limiter: anyio.CapacityLimiter,
    ) -> SavedFile:
        """Store the whole video; a large one is there but for its end."""
        sha256 = await anyio.to_thread.run_sync(partial_video.sha256, limiter=limiter)
        size_bytes = partial_video.size
        if partial_video.writer is None:
            content = partial_video.content
            put = partial(
                _put, self.bucket, self.path, self.request_id, content, size_bytes=size_bytes, sha256=sha256
            )
            return await retries.run(put)
        place = await retries.run(partial(_choose, self.bucket, self.path, self.request_id))
        if isinstance(place, SavedFile):
            return place
        if place.key != partial_video.writer.key:
            raise _make_conflict(self.path)
        await partial_video.complete()
        return SavedFile(place, size_bytes, sha256)


async def _put(
    bucket: Bucket, path: ObjectUrl, request_id: str, content: Path | bytes, *, size_bytes: int, sha256: str
) -> SavedFile:
    """Store a whole video under the name for it."""
    place = await _choose(bucket, path, request_id)
    if isinstance(place, SavedFile):
        return place
    mark = job_mark(request_id)
    if not await bucket.put(place.key, content, size_bytes=size_bytes, mark=mark, sha256=sha256):
        # Another program has taken it meanwhile, or an earlier try succeeded and its answer was lost.
        raise _make_conflict(place)
    return SavedFile(place, size_bytes, sha256)


async def _choose(bucket: Bucket, path: ObjectUrl, request_id: str) -> SavedFile | ObjectUrl:
    """The stored video of the job, or the free name for it."""
    urls = [path, *map(path.with_name, names_beside(path.name, request_id))]
    for url in urls:
        found = await bucket.find(url.key)
        name = judge_name(found, mark=job_mark(request_id))
        if name is Name.FREE:
            return url
        if found is not None and name is Name.OURS:
            return SavedFile(url, found.size_bytes, found.sha256)
    raise DownloadError(f"other objects have that name and {urls[-1].name!r}")


def _make_conflict(place: ObjectUrl) -> APIConnectionError:
    return APIConnectionError(f"another object has just taken the name {str(place)!r}")


@attrs.frozen
class ObjectPrefix:
    """A prefix for videos in a bucket, which takes objects."""

    bucket: Bucket
    url: ObjectUrl
    has_ascii_names: bool = False
    is_streamed: bool = False
    """Whether videos are sent while they come."""

    def destination_for(
        self, job: Job, *, prompt: str | None = None, index: int | None = None
    ) -> ObjectDestination | StreamedDestination:
        """The object of a job's video; see `OutputFolder.path_for`."""
        prompt = (job.prompt or "") if prompt is None else prompt
        name = file_name(job.request_id, prompt=prompt, index=index, is_ascii=self.has_ascii_names)
        kind = StreamedDestination if self.is_streamed else ObjectDestination
        return kind(self.bucket, self.url.child(name), job.request_id)

    async def find_saved(self, entry: Entry) -> ObjectUrl | None:
        """The object that an earlier run stored, if it is there with its size; None if the store does not answer."""
        if entry.path is None:
            return None
        url = self.url.child(Path(entry.path).name)
        with suppress(KlingError):  # then the item is stored again, which names the reason if that fails too
            found = await self.bucket.find(url.key)
            if found is not None and found.size_bytes == entry.size_bytes:
                assert entry.request_id is not None, "only a job has a video"
                await _remove_partial_files(entry.request_id)
                return url
        return None


async def check_store(bucket: Bucket, url: ObjectUrl, *, uses_disk: bool = True) -> None:
    """Do nothing if objects can be made, read and removed below a prefix, and partial files on this machine if they are used.

    Raises:
        ConfigurationError: They cannot.
    """
    try:
        if uses_disk:
            await run_in_thread(_try_partial_folder)
    except OSError as error:
        raise ConfigurationError(
            f"Videos for {str(url)!r} cannot pass through {tempfile.gettempdir()!r}: {reason_of(error)}. "
            "Set TMPDIR to another folder."
        ) from error
    try:
        await _probe(bucket, url)
    except KlingError as error:
        raise ConfigurationError(
            f"Videos cannot be stored in {str(url)!r}: {error.message}. Nothing was sent to the service."
        ) from error


async def _probe(bucket: Bucket, url: ObjectUrl) -> None:
    """Do all that storing a video below a prefix does, with an object of a few bytes."""
    prefix = url.rstrip("/")
    probe = bucket.left_probes.get(prefix) or url.child(f".kling_async-probe-{secrets.token_hex(8)}")
    await bucket.put(probe.key, _PROBE, size_bytes=len(_PROBE))
    try:
        await bucket.find(probe.key)
    finally:
        try:
            await bucket.delete(probe.key)
        except DownloadError as error:
            if prefix not in bucket.left_probes:
                bucket.left_probes[prefix] = probe
                _log.warning("The probe %r stays in the store: %s.", str(probe), error.message)
    # Without the right to list a bucket, S3 answers about a missing object that the caller may not read it.
    await bucket.find(probe.key)


def partial_folder() -> Path:
    """The folder for the partial files of videos on their way to a store: this user's, in that for temporary files.

    Raises:
        OSError: It cannot be made, or belongs to another user.
    """
    folder = _partial_folder_path()
    with suppress(FileExistsError):
        folder.mkdir(mode=_OWNER_ONLY)
    status = folder.lstat()
    is_safe = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    if not stat.S_ISDIR(status.st_mode) or not is_safe:
        raise PermissionError(1, f"{folder.name!r} in it is not a folder of this user alone")
    return folder


def _partial_folder_path() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir(), f"kling_async-{user}")


def _partial_path(request_id: str) -> Path:
    """The file of this machine beside which the partial files of a job's video lie."""
    return partial_folder() / file_name(request_id)


async def _remove_partial_files(request_id: str) -> None:
    """Remove what dead processes left of a job's video, in a thread; a batch that uses no disk makes no folder for that."""

    def remove() -> None:
        if os.path.lexists(_partial_folder_path()):
            remove_partial_files(_partial_path(request_id), request_id=request_id)

    with suppress(OSError):  # no folder of ours
        await run_in_thread(remove)


def _try_partial_folder() -> None:
    try_name(partial_folder(), longest_name(is_ascii=True))
