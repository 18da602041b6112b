from __future__ import annotations

import gzip
import zlib

import pytest
from virtual_service import Streamed

from kling_async import APIConnectionError
from kling_async._engine.download import decompress as room
from kling_async._engine.download.decompress import DecompressedBody

BODY = b"a frame, and another frame. " * 40_000


async def through(packed, *, piece_bytes=1000, at_a_time=10**9):
    """What comes out, taken so many pieces at a time."""

    async def pieces():
        for start in range(0, len(packed), piece_bytes):
            yield packed[start : start + piece_bytes]

    body, came = DecompressedBody(Streamed(pieces())), []

    def take(piece):
        came.append(piece)
        return len(came) % at_a_time != 0

    while not await body.pipe_to(take):
        pass
    return came


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@pytest.mark.parametrize("piece_bytes", [1, 1000, 10**9])
@pytest.mark.parametrize("at_a_time", [1, 3, 10**9])
async def test_what_was_packed_comes_out(pack, piece_bytes, at_a_time):
    assert b"".join(await through(pack(BODY), piece_bytes=piece_bytes, at_a_time=at_a_time)) == BODY


async def test_several_packed_one_after_the_other_are_one_body():
    assert b"".join(await through(gzip.compress(b"one ") + gzip.compress(b"two"))) == b"one two"


async def test_what_is_packed_very_well_comes_out_in_pieces():
    sizes = [len(piece) for piece in await through(gzip.compress(bytes(10 * room._PIECE_BYTES)))]
    assert max(sizes) == room._PIECE_BYTES
    assert sum(sizes) == 10 * room._PIECE_BYTES


@pytest.mark.parametrize("left", [0, 5, 200])
async def test_a_body_that_ends_too_soon_was_cut(left):
    with pytest.raises(APIConnectionError, match="cut short"):
        await through(gzip.compress(BODY)[:left])


async def test_a_body_that_is_not_packed_is_broken():
    with pytest.raises(APIConnectionError, match="broken"):
        await through(BODY)
