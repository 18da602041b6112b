"""Where a video is saved: a folder that was tried before anything is paid for, or the file that the caller names."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.api import Retries
from kling_async._engine.download.destination import SavedFile
from kling_async._engine.download.file_lock import PartialFiles, remove_partial_files
from kling_async._engine.download.partial_file import (
    AdaptiveWriter,
    PartialFile,
    open_partial,
    sha256_of,
)
from kling_async._engine.download.partial_video import Report
from kling_async._engine.threads import run_in_thread
from kling_async._journal.entry import Entry
from kling_async._policy.file_names import file_name, longest_name, longest_name_of, names_beside, unique_name
from kling_async.errors import ConfigurationError
from kling_async.jobs import Job
from kling_async.lines import reason_of

_TEMPORARY_CHARACTERS = 8
"""Characters that `tempfile` adds to the beginning of a name."""
_TRIAL_BYTES = 4096
"""On a full disk a file can be made and not be filled."""


@attrs.define
class _LeftFiles:
    """The partial files that were in a folder when a batch first found a saved video there: a folder is read once."""

    _files: PartialFiles | None = None
    _lock: anyio.Lock = attrs.field(factory=partial(anyio.Lock, fast_acquire=True))

    async def find(self, folder: Path) -> PartialFiles:
        """The partial files of the folder."""
        async with self._lock:
            if self._files is None:
                self._files = await run_in_thread(partial(PartialFiles.find, folder))
            return self._files


@attrs.frozen
class OutputFolder:
    """A folder for videos, which exists and takes their names."""

    path: Path
    has_ascii_names: bool
    """Whether names have ASCII letters and digits only: the caller wants it, or the file system takes no others."""
    _left: _LeftFiles = attrs.field(init=False, repr=False, eq=False, factory=_LeftFiles)

    @classmethod
    def make(cls, path: Path, *, ascii_names: bool) -> OutputFolder:
        """The folder, made if it is missing, after a trial file with the longest name was written and removed; it blocks.

        Raises:
            OSError: The folder cannot be made, or takes no file with such a name.
            ValueError: No folder can have this name.
        """
        path.mkdir(parents=True, exist_ok=True)
        if not ascii_names:
            try:
                try_name(path, longest_name(is_ascii=False))
            except (OSError, UnicodeEncodeError):
                ascii_names = True
            else:
                return cls(path, has_ascii_names=False)
        try_name(path, longest_name(is_ascii=True))
        return cls(path, has_ascii_names=True)

    def path_for(self, job: Job, *, prompt: str | None = None, index: int | None = None) -> Path:
        """The path of a job's video.

        Args:
            job: The job.
            prompt: The prompt; None for that of the job's record.
            index: The item's index in its batch; None outside a batch.
        """
        prompt = (job.prompt or "") if prompt is None else prompt
        name = file_name(job.request_id, prompt=prompt, index=index, is_ascii=self.has_ascii_names)
        return self.path / name

    def destination_for(
        self, job: Job, *, prompt: str | None = None, index: int | None = None
    ) -> FileDestination:
        """The file of a job's video; see `path_for`."""
        own = self.path / unique_name(job.request_id, index=index)
        return FileDestination(self.path_for(job, prompt=prompt, index=index), job.request_id, (own,))

    async def find_saved(self, entry: Entry) -> Path | None:
        """The file that an earlier run saved, if it is whole; removes what dead processes left of its downloads."""
        path = saved_file(entry, self.path)
        if path is not None and (left := await self._left.find(self.path)):
            assert entry.job is not None, "only a job has a video"
            names = {path.name, self.path_for(entry.job, index=entry.index).name}
            await run_in_thread(partial(left.remove_left, path, names=names, request_id=entry.job.request_id))
        return path


def saved_file(entry: Entry, folder: Path | None) -> Path | None:
    """The path of the video that an earlier run saved, if the file is whole: in `folder` if given, else where it was saved.

    It blocks for one look at the file.
    """
    if entry.path is None:
        return None
    path = Path(entry.path)
    if folder is not None:
        path = folder / path.name  # the folder may have moved
    return path if is_whole(path, size_bytes=entry.size_bytes) else None


