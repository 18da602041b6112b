"""What is promised, against a service that shares no code with the package: POSTs are counted there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter

import pytest
from crash.kill_batches import control, service
from independent_service import content_of

from kling_async import JournalError, KlingClient, Limits, PollingPolicy, RetryPolicy

HASTE = RetryPolicy(initial_delay=0.001, max_delay=0.01)
PAUSES = "drop", "500", "502", "503", "408", "half", "stall"


@pytest.fixture
def foreign(tmp_path):
    """The address of a fresh one."""
    with service(tmp_path) as url:
        control(url, run_time=0.05, media_bytes=50_000)
        yield url


def client_of(url, **settings):
    polling = PollingPolicy(poll_interval=0.02, wait_timeout=30.0)
    limits = Limits(max_polls_per_second=1000.0)
    settings = {"timeout": 1.0, "polling": polling, "limits": limits, "retry": HASTE} | settings
    return KlingClient("any-key", base_url=url, **settings)


async def batch_of(url, prompts, **options):
    async with client_of(url) as client:
        return await client.generate_many(prompts, progress=False, **options)


def are_whole(url, batch):
    sizes = {job["request_id"]: job["bytes"] for job in control(url)["jobs"]}
    return [
        result.path is not None
        and result.path.read_bytes() == content_of(result.job.request_id, sizes[result.job.request_id])
        for result in batch
    ]


async def test_whatever_befalls_the_reply_a_prompt_is_one_post_and_its_video_is_had(foreign):
    control(foreign, script={"submit": [*PAUSES, "twice", "away:http://127.0.0.1:9"]})
    prompts = [f"prompt {number}" for number in range(len(PAUSES) + 2)]
    batch = await batch_of(foreign, prompts, max_concurrency=20)

    assert control(foreign)["posts"] == dict.fromkeys(prompts, 1)
    assert [result.job.payload["prompt"] for result in batch.succeeded] == prompts


async def test_twenty_equal_prompts_with_two_lost_replies_are_twenty_jobs_each_with_its_owner(foreign):
    control(foreign, script={"submit": [*[None] * 5, "drop", *[None] * 7, "500"]})
    batch = await batch_of(foreign, ["the same"] * 20, max_concurrency=6)
    seen = control(foreign)

    assert seen["posts"] == {"the same": 20}
    assert {result.job.request_id for result in batch.succeeded} == {
        job["request_id"] for job in seen["jobs"]
    }
    assert len(batch.succeeded) == 20


async def test_twelve_503s_a_new_word_and_a_job_that_vanishes_for_a_while_end_no_wait(foreign):
    control(foreign, run_time=0.5, script={"status": [*["503"] * 12, "word", "404", "404", "404", "404"]})
    async with client_of(foreign) as client:
        assert (await client.generate("rain")).is_success

    assert control(foreign)["posts"] == {"rain": 1}


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_download_that_is_cut_at_every_tenth_and_lied_about_is_whole_in_the_end(
    foreign, tmp_path, ranges
):
    faults = [*(f"cut:0.{tenth}" for tenth in range(10)), "long", "short", "drop", "503", "stall"]
    control(foreign, ranges=ranges, script={"media": faults})
    prompts = [f"prompt {number}" for number in range(len(faults))]
    batch = await batch_of(foreign, prompts, output=tmp_path / "videos")

    assert are_whole(foreign, batch) == [True] * len(faults)
    assert {path.suffix for path in (tmp_path / "videos").iterdir()} == {".mp4"}


async def test_another_host_is_not_shown_the_key(foreign, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with service(other) as elsewhere:
        kinds = ("submit", "status", "list", "media")
        control(foreign, script={kind: [f"away:{elsewhere}/bucket/x.mp4"] for kind in kinds})
        batch = await batch_of(foreign, ["rain"], output=tmp_path / "videos")
        seen = control(elsewhere)

    assert (batch[0].state, control(foreign)["posts"]) == ("succeeded", {"rain": 1})
    assert seen["calls"].keys() <= {"media"}
    assert all("authorization" not in headers for headers in seen["media"])


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


async def test_a_second_process_on_a_journal_is_told_and_sends_nothing(foreign, tmp_path):
    control(foreign, run_time=2.0)
    journal = tmp_path / "run.db"
    command = [sys.executable, "-c", ONE_BATCH, foreign, str(journal)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220, S603 - our own
    with first:
        while len(control(foreign)["jobs"]) < 2:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.02)
        with pytest.raises(JournalError, match=r"run\.db"):
            await batch_of(foreign, ["rain", "snow"], journal=journal)
        assert first.stdout.read().split() == ["open", "2"]

    again = await batch_of(foreign, ["rain", "snow"], journal=journal)
    assert len(again.succeeded) == 2
    assert control(foreign)["posts"] == {"rain": 1, "snow": 1}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
async def test_a_truncated_journal_is_refused_and_left_as_it_is(foreign, tmp_path, share):
    journal = tmp_path / "run.db"
    await batch_of(foreign, ["rain", "snow"], journal=journal)
    whole = journal.read_bytes()
    cut = whole[: int(len(whole) * share)]
    journal.write_bytes(cut)

    with pytest.raises(JournalError, match=r"run\.db"):
        await batch_of(foreign, ["rain", "snow"], journal=journal)
    assert journal.read_bytes() == cut
    assert Counter(control(foreign)["posts"]).total() == 2
