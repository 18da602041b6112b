"""Every client that is measured, each as one coroutine: the service's URL and prompts in, successes out.

Peers run as their own documentation shows: one task a job, one client for all, default settings.
A peer is imported only when it is measured.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, Literal

QUEUE_PATH = "/api/v1/ie/requestqueue/apikey"
MODEL = "kling-v2-6"
HTTPX_INTERVAL = 5.0
HURRIED = 0.02
"""Seconds between the polls of a run that only prepares a measure."""

Client = Callable[[str, Sequence[str]], Awaitable[int]]
"""The service's URL and the prompts in, the number of successes out."""


def _drop_none(**options: float | None) -> dict[str, Any]:
    """The options that have a value; each client has its own name for the seconds that one request may take."""
    return {name: value for name, value in options.items() if value is not None}


async def _one_task_a_job(prompts: Sequence[str], one: Callable[[str], Awaitable[bool]]) -> int:
    return sum(await asyncio.gather(*map(one, prompts)))


async def floor(service: str, prompts: Sequence[str]) -> int:
    """The least that a program can do with aiohttp, for jobs that are done at once."""
    import aiohttp

    url = f"{service}{QUEUE_PATH}/requests"

    async with aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as session:

        async def one(prompt: str) -> bool:
            async with session.post(url, json={"model": MODEL, "payload": {"prompt": prompt}}) as reply:
                request_id = (await reply.json())["request_id"]
            async with session.get(f"{url}/{request_id}") as reply:
                return bool((await reply.json())["status"] == "success")

        return await _one_task_a_job(prompts, one)


async def httpx_loop(service: str, prompts: Sequence[str]) -> int:
    """The loop that people write by hand: httpx, a status call every five seconds."""
    import httpx

    headers = {"Authorization": "Bearer key"}
    async with httpx.AsyncClient(base_url=service + QUEUE_PATH, headers=headers, timeout=60) as client:

        async def one(prompt: str) -> bool:
            reply = await client.post("/requests", json={"model": MODEL, "payload": {"prompt": prompt}})
            job = reply.raise_for_status().json()
            while job["status"] not in {"success", "failed", "cancelled"}:
                await asyncio.sleep(HTTPX_INTERVAL)
                reply = await client.get(f"/requests/{job['request_id']}")
                job = reply.raise_for_status().json()
            return bool(job["status"] == "success")

        return await _one_task_a_job(prompts, one)


async def fal(
    service: str,
    prompts: Sequence[str],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the client's own
) -> int:
    """fal-client's `subscribe`."""
    import fal_client.client

    # The client knows its hosts by https addresses alone; there is no argument for another one.
    fal_client.client.QUEUE_URL_FORMAT = f"{service}/fal/"
    client = fal_client.AsyncClient(key="key", **_drop_none(default_timeout=timeout))

    async def one(prompt: str) -> bool:
        result = await client.subscribe("kling/kling", {"prompt": prompt})
        return bool(result["video"]["url"])

    return await _one_task_a_job(prompts, one)


async def replicate(
    service: str,
    prompts: Sequence[str],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the client's own
) -> int:
    """The replicate client's prediction, created and waited for."""
    from replicate.client import Client

    client = Client(api_token="key", base_url=f"{service}/replicate", **_drop_none(timeout=timeout))  # noqa: S106  # made up

    async def one(prompt: str) -> bool:
        prediction = await client.predictions.async_create(model="kling/kling", input={"prompt": prompt})
        await prediction.async_wait()
        return bool(prediction.status == "succeeded")

    return await _one_task_a_job(prompts, one)


async def openai(
    service: str,
    prompts: Sequence[str],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the client's own
) -> int:
    """The openai client's `videos.create_and_poll`."""
    import warnings

    from openai import AsyncOpenAI

    warnings.simplefilter("ignore", DeprecationWarning)  # the vendor retired the service, not the client
    async with AsyncOpenAI(
        api_key="key", base_url=f"{service}/openai", **_drop_none(timeout=timeout)
    ) as client:

        async def one(prompt: str) -> bool:
            video = await client.videos.create_and_poll(model="sora-2", prompt=prompt)
            return bool(video.status == "completed")

        return await _one_task_a_job(prompts, one)


async def runwayml(
    service: str,
    prompts: Sequence[str],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the client's own
) -> int:
    """The runwayml client's `wait_for_task_output`."""
    from runwayml import AsyncRunwayML

    async with AsyncRunwayML(
        api_key="key", base_url=f"{service}/runwayml", **_drop_none(timeout=timeout)
    ) as client:

        async def one(prompt: str) -> bool:
            created = await client.text_to_video.create(model="veo3.1", prompt_text=prompt, ratio="1280:720")
            task = await created.wait_for_task_output()
            return bool(task.status == "SUCCEEDED")

        return await _one_task_a_job(prompts, one)


async def genblaze(
    service: str,
    prompts: Sequence[str],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the client's own
) -> int:
    """The genblaze provider for the same queue as ours."""
    from genblaze_core.models.enums import Modality
    from genblaze_core.models.step import Step
    from genblaze_gmicloud import GMICloudVideoProvider

    provider = GMICloudVideoProvider(
        api_key="key", base_url=service + QUEUE_PATH, **_drop_none(http_timeout=timeout)
    )

    async def one(prompt: str) -> bool:
        step = Step(provider="gmicloud", model=MODEL, modality=Modality.VIDEO, prompt=prompt)
        return str((await provider.ainvoke(step)).status) == "succeeded"

    try:
        return await _one_task_a_job(prompts, one)
    finally:
        provider.close()


async def ours(
    service: str,
    prompts: Sequence[str],
    *,
    use_lists: Literal["auto", "never", "always"] = "auto",
    journal: str | None = None,
    rationed: bool = True,
    poll_interval: float | None = None,
) -> int:
    """This project's `generate_many`, with all jobs in flight at once; `rationed=False` lifts the default limits."""
    from kling_async import KlingClient, Limits, PollingPolicy

    limits = Limits() if rationed else Limits(max_concurrent_submits=100, max_polls_per_second=math.inf)
    polling = PollingPolicy(use_lists=use_lists, poll_interval=poll_interval)
    async with KlingClient("key", base_url=service, limits=limits, polling=polling) as client:
        options: dict[str, Any] = {"max_concurrency": len(prompts), "progress": False}
        if journal is not None:
            options["journal"] = journal
        batch = await client.generate_many(prompts, **options)
    return len(batch.succeeded)


PEERS: dict[str, tuple[Client, str]] = {
    "fal": (fal, "fal_client"),
    "replicate": (replicate, "replicate"),
    "openai": (openai, "openai"),
    "runwayml": (runwayml, "runwayml"),
    "genblaze": (genblaze, "genblaze_gmicloud"),
    "httpx": (httpx_loop, "httpx"),
}
"""Each peer's coroutine and the package that it needs."""


class UnknownClientError(ValueError):
    """A client that is not known, or not installed."""


def choose(subjects: Sequence[str], ours: Iterable[str]) -> list[str]:
    """Those of our ways and of the installed peers that are named; all of them if none is.

    Raises:
        UnknownClientError: a name is not known, or its package is not installed.
    """
    known = [*ours, *(name for name, (_, package) in PEERS.items() if find_spec(package) is not None)]
    if unknown := sorted(set(subjects) - set(known)):
        raise UnknownClientError(
            f"cannot measure {', '.join(unknown)}; known and installed are {', '.join(known)}"
        )
    return [name for name in known if not subjects or name in subjects]
