"""A packed body as what was packed. Storage is asked for bytes as they are, and some send them packed all the same."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from kling_async.errors import APIConnectionError

PACKINGS = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER_HEADER = 32 + zlib.MAX_WBITS
_PIECE_BYTES = 256 * 1024
"""However well something is packed, no more than this comes out at once."""


async def unpacked(pieces: AsyncIterator[bytes | memoryview]) -> AsyncIterator[bytes]:
    """The body itself.

    Raises:
        APIConnectionError: It is broken, or was cut.
    """
    packed = zlib.decompressobj(_EITHER_HEADER)
    async for piece in pieces:
        left = piece
        while left:
            if packed.eof:  # several packed one after the other are one body
                packed = zlib.decompressobj(_EITHER_HEADER)
            try:
                yield packed.decompress(left, _PIECE_BYTES)
            except zlib.error as error:
                raise APIConnectionError(f"the packed body is broken ({error})") from error
            left = packed.unconsumed_tail or packed.unused_data
    yield packed.flush()
    if not packed.eof:
        raise APIConnectionError("the packed body was cut short")
