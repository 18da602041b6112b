from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from kling_async._engine import pen as room
from kling_async._engine.pen import Pen


async def test_pieces_are_written_in_their_order_by_another_thread():
    got, threads = [], set()

    def write(pieces):
        for piece in pieces:
            got.append(piece)
            threads.add(threading.current_thread())

    async with Pen(write) as pen:
        for number in range(100):
            await pen.put(bytes([number]))
    assert got == [bytes([number]) for number in range(100)]
    assert threading.current_thread() not in threads


async def test_only_so_many_pieces_wait_for_a_slow_disk():
    go_on, put = threading.Event(), []

    def write(pieces):
        go_on.wait(5)
        for _ in pieces:
            pass

    async def put_many():
        async with Pen(write) as pen:
            for number in range(20):
                await pen.put(b"x")
                put.append(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_many)
        await anyio.wait_all_tasks_blocked()
        assert len(put) == room._MOST_WAITING
        go_on.set()
    assert len(put) == 20


async def test_what_the_disk_says_against_it_is_raised_where_pieces_are_put():
    def write(pieces):
        next(pieces)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        async with Pen(write) as pen:
            for _ in range(100):
                await pen.put(b"x")


async def test_what_the_disk_says_last_is_raised_at_the_end():
    def write(pieces):
        for _ in pieces:
            pass
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        async with Pen(write) as pen:
            await pen.put(b"x")


async def test_the_disk_has_the_word_before_the_network():
    def write(pieces):
        list(pieces)
        raise OSError("full")

    with pytest.raises(OSError, match="full") as caught:
        async with Pen(write):
            raise ValueError("cut")
    assert isinstance(caught.value.__cause__, ValueError)


async def test_what_was_put_is_written_also_when_the_reader_fails():
    got = []
    with pytest.raises(ValueError, match="cut"):
        async with Pen(got.extend) as pen:
            await pen.put(b"x")
            raise ValueError("cut")
    assert got == [b"x"]


async def test_a_cancelled_task_is_cancelled_and_leaves_no_thread():
    def write(pieces):
        list(pieces)
        raise OSError("full")

    async def put_and_wait():
        async with Pen(write) as pen:
            await pen.put(b"x")
            await asyncio.Event().wait()

    task = asyncio.create_task(put_and_wait())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pens = [thread for thread in threading.enumerate() if thread.name == "kling_async-pen"]
    for thread in pens:
        thread.join(1.0)  # it has said its last word, and may take a moment to be gone
    assert not any(thread.is_alive() for thread in pens)
