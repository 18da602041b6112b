from __future__ import annotations

import gzip
import zlib

import anyio
import anyio.lowlevel
import pytest
from virtual_service import Streamed

from kling_async import APIConnectionError
from kling_async._engine.download import decompress as module
from kling_async._engine.download.decompress import DecompressedBody

BODY = b"a frame, and another frame. " * 40_000


async def decompress(compressed, *, piece_bytes=1000, at_a_time=10**9):
    """The pieces of the body; the sink takes so many at a time."""

    async def pieces():
        for start in range(0, len(compressed), piece_bytes):
            yield compressed[start : start + piece_bytes]

    body, received = DecompressedBody(Streamed(pieces()).pipe_to), []

    def take(piece):
        received.append(piece)
        return len(received) % at_a_time != 0

    while not await body.pipe_to(take):
        pass
    return received


@pytest.mark.unmeasured
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@pytest.mark.parametrize("piece_bytes", [1, 1000, 10**9])
@pytest.mark.parametrize("at_a_time", [1, 3, 10**9])
async def test_a_compressed_body_is_decompressed(compress, piece_bytes, at_a_time):
    assert b"".join(await decompress(compress(BODY), piece_bytes=piece_bytes, at_a_time=at_a_time)) == BODY


async def test_several_streams_in_a_row_are_one_body():
    assert b"".join(await decompress(gzip.compress(b"one ") + gzip.compress(b"two"))) == b"one two"


async def test_a_highly_compressed_body_comes_in_pieces():
    sizes = [len(piece) for piece in await decompress(gzip.compress(bytes(10 * module._PIECE_BYTES)))]
    assert max(sizes) == module._PIECE_BYTES
    assert sum(sizes) == 10 * module._PIECE_BYTES


@pytest.mark.parametrize("left", [0, 5, 200])
async def test_a_body_that_ends_too_soon_is_an_error(left):
    with pytest.raises(APIConnectionError, match="cut short"):
        await decompress(gzip.compress(BODY)[:left])


async def test_a_body_that_is_not_compressed_is_an_error():
    with pytest.raises(APIConnectionError, match="broken"):
        await decompress(BODY)


async def test_other_tasks_run_between_the_pieces_of_a_highly_compressed_body():
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_turns)
        pieces = await decompress(gzip.compress(bytes(100 * module._PIECE_BYTES)), piece_bytes=10**9)
        tasks.cancel_scope.cancel()
    assert turns >= len(pieces) - 1 >= 99
