"""A packed body as what was packed. Storage is asked for bytes as they are, and some send them packed all the same."""

from __future__ import annotations

import zlib

from kling_async._transport.base import Sink, StreamedReply
from kling_async.errors import APIConnectionError

CONTENT_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER_HEADER = 32 + zlib.MAX_WBITS
_PIECE_BYTES = 256 * 1024
"""However well something is packed, no more than this comes out at once."""


class DecompressedBody:
    """The body of a reply that came packed; the sink that it is piped to need not be quick."""

    def __init__(self, reply: StreamedReply) -> None:
        self._reply = reply
        self._packed = zlib.decompressobj(_EITHER_HEADER)
        self._left = b""
        self._is_full = False
        self._has_all = False

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`.

        Raises:
            APIConnectionError: It is broken, or was cut.
        """
        while True:
            while self._left or self._is_full:
                if not sink(self._unpack()):
                    return False
            if self._has_all:
                break
            self._has_all = await self._reply.pipe_to(self._take)
        if not self._packed.eof:
            raise APIConnectionError("the packed body was cut short")
        return True

    def _take(self, piece: bytes | memoryview) -> bool:
        self._left = bytes(piece)
        return False

    def _unpack(self) -> bytes:
        """Some of the body."""
        if self._packed.eof:  # several packed one after the other are one body
            self._packed = zlib.decompressobj(_EITHER_HEADER)
        try:
            piece = self._packed.decompress(self._left, _PIECE_BYTES)
        except zlib.error as error:
            raise APIConnectionError(f"the packed body is broken ({error})") from error
        self._left = self._packed.unconsumed_tail or self._packed.unused_data
        self._is_full = len(piece) == _PIECE_BYTES and not self._packed.eof
        return piece