def is_whole(path: Path, *, size_bytes: int | None, sha256: str | None = None) -> bool:
    """Whether a file exists with this size, and with this digest if one is given.

    It blocks; with a digest, for as long as it takes to read the file.
    """
    try:
        return path.stat().st_size == size_bytes and (sha256 is None or sha256_of(path) == sha256)
    except OSError:
        return False


def try_name(folder: Path, name: str) -> None:
    """Write and remove a trial file with a name of the same length; it blocks.

    Raises:
        OSError: The folder takes no such file.
    """
    descriptor, trial = tempfile.mkstemp(prefix=name[:-_TEMPORARY_CHARACTERS], dir=folder)
    try:
        os.write(descriptor, bytes(_TRIAL_BYTES))
    finally:
        os.close(descriptor)
        Path(trial).unlink()


async def open_folder(path: Path, *, ascii_names: bool = False) -> OutputFolder:
    """The folder of a batch; called before the first POST.

    Raises:
        ConfigurationError: Videos cannot be saved in the folder.
    """
    try:
        return await _make_in_thread(path, ascii_names=ascii_names)
    except (OSError, ValueError) as error:
        raise _refusal("Videos cannot be saved in", path, error, noun="folder") from error


def _refusal(
    sentence: str, path: Path, error: OSError | ValueError, *, noun: Literal["file", "folder"]
) -> ConfigurationError:
    reason = reason_of(error)
    is_too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    choice = f"a {noun} with a shorter path" if is_too_long else f"another {noun}"
    return ConfigurationError(f"{sentence} {os.fspath(path)!r}: {reason}. Choose {choice}.")


async def _make_in_thread(path: Path, *, ascii_names: bool) -> OutputFolder:
    return await run_in_thread(partial(OutputFolder.make, path, ascii_names=ascii_names))


@attrs.frozen
class FileDestination:
    """The file of one video."""

    path: Path
    request_id: str
    """The id of the video's job."""
    fallbacks: tuple[Path, ...] = ()
    """Where it is saved if other files have that path, and then the first of these; the last one belongs to the job."""

    is_remote: bool = attrs.field(default=False, init=False)

    async def find(self, *, retries: Retries) -> SavedFile | None:  # noqa: ARG002 - see `Destination`
        """None: a file of this name can be another version of the video."""
        return None

    def open_partial(
        self, *, writer: AdaptiveWriter, report: Report | None
    ) -> AbstractAsyncContextManager[PartialFile]:
        """The partial file beside the destination."""
        return open_partial(
            self.path, fallbacks=self.fallbacks, request_id=self.request_id, writer=writer, report=report
        )

    async def publish(
        self,
        partial_video: PartialFile,
        *,
        digest: bool,
        retries: Retries,  # noqa: ARG002 - see `Destination`
        limiter: anyio.CapacityLimiter,
    ) -> SavedFile:
        """Flush the file to the disk, rename it, and remove what dead processes left of other downloads of the job."""

        def commit() -> str | None:
            sha256 = partial_video.commit(digest=digest)
            remove_partial_files(self.path, request_id=self.request_id)
            return sha256

        sha256 = await anyio.to_thread.run_sync(commit, limiter=limiter)
        return SavedFile(partial_video.path, partial_video.size, sha256)


async def choose_file(path: Path, *, is_folder: bool, job: Job, ascii_names: bool) -> FileDestination:
    """The file that the caller names, or a file in the folder that the caller names.

    Raises:
        OSError: The folder cannot be made, or takes no file.
        ValueError: No folder can have this name.
    """
    if not is_folder:
        beside = names_beside(path.name, job.request_id)
        return FileDestination(path, job.request_id, tuple(path.with_name(name) for name in beside))
    folder = await _make_in_thread(path, ascii_names=ascii_names)
    return folder.destination_for(job)


async def check_file(path: Path) -> None:
    """Do nothing if a video can be saved to this file.

    Raises:
        ConfigurationError: None can.
    """
    try:
        await run_in_thread(partial(_try_file, path))
    except (OSError, ValueError) as error:
        raise _refusal("The video cannot be saved to", path, error, noun="file") from error


def _try_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try_name(path.parent, longest_name_of(path.name))
