from __future__ import annotations

import asyncio

import pytest
from virtual_service import VirtualLoop

from kling_async._transport.shared_timeouts import SharedTimeouts


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
async def timeouts():
    return SharedTimeouts()


def now():
    return asyncio.get_running_loop().time()


async def hold(timeouts, limit, seconds):
    """What became of a block that takes so long, and when."""
    try:
        with timeouts.limit(limit):
            await asyncio.sleep(seconds)
    except TimeoutError:
        return "late", now()
    return "done", now()


async def test_a_block_that_ends_in_time_is_not_cancelled(timeouts):
    assert await hold(timeouts, 2.0, 1.0) == ("done", 1.0)
    await asyncio.sleep(5)


async def test_a_block_that_is_late_is_cancelled_and_raises(timeouts):
    assert await hold(timeouts, 2.0, 10.0) == ("late", 2.0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_block_has_its_own_deadline_in_any_order_of_entry(timeouts):
    limits = [5.0, 1.0, 3.0, 1.0, 9.0, 4.0]
    ends = await asyncio.gather(*(hold(timeouts, limit, 8.0) for limit in limits))
    assert ends == [("late", limit) if limit < 8.0 else ("done", 8.0) for limit in limits]


async def test_a_block_entered_after_an_idle_timer_still_times_out(timeouts):
    await hold(timeouts, 2.0, 1.0)
    await asyncio.sleep(1.5)
    assert await hold(timeouts, 2.0, 10.0) == ("late", 4.5)


async def test_a_deadline_that_has_passed_ends_the_block_at_its_first_wait(timeouts):
    assert await hold(timeouts, 0.0, 1.0) == ("late", 0.0)


async def test_a_cancelled_task_raises_no_timeout(timeouts):
    task = asyncio.create_task(hold(timeouts, 2.0, 10.0))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_comes_with_the_deadline_wins(timeouts):
    task = asyncio.create_task(hold(timeouts, 2.0, 10.0))
    asyncio.get_running_loop().call_at(2.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_comes_out_as_it_is(timeouts):
    with pytest.raises(KeyError), timeouts.limit(1.0):
        raise KeyError


async def test_all_blocks_share_one_timer(timeouts):
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(hold(timeouts, 60.0, 50.0)) for _ in range(100)]
    await asyncio.sleep(0)
    timers = [timer for timer in loop._scheduled if timer._when == 60.0]
    assert len(timers) == 1
    await asyncio.gather(*tasks)


async def test_after_closing_no_block_times_out(timeouts):
    task = asyncio.create_task(hold(timeouts, 2.0, 10.0))
    await asyncio.sleep(0)
    timeouts.close()
    assert await task == ("done", 10.0)
