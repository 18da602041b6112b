"""The guarantees about money and files, against a service that shares no code with the package and counts its POSTs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter

import pytest
from crash.kill_batches import control, start_service
from independent_service import video_bytes
from quick_loop import SPEED, QuickLoop

from kling_async import JournalError, KlingClient, Limits, PollingPolicy, RetryPolicy

pytestmark = pytest.mark.unmeasured

FAST_RETRY = RetryPolicy(initial_delay=0.001, max_delay=0.01)
LOST_REPLIES = "drop", "500", "502", "503", "408", "half", "stall"


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": QuickLoop}


@pytest.fixture
def service_url(tmp_path):
    """The URL of a new service."""
    with start_service(tmp_path) as url:
        control(url, run_time=0.05, media_bytes=50_000)
        yield url


def client_of(url, **settings):
    polling = PollingPolicy(poll_interval=0.2, wait_timeout=30.0 * SPEED)
    limits = Limits(max_polls_per_second=100.0)
    settings = {"timeout": SPEED, "polling": polling, "limits": limits, "retry": FAST_RETRY} | settings
    return KlingClient("any-key", base_url=url, **settings)


async def batch_of(url, prompts, **options):
    async with client_of(url) as client:
        return await client.generate_many(prompts, progress=False, **options)


def have_whole_videos(url, batch):
    sizes = {job["request_id"]: job["bytes"] for job in control(url)["jobs"]}
    return [
        result.path is not None
        and result.path.read_bytes() == video_bytes(result.job.request_id, sizes[result.job.request_id])
        for result in batch
    ]


async def test_a_lost_reply_of_any_kind_leaves_one_post_and_one_job_per_prompt(service_url):
    control(service_url, script={"submit": [*LOST_REPLIES, "duplicate", "redirect:http://127.0.0.1:9"]})
    prompts = [f"prompt {number}" for number in range(len(LOST_REPLIES) + 2)]
    batch = await batch_of(service_url, prompts, max_concurrency=20)

    assert control(service_url)["posts"] == dict.fromkeys(prompts, 1)
    assert [result.job.payload["prompt"] for result in batch.succeeded] == prompts


async def test_twenty_equal_prompts_with_two_lost_replies_match_twenty_jobs(service_url):
    control(service_url, script={"submit": [*[None] * 5, "drop", *[None] * 7, "500"]})
    batch = await batch_of(service_url, ["the same"] * 20, max_concurrency=6)
    counts = control(service_url)

    assert counts["posts"] == {"the same": 20}
    assert {result.job.request_id for result in batch.succeeded} == {
        job["request_id"] for job in counts["jobs"]
    }
    assert len(batch.succeeded) == 20


async def test_twelve_503s_an_unknown_status_and_four_404s_end_no_wait(service_url):
    control(
        service_url,
        run_time=0.5,
        script={"status": [*["503"] * 12, "unknown_status", "404", "404", "404", "404"]},
    )
    async with client_of(service_url) as client:
        assert (await client.generate("rain")).is_success

    assert control(service_url)["posts"] == {"rain": 1}


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_download_with_cuts_and_wrong_lengths_is_whole_in_the_end(service_url, tmp_path, ranges):
    faults = [*(f"cut:0.{tenth}" for tenth in range(10)), "long", "short", "drop", "503", "stall"]
    control(service_url, ranges=ranges, script={"media": faults})
    prompts = [f"prompt {number}" for number in range(len(faults))]
    batch = await batch_of(service_url, prompts, output=tmp_path / "videos")

    assert have_whole_videos(service_url, batch) == [True] * len(faults)
    assert {path.suffix for path in (tmp_path / "videos").iterdir()} == {".mp4"}


async def test_the_key_is_never_sent_to_another_host(service_url, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with start_service(other) as elsewhere:
        kinds = ("submit", "status", "list", "media")
        control(service_url, script={kind: [f"redirect:{elsewhere}/bucket/x.mp4"] for kind in kinds})
        batch = await batch_of(service_url, ["rain"], output=tmp_path / "videos")
        counts = control(elsewhere)

    assert (batch[0].state, control(service_url)["posts"]) == ("succeeded", {"rain": 1})
    assert counts["calls"].keys() <= {"media"}
    assert all("authorization" not in headers for headers in counts["media"])


ONE_BATCH = """
import asyncio, sys
from kling_async import KlingClient

async def main(url, journal):
    async with KlingClient("any-key", base_url=url) as client:
        print("open", flush=True)
        batch = await client.generate_many(["rain", "snow"], journal=journal, progress=False)
    print(len(batch.succeeded))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_second_process_on_a_journal_gets_an_error_and_sends_nothing(service_url, tmp_path):
    control(service_url, run_time=2.0)
    journal = tmp_path / "run.db"
    command = [sys.executable, "-c", ONE_BATCH, service_url, str(journal)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220, S603 - our own
    with first:
        while len(control(service_url)["jobs"]) < 2:  # noqa: ASYNC110 - the jobs are made by another process
            await asyncio.sleep(0.02)
        with pytest.raises(JournalError, match=r"run\.db"):
            await batch_of(service_url, ["rain", "snow"], journal=journal)
        assert first.stdout.read().split() == ["open", "2"]

    again = await batch_of(service_url, ["rain", "snow"], journal=journal)
    assert len(again.succeeded) == 2
    assert control(service_url)["posts"] == {"rain": 1, "snow": 1}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
async def test_a_truncated_journal_is_refused_and_stays_unchanged(service_url, tmp_path, share):
    journal = tmp_path / "run.db"
    await batch_of(service_url, ["rain", "snow"], journal=journal)
    whole = journal.read_bytes()
    cut = whole[: int(len(whole) * share)]
    journal.write_bytes(cut)

    with pytest.raises(JournalError, match=r"run\.db"):
        await batch_of(service_url, ["rain", "snow"], journal=journal)
    assert journal.read_bytes() == cut
    assert Counter(control(service_url)["posts"]).total() == 2
