"""The API as its users type it: this file is checked by mypy and basedpyright, and never run."""

from __future__ import annotations

import csv
import os
from collections.abc import AsyncIterator, Coroutine, Hashable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Never, TextIO, assert_type

from kling_async import (
    APIConnectionError,
    APIStatusError,
    BatchResult,
    Estimate,
    ItemEstimate,
    Job,
    JobStatus,
    KlingClient,
    KlingError,
    Limits,
    Media,
    ModelInfo,
    Outcome,
    PollingPolicy,
    Result,
    ResultState,
    RetryPolicy,
    VideoOptions,
    VideoRequest,
    estimate,
)
from kling_async.distributed import WorkerReport, generate_many_on, run_worker
from kling_async.events import Downloaded, Event, Finished, StatusChanged
from kling_async.journal import Journal
from kling_async.types import BatchOptions, ObjectUrl, RequestRow


async def one_video(client: KlingClient) -> None:
    job = await client.generate("A majestic eagle at sunset", duration=10, sound=True)
    assert_type(job, Job)
    assert_type(await client.download(job, "eagle.mp4"), Path | ObjectUrl)
    assert_type(await client.download(job.request_id, Path("videos")), Path)
    assert_type(await client.download(job, ObjectUrl("s3://bucket/videos/")), ObjectUrl)
    assert_type(await client.submit(VideoRequest("x"), cfg_scale=0.5), Job)
    assert_type(await client.submit({"prompt": "x", "duration": 5}), Job)
    assert_type(await client.wait(job), Job)
    assert_type(await client.wait("id"), Job)
    assert_type(await client.get_job("id"), Job)
    assert_type(await client.upload(Path("a.png")), str)
    await client.check_output("s3://bucket/videos/")
    assert_type(await client.list_models(), list[str])
    assert_type(await client.get_model("kling-v2-6"), ModelInfo)
    async for listed in client.list_jobs(page_size=10):
        assert_type(listed, Job)


async def many_machines(client: KlingClient, prompts: list[str]) -> None:
    url = "postgresql://kling@db.example/kling"
    batch = await generate_many_on(url, prompts, duration=5, shard_size=100, detach=True, output="s3://b/v")
    assert_type(batch, BatchResult)
    assert_type(await run_worker(url, client, until_idle=True), WorkerReport)


async def many_videos(client: KlingClient, prompts: list[str], endless: AsyncIterator[str]) -> None:
    batch = await client.generate_many(prompts, duration=5, max_concurrency=50, output="videos/")
    assert_type(batch, BatchResult)
    assert_type(batch[0], Result)
    assert_type(batch[1:], tuple[Result, ...])
    assert_type(batch.succeeded, tuple[Result, ...])
    assert_type(batch.paths, tuple[Path | ObjectUrl, ...])
    assert_type(batch.cost_usd, Decimal | None)
    for each in batch:
        assert_type(each, Result)
    opened = client.stream_many(endless, max_concurrency=50, on_event=heard)
    assert_type(opened, AbstractAsyncContextManager[AsyncIterator[Result], bool | None])
    async with opened as results:
        async for result in results:
            assert_type(result, Result)
            assert_type(result.job_or_raise(), Job)
    await client.generate_many([VideoRequest("x"), "y", {"prompt": "z"}])


