from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from kling_async.emulator.media import Clip, encode_thumbnail
from kling_async.emulator.media_cache import MediaCache

RAIN, SNOW, HAIL = (Clip(prompt=prompt, seconds=1) for prompt in ("rain", "snow", "hail"))
BIG = 2**30


async def test_the_cache_encodes_videos_and_thumbnails():
    cache = MediaCache(cache_bytes=BIG)
    video, thumbnail = await cache.get("mp4", RAIN), await cache.get("jpg", RAIN)

    assert (video.content_type, video.content[4:8]) == ("video/mp4", b"ftyp")
    assert (thumbnail.content_type, thumbnail.content) == ("image/jpeg", encode_thumbnail(RAIN))


async def test_concurrent_calls_encode_a_file_once():
    cache = MediaCache(cache_bytes=BIG)
    files = []

    async def get_file():
        files.append(await cache.get("jpg", RAIN))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(get_file)

    assert len(files) == 5
    assert len({id(file) for file in files}) == 1


async def test_the_cache_drops_the_least_recently_used_file():
    cache_bytes = sum([len(encode_thumbnail(clip)) for clip in (RAIN, SNOW, HAIL)]) - 1
    cache = MediaCache(cache_bytes=cache_bytes)
    rain, snow = await cache.get("jpg", RAIN), await cache.get("jpg", SNOW)
    assert await cache.get("jpg", RAIN) is rain

    await cache.get("jpg", HAIL)

    assert cache.size_bytes <= cache_bytes
    assert await cache.get("jpg", RAIN) is rain
    assert await cache.get("jpg", SNOW) is not snow


async def test_a_cache_of_size_zero_stores_nothing_and_returns_every_file():
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
