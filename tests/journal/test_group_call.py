from __future__ import annotations

import asyncio

import anyio
import pytest

from kling_async import JournalError
from kling_async._journal.group_call import GroupCall


async def ask_all(group, questions):
    return await asyncio.gather(*map(group.ask, questions), return_exceptions=True)


async def test_questions_of_many_tasks_share_a_call_and_each_gets_its_answer():
    calls = []

    async def double(questions):
        calls.append(len(questions))
        await anyio.sleep(1)
        return [2 * question for question in questions]

    group = GroupCall(double)
    assert await ask_all(group, range(1_200)) == [2 * number for number in range(1_200)]
    assert await group.ask(7) == 14
    assert calls == [500, 500, 200, 1]


async def test_questions_that_come_during_a_call_wait_for_the_next_one():
    calls = []

    async def answer(questions):
        calls.append(list(questions))
        await anyio.sleep(1)
        return questions

    group = GroupCall(answer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(group.ask, 1)
        await anyio.sleep(0.5)
        for number in (2, 3):
            tasks.start_soon(group.ask, number)
    assert calls == [[1], [2, 3]]


@pytest.mark.parametrize("error", [JournalError("no database"), KeyError(5)])
async def test_each_task_raises_the_error_of_a_call_that_fails(error):
    async def fail(questions):
        await anyio.sleep(1)
        raise error

    group = GroupCall(fail)
    with anyio.move_on_after(0.5):
        await group.ask(0)  # waits no longer
    failures = await ask_all(group, range(3))
    assert [str(failure) for failure in failures] == [str(error)] * 3
    assert all(type(failure) is type(error) for failure in failures)


async def test_an_answer_that_no_task_waits_for_is_given_back():
    given_back = []

    async def answer(questions):
        await anyio.sleep(1)
        return questions

    group = GroupCall(answer, lambda question, value: given_back.append((question, value)))
    with anyio.move_on_after(0.5):
        await group.ask(1)
    assert await group.ask(2) == 2
    assert given_back == [(1, 1)]

    plain = GroupCall(answer)
    with anyio.move_on_after(0.5):
        await plain.ask(1)
    assert await plain.ask(2) == 2


def test_the_end_of_an_event_loop_ends_the_questions():
    async def never(questions):
        await anyio.sleep_forever()

    group = GroupCall(never)

    async def leave():
        asked = [asyncio.ensure_future(group.ask(number)) for number in range(2)]
        await asyncio.sleep(0.1)
        asked.append(asyncio.ensure_future(group.ask(3)))
        await asyncio.sleep(0)
        return asked

    asked = asyncio.run(leave())
    assert all(task.cancelled() for task in asked)
