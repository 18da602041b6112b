"""Opens a file beside the destination that only one download can write, and that a later process can continue or remove."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

import attrs

from kling_async._own_files import create, for_owner_alone, open_own
from kling_async._policy.file_names import first_partial_name, partial_name
from kling_async._policy.http_ranges import FileVersion, dump, load
from kling_async.jobs import canonical_id

_MAX_NAMES = 1000
_FREE_NAMES = 3
"""The search for all partial files of a video ends after so many names that no file has.

A download takes the second name only while another one has the first, and so on: a gap is no longer than there were downloads
of the video at the same time.
"""
_MAX_NOTE_CHARACTERS = 16 * 1024
_MODE_OF_OURS = 0o600


@attrs.frozen
class LockedFile:
    """A partial file, open and locked for exclusive use; its note beside it says of which version its bytes are."""

    file: io.FileIO
    path: Path
    is_locked: bool
    """False if the system has no locks: then only a file that this call made is safe to write."""

    @property
    def note_path(self) -> Path:
        """The path of the note."""
        return _note_path(self.path)

    def read_note(self) -> FileVersion | None:
        """The version that the note describes; None if there is no note of ours, or it cannot be read."""
        return _read_note(self.note_path)

    def can_be_removed(self, request_id: str, *, saved: Path) -> bool:
        """Whether this is a file of this job, which needs none any more, for its video is saved: by the note, or without one.

        A file without a note is the job's if it is new, or if it has the size of the saved video: the note is removed just
        before the whole file gets its name. With a note that cannot be read, it can be another job's.
        """
        if (note := self.read_note()) is not None:
            return canonical_id(note.request_id) == canonical_id(request_id)
        if self._is_new:
            return True
        return not _size_of(self.note_path) and os.fstat(self.file.fileno()).st_size == _size_of(saved)

    @property
    def can_be_written(self) -> bool:
        """Whether a download of any job left the file; browsers and others name theirs so, too, and can lock none.

        The note says so, which is written before the first byte. Its mode does not: under umask 077 each file has that one. So
        a file with bytes and without a note is not written, whatever its size is.
        """
        return self._is_new or self.read_note() is not None

    @property
    def _is_new(self) -> bool:
        """Whether the file is as `create` makes it: a kill before the first byte leaves it so, without a note."""
        state = os.fstat(self.file.fileno())
        return state.st_size == 0 and stat.S_IMODE(state.st_mode) == _MODE_OF_OURS

    def write_note(self, version: FileVersion | None) -> bool:
        """Write the note by which a later process knows the file, and resumes; the file is empty. Whether there is a note now.

        Without a note the bytes that come are of no use to the next run, which begins again in another file.
        """
        with suppress(OSError):
            self.note_path.unlink(missing_ok=True)
            if self.is_locked and version is not None:
                with _new_file(self.note_path) as note:
                    note.write(dump(version))
                return True
        return False

    def remove(self) -> None:
        """Remove the note and then the file, which is empty by then: so it is known also after a kill between the two.

        A file that has another name, too or by now, is not emptied: it can be the saved video.
        """
        if self.is_locked:
            with suppress(OSError):
                if os.fstat(self.file.fileno()).st_nlink == 1 and is_at(self.file, self.path):
                    self.file.truncate(0)
        for path in (self.note_path, self.path):
            with suppress(OSError):  # another user's file of this name
                path.unlink(missing_ok=True)


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A new file, open for writing, which is removed again if it cannot be written."""
    with open(path, "x", opener=for_owner_alone) as file, ExitStack() as on_error:
        on_error.callback(path.unlink)
        yield file
        file.flush()
        on_error.pop_all()


def open_locked(path: Path) -> LockedFile:
    """Open and lock the first of `NAME.part`, `NAME.2.part` and so on that is free or ours; a missing file is made.

    See `partial_name` and `_own_files`.

    Raises:
        OSError: The folder takes no file of that name.
    """
    for number in range(1, _MAX_NAMES):
        locked_file = _try_open_locked(path.with_name(partial_name(path.name, number)))
        if locked_file is not None:
            return locked_file
    raise FileExistsError(errno.EEXIST, "all names for its partial file are taken", os.fspath(path))


