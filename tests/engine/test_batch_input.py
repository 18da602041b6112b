from __future__ import annotations

import asyncio
from itertools import groupby

import anyio
import pytest

from kling_async import InvalidRequestError, VideoRequest
from kling_async._engine.batch.batch_input import InputReader


async def read_all(reader):
    items = []
    while (item := await reader.next_item()) is not None:
        items.append(item.request.prompt if item.request else item.error)
    return items


async def yield_slowly(items, *, log=None):
    try:
        for item in items:
            await anyio.sleep(1)
            yield item
    finally:
        if log is not None:
            log.append("closed")


@pytest.mark.parametrize(
    "requests",
    [
        ["a", "b"],
        ("a", "b"),
        {"a": 1, "b": 2}.keys(),
        iter(["a", "b"]),
        (item for item in "ab"),
        yield_slowly("ab"),
    ],
    ids=["list", "tuple", "keys", "iterator", "generator", "async generator"],
)
async def test_any_iterable_is_read_in_order(requests):
    assert await read_all(InputReader(requests, {}, skip_invalid=False)) == ["a", "b"]


async def test_close_lets_a_generator_clean_up_and_ends_the_input():
    log = []
    reader = InputReader(yield_slowly(["a", "b"], log=log), {}, skip_invalid=False)
    assert (await reader.next_item()).index == 0
    await reader.close()
    assert log == ["closed"]
    assert await reader.next_item() is None


async def test_an_async_iterator_without_aclose_is_left_as_it_is():
    class Endless:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return "again"

    reader = InputReader(Endless(), {}, skip_invalid=False)
    assert (await reader.next_item()).request == VideoRequest("again", model="kling-v2-6")
    await reader.close()
    assert await reader.next_item() is None


@pytest.mark.parametrize("name", ["gone.png", "x" * 5000 + ".png", "folder.png"])
async def test_a_picture_that_is_no_file_is_an_error_before_the_first_post(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    reader = InputReader([VideoRequest("x", image=str(tmp_path / name))], {}, skip_invalid=False)
    with pytest.raises(InvalidRequestError, match="There is no file"):
        await reader.next_item()


async def test_the_error_shows_at_most_ten_reasons():
    items = [{"prompt": "x", f"mood{number}": 1} for number in range(12)]
    with pytest.raises(InvalidRequestError, match=r"12 of 12 .* and 2 more") as caught:
        await InputReader(items, {}, skip_invalid=False).check()
    assert str(caught.value).count("item ") == 10


async def test_the_error_says_a_reason_once_with_the_items_that_have_it():
    items = [*[{"prompt": "x", "shot": number} for number in range(12)], "A comet", ""]
    with pytest.raises(InvalidRequestError) as caught:
        await InputReader(items, {}, skip_invalid=False).check()
    message = caught.value.message
    assert message.startswith(
        "13 of 14 requests are invalid, so none was sent: items 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more: A request has no field 'shot'"
    )
    assert message.count("shot") == 1
    assert " item 13: kling-v2-6: prompt " in message


async def test_a_prompt_that_looks_like_a_mistake_is_invalid_until_it_is_meant():
    with pytest.raises(
        InvalidRequestError, match=r"1 of 2 .* item 1: 'nan' is a word for no value: .*allow_suspicious"
    ):
        await InputReader(["A comet", "nan"], {}, skip_invalid=False).check()
    kept, left_out = await read_all(InputReader(["A comet", "nan"], {}, skip_invalid=True))
    assert kept == "A comet"
    assert isinstance(left_out, InvalidRequestError)
    reader = InputReader(["A comet", "nan"], {}, skip_invalid=False, allow_suspicious=True)
    assert await read_all(reader) == ["A comet", "nan"]


@pytest.mark.parametrize(
    "requests, skip_invalid",
    [(["A comet"] * 500, False), ([""] * 500, True), (iter(["A comet"] * 500), False)],
    ids=["a list", "a list with invalid items", "an iterator"],
)
async def test_other_tasks_have_their_turn_while_a_long_input_is_read(requests, skip_invalid):
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count_turns())
    reader = InputReader(requests, {}, skip_invalid=skip_invalid)
    read = await read_all(reader)
    other.cancel()
    assert len(read) == 500
    assert turns >= 500 // 32


async def test_a_second_check_changes_nothing():
    reader = InputReader(["A comet", "A cat"], {}, skip_invalid=False)
    await reader.check()
    await reader.check()
    assert await read_all(reader) == ["A comet", "A cat"]


async def test_other_tasks_have_their_turn_while_a_collection_is_checked():
    seen = []

    async def count_turns():
        while True:
            seen.append("turn")
            await asyncio.sleep(0)

    other = asyncio.create_task(count_turns())
    reader = InputReader(["A comet"] * 500, {}, skip_invalid=False, check=lambda request: seen.append("item"))
    await reader.check()
    other.cancel()
    in_a_row = [len(list(group)) for kind, group in groupby(seen) if kind == "item"]
    assert sum(in_a_row) == 500
    assert max(in_a_row) <= 32
