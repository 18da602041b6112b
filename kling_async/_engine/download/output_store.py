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
from kling_async._engine.descriptors import run_in_thread
from kling_async._engine.download.destination import SavedFile
from kling_async._engine.download.output_folder import try_name
from kling_async._engine.download.partial_file import AdaptiveWriter, PartialFile, Report, open_partial
from kling_async._journal.entry import Entry
from kling_async._policy.file_names import file_name, longest_name, name_beside
from kling_async._policy.object_stores import Name, judge_name, owner_of
from kling_async._stores import Bucket
from kling_async.errors import APIConnectionError, ConfigurationError, DownloadError, KlingError
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl

_log = SafeLogger("kling_async")

_OWNER_ONLY = 0o700
_PROBE = b"kling_async tests whether it may write here; you can delete this object"


@attrs.frozen
class ObjectDestination:
    """The object of one video."""

    bucket: Bucket
    path: ObjectUrl
    is_remote: bool = attrs.field(default=True, init=False)

    async def find(self, job: Job, *, retries: Retries) -> SavedFile | None:
        """The video, if an earlier run stored it and could not record that any more.

        Raises:
            KlingError: The store does not answer, or other objects have the names.
        """
        place = await retries.run(partial(self._choose, job))
        return place if isinstance(place, SavedFile) else None

    def open_partial(
        self, job: Job, *, writer: AdaptiveWriter, report: Report | None
    ) -> AbstractAsyncContextManager[PartialFile]:
        """The partial file, in a folder of ours in the folder for temporary files."""
        path = partial_folder() / file_name(job.request_id)
        return open_partial(path, request_id=job.request_id, writer=writer, report=report)

    async def publish(
        self,
        job: Job,
        partial_file: PartialFile,
        *,
        digest: bool,  # noqa: ARG002 - the store keeps it in any case
        retries: Retries,
        limiter: anyio.CapacityLimiter,
    ) -> SavedFile:
        """Store the whole video, and remove the file."""
        sha256 = await anyio.to_thread.run_sync(partial_file.sha256, limiter=limiter)
        saved = await retries.run(partial(self._put, job, partial_file, sha256))
        await partial_file.truncate()  # an empty partial file is removed when it is closed
        return saved

    async def _put(self, job: Job, partial_file: PartialFile, sha256: str) -> SavedFile:
        place = await self._choose(job)
        if isinstance(place, SavedFile):
            return place
        is_stored = await self.bucket.put(
            place.key,
            partial_file.file_path,
            size_bytes=partial_file.size,
            owner=owner_of(job.request_id),
            sha256=sha256,
        )
        if not is_stored:
            # Another program has taken it meanwhile, or an earlier try succeeded and its answer was lost.
            raise APIConnectionError(f"another object has just taken the name {str(place)!r}")
        return SavedFile(place, partial_file.size, sha256)

    async def _choose(self, job: Job) -> SavedFile | ObjectUrl:
        """The stored video of the job, or the free name for it."""
        for url in (self.path, self.path.with_name(name_beside(self.path.name, job.request_id))):
            found = await self.bucket.find(url.key)
            name = judge_name(found, owner=owner_of(job.request_id))
            if name is Name.FREE:
                return url
            if found is not None and name is Name.OURS:
                return SavedFile(url, found.size_bytes, found.sha256)
        raise DownloadError(f"other objects have that name and {url.name!r}")


@attrs.frozen
class ObjectPrefix:
    """A prefix for videos in a bucket, which takes objects."""

    bucket: Bucket
    url: ObjectUrl
    has_ascii_names: bool = False

    def destination_for(
        self, job: Job, *, prompt: str | None = None, index: int | None = None
    ) -> ObjectDestination:
        """The object of a job's video; see `OutputFolder.path_for`."""
        prompt = (job.prompt or "") if prompt is None else prompt
        name = file_name(job.request_id, prompt=prompt, index=index, is_ascii=self.has_ascii_names)
        return ObjectDestination(self.bucket, self.url.child(name))

    async def find_saved(self, entry: Entry) -> ObjectUrl | None:
        """The object that an earlier run stored, if it is there with its size; None if the store does not answer."""
        if entry.path is None:
            return None
        url = self.url.child(Path(entry.path).name)
        with suppress(KlingError):  # then the item is stored again, which names the reason if that fails too
            found = await self.bucket.find(url.key)
            if found is not None and found.size_bytes == entry.size_bytes:
                return url
        return None


async def check_store(bucket: Bucket, url: ObjectUrl) -> None:
    """Do nothing if objects can be made, read and removed below a prefix, and partial files on this machine.

    Raises:
        ConfigurationError: They cannot.
    """
    try:
        await run_in_thread(partial(_try_partial_folder))
    except OSError as error:
        raise ConfigurationError(
            f"Videos for {str(url)!r} cannot pass through {tempfile.gettempdir()!r}: {error.strerror or error}. "
            "Set TMPDIR to another folder."
        ) from error
    try:
        await _probe(bucket, url.child(f".kling_async-probe-{secrets.token_hex(8)}"))
    except KlingError as error:
        raise ConfigurationError(
            f"Videos cannot be stored in {str(url)!r}: {error.message}. Nothing was sent to the service."
        ) from error


async def _probe(bucket: Bucket, probe: ObjectUrl) -> None:
    """Do all that storing a video does, with an object of a few bytes."""
    await bucket.put(probe.key, _PROBE, size_bytes=len(_PROBE))
    try:
        await bucket.find(probe.key)
    finally:
        try:
            await bucket.delete(probe.key)
        except DownloadError as error:
            _log.warning("The probe %r stays in the store: %s.", str(probe), error.message)
    # Without the right to list a bucket, S3 answers about a missing object that the caller may not read it.
    await bucket.find(probe.key)


def partial_folder() -> Path:
    """The folder for the partial files of videos on their way to a store: this user's, in that for temporary files.

    Raises:
        OSError: It cannot be made, or belongs to another user.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir(), f"kling_async-{user}")
    with suppress(FileExistsError):
        folder.mkdir(mode=_OWNER_ONLY)
    status = folder.lstat()
    is_safe = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    if not stat.S_ISDIR(status.st_mode) or not is_safe:
        raise PermissionError(1, f"{folder.name!r} in it is not a folder of this user alone")
    return folder


def _try_partial_folder() -> None:
    try_name(partial_folder(), longest_name(is_ascii=True))
