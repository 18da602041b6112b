"""A cache of encoded media with a size limit. Encoding runs in threads, outside the event loop."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary

import anyio.to_thread

from kling_async.emulator.media import Clip, encode_thumbnail, encode_video
from kling_async.emulator.storage import StoredFile

_ENCODERS: dict[str, tuple[str, Callable[[Clip], bytes]]] = {
    "mp4": ("video/mp4", encode_video),
    "jpg": ("image/jpeg", encode_thumbnail),
}

_MAX_ENCODERS = 2


class MediaCache:
    """Videos and thumbnails by clip. Concurrent calls for the same file encode it once."""

    def __init__(self, *, cache_bytes: int) -> None:
        self._cache_bytes = cache_bytes
        self._files: OrderedDict[tuple[str, Clip], StoredFile] = OrderedDict()
        self._size_bytes = 0
        self._locks: WeakValueDictionary[tuple[str, Clip], asyncio.Lock] = WeakValueDictionary()
        self._threads = anyio.CapacityLimiter(_MAX_ENCODERS)

    @property
    def size_bytes(self) -> int:
        """Size of all cached files."""
        return self._size_bytes

    async def get(self, extension: str, clip: Clip) -> StoredFile:
        """The `mp4` or `jpg` file of a clip, from the cache or newly encoded."""
        key = (extension, clip)
        async with self._locks.setdefault(key, asyncio.Lock()):
            file = self._files.get(key)
            if file is None:
                content_type, encode = _ENCODERS[extension]
                content = await anyio.to_thread.run_sync(encode, clip, limiter=self._threads)
                file = StoredFile(content, content_type)
                self._add(key, file)
            else:
                self._files.move_to_end(key)
            return file

    def _add(self, key: tuple[str, Clip], file: StoredFile) -> None:
        self._files[key] = file
        self._size_bytes += len(file.content)
        while self._size_bytes > self._cache_bytes:
            _, dropped = self._files.popitem(last=False)
            self._size_bytes -= len(dropped.content)
