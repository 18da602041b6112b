from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from kling_async.emulator.media import Clip, encode_thumbnail
from kling_async.emulator.media_cache import MediaCache

RAIN, SNOW, HAIL = (Clip(prompt=prompt, seconds=1) for prompt in ("rain", "snow", "hail"))
BIG = 2**30


async def test_both_kinds_of_file_are_made():
    cache = MediaCache(cache_bytes=BIG)
    video, thumbnail = await cache.get("mp4", RAIN), await cache.get("jpg", RAIN)

    assert (video.content_type, video.content[4:8]) == ("video/mp4", b"ftyp")
    assert (thumbnail.content_type, thumbnail.content) == ("image/jpeg", encode_thumbnail(RAIN))


async def test_a_file_that_several_ask_for_is_made_once():
    cache = MediaCache(cache_bytes=BIG)
    made = []

    async def ask():
        made.append(await cache.get("jpg", RAIN))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)

    assert len(made) == 5
    assert len({id(file) for file in made}) == 1


async def test_what_was_asked_for_last_is_kept():
    room = sum([len(encode_thumbnail(clip)) for clip in (RAIN, SNOW, HAIL)]) - 1
    cache = MediaCache(cache_bytes=room)
    rain, snow = await cache.get("jpg", RAIN), await cache.get("jpg", SNOW)
    assert await cache.get("jpg", RAIN) is rain

    await cache.get("jpg", HAIL)

    assert cache.size_bytes <= room
    assert await cache.get("jpg", RAIN) is rain
    assert await cache.get("jpg", SNOW) is not snow


async def test_without_room_nothing_is_kept_and_all_is_served():
    cache = MediaCache(cache_bytes=0)

    assert (await cache.get("jpg", RAIN)).content == (await cache.get("jpg", RAIN)).content
    assert cache.size_bytes == 0


async def test_encoding_leaves_the_event_loop_free():
    cache = MediaCache(cache_bytes=0)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await cache.get("mp4", RAIN)
        group.cancel_scope.cancel()

    assert turns > 2