async def rows(client: KlingClient) -> None:
    row: RequestRow = {"prompt": "x", "duration": "5", "sound": "on", "key": None}
    await client.submit(row)
    await client.generate_many([row, row])
    misspelt: RequestRow = {"promt": "x"}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    unknown: RequestRow = {"prompt": "x", "seconds": 5}  # type: ignore[typeddict-unknown-key]  # pyright: ignore[reportAssignmentType]
    wrong: RequestRow = {"prompt": "x", "duration": [5]}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    await client.generate_many([misspelt, unknown, wrong])
    await client.submit(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.generate_many([5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def rows_of_files(client: KlingClient, file: TextIO, lines: list[dict[str, str]]) -> None:
    url, journal = "postgresql://kling@db.example/kling", Journal("run.db")
    assert_type(await client.generate_many(csv.DictReader(file)), BatchResult)
    assert_type(await client.generate_many(lines), BatchResult)
    async with client.stream_many(csv.DictReader(file)) as results, client.stream_many(lines) as more:
        assert_type(results, AsyncIterator[Result])
        assert_type(more, AsyncIterator[Result])
    assert_type(await generate_many_on(url, csv.DictReader(file)), BatchResult)
    assert_type(await generate_many_on(url, lines), BatchResult)
    await journal.register(csv.DictReader(file))
    await journal.register(lines)
    await journal.preview(csv.DictReader(file))
    await journal.preview(lines)
    estimate(csv.DictReader(file))
    estimate(lines)
    assert_type(estimate(lines[0]), Estimate)
    await client.submit(lines[0])
    await client.generate(lines[0])


async def rows_of_any_values(client: KlingClient, frame: list[dict[Hashable, Any]]) -> None:
    mixed = [{"prompt": "x", "duration": 5}, {"prompt": "y", "sound": True}]
    await client.generate_many(mixed)
    await client.generate_many(frame)
    await client.generate_many([{"prompt": "x", "extra": {"seed": 7}}, "y", VideoRequest("z")])
    one = {"prompt": "x", "duration": 5}
    await client.generate(one)


async def entries(client: KlingClient) -> None:
    journal = Journal("run.db")
    await client.generate_many(journal.entries(), journal=journal)
    await client.generate_many(list(journal.entries()), journal=journal)
    await client.generate_many([*journal.entries(), "new"], journal=journal)
    await client.generate_many((await journal.register(["x"])).entries, journal=journal)


class Frame:
    """A table of another library, whose iterator gives something else than rows."""

    columns: list[str]

    def __iter__(self) -> Iterator[object]:
        raise NotImplementedError


async def tables(client: KlingClient, table: Frame) -> None:
    assert_type(await client.generate_many(table, keep_labels=True, allow_suspicious=True), BatchResult)
    assert_type(estimate(table, keep_labels=True), Estimate)
    await client.submit({"prompt": "x", "labels": {"concept": "sky"}}, allow_suspicious=True)
    await client.generate("x", allow_suspicious=True, wait_timeout=5)


async def batch_options(client: KlingClient, options: BatchOptions) -> None:
    await client.generate_many(["x"], raise_on_failure=True, **options)
    await client.generate_many(["x"], max_cost_usd=20, prices="catalog", model="kling-v2-6")
    await client.generate_many(["x"], max_concurency=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await client.generate_many(["x"], prices="catalogue")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    client.stream_many(["x"], raise_on_failure=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def one_prompt_is_not_many(client: KlingClient) -> Coroutine[Any, Any, int]:
    return client.generate_many("x")  # never returns: the type of its result is every type


def one_row_is_not_many(client: KlingClient) -> None:
    assert_type(client.stream_many({"prompt": "x"}), Never)


def one_row_of_a_file_is_not_many(client: KlingClient, line: dict[str, str]) -> None:
    assert_type(client.stream_many(line), Never)


async def options_of_one_call(client: KlingClient) -> None:
    assert_type(await client.wait("id", wait_timeout=None), Job)
    assert_type(await client.generate("x", wait_timeout=60, model=None), Job)
    await client.wait("id", timeout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    view = client.with_options(timeout=5, on_event=None, retry=RetryPolicy(max_retries=0))
    assert_type(view, KlingClient)
    client.with_options(limits=Limits())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def costs(prompts: list[str]) -> None:
    made = estimate(prompts, duration=10)
    assert_type(made, Estimate)
    assert_type(made.cost_usd, Decimal | None)
    assert_type(made.unknown, tuple[ItemEstimate, ...])
    assert_type(made.items[0].source, str | None)
    estimate({"prompt": "x"}, prices={"kling-v2-6": Decimal(1)})
    estimate("x", durations=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def records(job: Job, result: Result, batch: BatchResult) -> None:
    assert_type(job.to_dict(), dict[str, Any])
    assert_type(result.to_dict(), dict[str, Any])
    assert_type(batch.to_records(), list[dict[str, Any]])


async def shared_options(client: KlingClient) -> None:
    options: VideoOptions = {"duration": 5, "sound": True, "image": Path("a.png"), "extra": {"seed": 7}}
    await client.generate("x", **options)
    await client.generate("x", durations=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.generate("x", duration="five")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def open_client(path: os.PathLike[str]) -> KlingClient:
    VideoRequest("x", image=path, duration="5", sound="on", cfg_scale="0.5", extra={"seed": 7}, key="k")
    VideoRequest("x", "kling-v2-6")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    return KlingClient(
        "key",
        organization_id="org",
        base_url="http://127.0.0.1:8080",
        timeout=30,
        limits=Limits(max_submits_per_hour=100),
        polling=PollingPolicy(wait_timeout=None, use_lists="never"),
        retry=RetryPolicy(max_retries=0),
        on_event=heard,
    )


def heard(event: Event) -> None:
    assert_type(event.index, int | None)
    if isinstance(event, StatusChanged):
        assert_type(event.status, JobStatus)
    elif isinstance(event, Finished):
        assert_type(event.state, ResultState)
    elif isinstance(event, Downloaded):
        assert_type(event.size_bytes, int)


def values(job: Job, request: VideoRequest, result: Result, info: ModelInfo) -> None:
    assert_type(job.status, JobStatus)
    assert_type(job.outcome, Outcome | None)
    assert_type(job.created_at, datetime | None)
    assert_type(job.raw, Mapping[str, Any])
    assert_type(job.video_url, str | None)
    assert_type(job.failure_reason, str | None)
    assert_type(request.duration, int | None)
    assert_type(request.model, str | None)
    assert_type(request.sound, bool | None)
    assert_type(request.cfg_scale, float | None)
    assert_type(request.extra, Mapping[str, Any])
    assert_type(result.error, KlingError | None)
    assert_type(result.path, Path | ObjectUrl | None)
    assert_type(result.request, VideoRequest | None)
    assert_type(info.price, Decimal | None)
    if job.outcome is not None:
        assert_type(job.outcome.media, tuple[Media, ...])
    job.status = JobStatus.SUCCESS  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def failures(error: KlingError) -> None:
    assert_type(error.retry_after, float | None)
    assert_type(error.job, Job | None)
    if isinstance(error, APIConnectionError):
        assert_type(error.was_sent, bool)
    elif isinstance(error, APIStatusError):
        assert_type(error.status_code, int | None)
