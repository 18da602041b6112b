"""Opens the place that a caller names for videos: a folder or a file of this machine, or an object store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio.to_thread

from kling_async._engine.download.destination import Destination, Output
from kling_async._engine.download.output_folder import check_file, choose_file, open_folder
from kling_async._engine.download.output_store import ObjectDestination, ObjectPrefix, check_store
from kling_async._stores import Bucket, open_store
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl


class Outputs:
    """Opens places, and keeps one connection pool for each bucket."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}

    async def open(
        self, given: Path | ObjectUrl, *, ascii_names: bool = False, is_streamed: bool = False
    ) -> Output:
        """The place for the videos of a batch; called before the first POST.

        Args:
            given: The folder, or the prefix in an object store.
            ascii_names: Whether names have ASCII letters and digits only.
            is_streamed: Whether videos go to an object store without a file on this machine.

        Raises:
            ConfigurationError: Videos cannot be saved there.
        """
        if isinstance(given, Path):
            return await open_folder(given, ascii_names=ascii_names)
        bucket = self._bucket(given)
        await check_store(bucket, given, uses_disk=not is_streamed)
        return ObjectPrefix(bucket, given, has_ascii_names=ascii_names, is_streamed=is_streamed)

    async def choose(
        self, given: str | ObjectUrl, job: Job, *, ascii_names: bool = False
    ) -> Destination[Any]:
        """The file or object that the caller names, or one in the folder or below the prefix that the caller names.

        An existing folder is a folder, and so is a missing path that ends in a slash or has no suffix. A URL of an
        object store is a prefix if it ends in a slash or has no suffix.

        Raises:
            ConfigurationError: The store cannot be used.
            OSError: The folder cannot be made, or takes no file.
            ValueError: No folder can have this name.
        """
        if not isinstance(given, ObjectUrl):
            path, is_folder = await _read_path(given)
            return await choose_file(path, is_folder=is_folder, job=job, ascii_names=ascii_names)
        bucket = self._bucket(given)
        if given.is_prefix:
            return ObjectPrefix(bucket, given, has_ascii_names=ascii_names).destination_for(job)
        return ObjectDestination(bucket, given, job.request_id)

    async def check(self, given: str | ObjectUrl) -> None:
        """Do nothing if a video can be saved to this file or object, or in this folder; called before the POST.

        Raises:
            ConfigurationError: No video can be saved there.
        """
        if isinstance(given, ObjectUrl):
            await check_store(self._bucket(given), given if given.is_prefix else given.with_name(""))
            return
        path, is_folder = await _read_path(given)
        if is_folder:
            await open_folder(path)
        else:
            await check_file(path)

    def _bucket(self, url: ObjectUrl) -> Bucket:
        name = url.scheme, url.bucket
        if name not in self._buckets:
            self._buckets[name] = open_store(url)
        return self._buckets[name]


async def _read_path(text: str) -> tuple[Path, bool]:
    """The path, and whether it is that of a folder."""
    path = Path(text)
    return path, text.endswith(("/", os.sep)) or await anyio.to_thread.run_sync(_is_folder, path)


def _is_folder(path: Path) -> bool:
    # `Path.is_dir` raises an error for a name that is too long.
    return os.path.isdir(path) or (not path.suffix and not os.path.lexists(path))  # noqa: PTH112
