"""Where a video is saved: a folder that was tried before anything is paid for, or the file that the caller names."""

from __future__ import annotations

import errno
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.to_thread
import attrs

from kling_async._engine.descriptors import run_in_thread
from kling_async._policy.file_names import file_name, longest_name, longest_name_of, name_beside
from kling_async.errors import ConfigurationError
from kling_async.jobs import Job
from kling_async.paths import local_path

_TEMPORARY_CHARACTERS = 8
"""Characters that `tempfile` adds to the beginning of a name."""
_TRIAL_BYTES = 4096
"""On a full disk a file can be made and not be filled."""


@attrs.frozen
class OutputFolder:
    """A folder for videos, which exists and takes their names."""

    path: Path
    has_ascii_names: bool
    """Whether names have ASCII letters and digits only: the caller wants it, or the file system takes no others."""

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
                _try_name(path, longest_name(is_ascii=False))
            except (OSError, UnicodeEncodeError):
                ascii_names = True
            else:
                return cls(path, has_ascii_names=False)
        _try_name(path, longest_name(is_ascii=True))
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


def _try_name(folder: Path, name: str) -> None:
    """Write and remove a trial file with a name of the same length."""
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
    reason = getattr(error, "strerror", None) or str(error)
    is_too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    choice = f"a {noun} with a shorter path" if is_too_long else f"another {noun}"
    return ConfigurationError(f"{sentence} {os.fspath(path)!r}: {reason}. Choose {choice}.")


async def _make_in_thread(path: Path, *, ascii_names: bool) -> OutputFolder:
    return await run_in_thread(partial(OutputFolder.make, path, ascii_names=ascii_names))


@attrs.frozen
class Destination:
    """Where one video is saved."""

    path: Path
    fallback: Path | None = None
    """Where it is saved if another file has that path; None if the path belongs to the job."""


async def choose_destination(
    given: str | os.PathLike[str], job: Job, *, ascii_names: bool = False
) -> Destination:
    """The path that the caller names, or a path in the folder that the caller names.

    An existing folder is a folder, and so is a missing path that ends in a slash or has no suffix.

    Raises:
        ConfigurationError: It is no path on this machine.
        OSError: The folder cannot be made, or takes no file.
        ValueError: No folder can have this name.
    """
    path, is_folder = await _read_destination(given, name="destination")
    if not is_folder:
        return Destination(path, path.with_name(name_beside(path.name, job.request_id)))
    folder = await _make_in_thread(path, ascii_names=ascii_names)
    return Destination(folder.path_for(job))


async def check_destination(given: str | os.PathLike[str]) -> None:
    """Do nothing if a video can be saved to this file or into this folder; called before the POST.

    Raises:
        ConfigurationError: It is no path on this machine, or no video can be saved there.
    """
    path, is_folder = await _read_destination(given, name="output")
    if is_folder:
        await open_folder(path)
        return
    try:
        await run_in_thread(partial(_try_file, path))
    except (OSError, ValueError) as error:
        raise _refusal("The video cannot be saved to", path, error, noun="file") from error


def _try_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _try_name(path.parent, longest_name_of(path.name))


async def _read_destination(given: str | os.PathLike[str], *, name: str) -> tuple[Path, bool]:
    """The path that the caller names, and whether it is that of a folder."""
    text = local_path(given, name=name)
    path = Path(text)
    return path, text.endswith(("/", os.sep)) or await anyio.to_thread.run_sync(_is_folder, path)


def _is_folder(path: Path) -> bool:
    # `Path.is_dir` raises an error for a name that is too long.
    return os.path.isdir(path) or (not path.suffix and not os.path.lexists(path))  # noqa: PTH112