def remove_partial_files(path: Path, *, request_id: str) -> None:
    """Remove the partial files of a saved video that no process writes any more; it blocks.

    The lock of a file says whether a process writes the file, also on another machine if the file system shares locks.
    Without locks nothing is removed. A file whose note names another job can be of another video with the same name, and
    stays. `LockedFile.can_be_removed` decides whether a file is of this job.

    Args:
        path: The destination, beside which the files lie.
        request_id: The job.
    """
    number = free_names = 0
    while free_names < _FREE_NAMES:
        number += 1
        partial_path = path.with_name(partial_name(path.name, number))
        if not os.path.lexists(partial_path):
            free_names += 1
            continue
        _remove_if_left(partial_path, request_id, saved=path)


@attrs.frozen
class PartialFiles:
    """The partial files that were in a folder at one moment: a look at each video would find no other of its job."""

    _by_job: Mapping[str, Sequence[Path]]
    """By the id of the job that its note names, each file with such a note."""
    _by_name: Mapping[str, Sequence[Path]]
    """By the first name that its download could take, each file."""

    @classmethod
    def find(cls, folder: Path) -> PartialFiles:
        """Those of a folder; it blocks."""
        by_job, by_name = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
        with suppress(OSError), os.scandir(folder) as entries:
            for name in [entry.name for entry in entries if entry.name.endswith(".part")]:
                path = folder / name
                by_name[first_partial_name(name)].append(path)
                if (note := _read_note(_note_path(path))) is not None:
                    by_job[canonical_id(note.request_id)].append(path)
        return cls(by_job, by_name)

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def remove_left(self, path: Path, *, names: Iterable[str], request_id: str) -> None:
        """Remove those of a saved video that no process writes any more; it blocks. See `remove_partial_files`.

        Args:
            path: Where the video is.
            names: The names that the downloads of the video could take, which says of a file without a note whose it is.
            request_id: The job.
        """
        found = set(self._by_job.get(canonical_id(request_id), ()))
        for name in names:
            found.update(self._by_name.get(first_partial_name(partial_name(name)), ()))
        for partial_path in found:
            _remove_if_left(partial_path, request_id, saved=path)


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_note(path: Path) -> FileVersion | None:
    try:
        descriptor = open_own(path)
        if descriptor is None:
            return None
        with os.fdopen(descriptor) as note:
            return load(note.read(_MAX_NOTE_CHARACTERS))
    except (OSError, ValueError):
        return None


def _remove_if_left(path: Path, request_id: str, *, saved: Path) -> None:
    with suppress(OSError):  # the video is saved; a later run tries again
        locked_file = _try_lock(path, open_own(path), is_new=False)
        if locked_file is None:
            return
        if locked_file.can_be_removed(request_id, saved=saved):
            locked_file.remove()
        locked_file.file.close()


def _size_of(path: Path) -> int | None:
    """The size of a file, itself no link; None if there is none."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _try_open_locked(path: Path) -> LockedFile | None:
    """The file, open and locked; None if another download uses or has just finished it, or if it is not ours."""
    descriptor = create(path)
    if descriptor is not None:
        return _try_lock(path, descriptor, is_new=True)
    locked_file = _try_lock(path, open_own(path), is_new=False)
    if locked_file is not None and not locked_file.can_be_written:
        locked_file.file.close()
        return None
    return locked_file


def _try_lock(path: Path, descriptor: int | None, *, is_new: bool) -> LockedFile | None:
    if descriptor is None:
        return None
    file = io.FileIO(descriptor, "r+b")
    is_locked = _lock(file)
    if (is_locked and is_at(file, path)) or (is_locked is None and is_new):
        return LockedFile(file, path, bool(is_locked))
    file.close()
    return None


def _lock(file: io.FileIO) -> bool | None:
    """Lock the file until it is closed or the process ends; False if another process has the lock, None without locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def is_at(file: io.FileIO, path: Path) -> bool:
    """Whether the path still names the file: the former owner of the lock, or another user, may have renamed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
