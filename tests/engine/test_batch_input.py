from __future__ import annotations

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
    with pytest.raises(InvalidRequestError, match="There is no file"):
        InputReader([VideoRequest("x", image=str(tmp_path / name))], {}, skip_invalid=False)


async def test_the_error_shows_at_most_ten_invalid_items():
    with pytest.raises(InvalidRequestError, match=r"12 of 12 .* and 2 more") as caught:
        InputReader([""] * 12, {}, skip_invalid=False)
    assert str(caught.value).count("item ") == 10


async def test_a_prompt_that_looks_like_a_mistake_is_invalid_until_it_is_meant():
    with pytest.raises(
        InvalidRequestError, match=r"1 of 2 .* item 1: 'nan' is a word for no value: .*allow_suspicious"
    ):
        InputReader(["A comet", "nan"], {}, skip_invalid=False)
    kept, left_out = await read_all(InputReader(["A comet", "nan"], {}, skip_invalid=True))
    assert kept == "A comet"
    assert isinstance(left_out, InvalidRequestError)
    reader = InputReader(["A comet", "nan"], {}, skip_invalid=False, allow_suspicious=True)
    assert await read_all(reader) == ["A comet", "nan"]
