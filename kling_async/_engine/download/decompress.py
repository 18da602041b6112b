"""Decompresses a body: some storages compress it although the request forbids that."""

from __future__ import annotations

import zlib

import anyio
import anyio.lowlevel

from kling_async._engine.download.partial_video import BodyReader
from kling_async._transport.base import Sink
from kling_async.errors import APIConnectionError

CONTENT_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_PIECE_BYTES = 256 * 1024
"""The largest piece that one step of decompression gives: a small body can decompress to gigabytes."""


class DecompressedBody:
    """The decompressed body of a response; the sink can be slow, and other tasks run between two pieces."""

    def __init__(self, read_body: BodyReader) -> None:
        self._read_body = read_body
        self._decompressor = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._compressed = b""
        self._has_more_output = False
        self._is_read = False

    async def pipe_to(self, sink: Sink) -> bool:
        """Give the decompressed body to a sink; see `StreamedReply.pipe_to`.

        Raises:
            APIConnectionError: The body is broken, or was cut short.
        """
        while True:
            while self._compressed or self._has_more_output:
                if not sink(self._decompress()):
                    return False
                await anyio.lowlevel.checkpoint()
            if self._is_read:
                break
            self._is_read = await self._read_body(self._store_piece)
        if not self._decompressor.eof:
            raise APIConnectionError("the compressed body was cut short")
        return True

    def _store_piece(self, piece: bytes | memoryview) -> bool:
        self._compressed = bytes(piece)
        return False

    def _decompress(self) -> bytes:
        """The next piece of the decompressed body."""
        if self._decompressor.eof:  # several compressed streams in a row are one body
            self._decompressor = zlib.decompressobj(_ZLIB_OR_GZIP)
        try:
            piece = self._decompressor.decompress(self._compressed, _PIECE_BYTES)
        except zlib.error as error:
            raise APIConnectionError(f"the compressed body is broken ({error})") from error
        self._compressed = self._decompressor.unconsumed_tail or self._decompressor.unused_data
        self._has_more_output = len(piece) == _PIECE_BYTES and not self._decompressor.eof
        return piece
