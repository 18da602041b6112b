"""Jobs whose files would have one name, which shows eight characters of an id: none replaces the video of another job."""

from __future__ import annotations

import pytest
from virtual_service import Service, run, session_for
from virtual_storage import Storage, job_with

from kling_async._policy.file_names import tag, whole_tag
from kling_async.emulator import JobScript
from kling_async.events import Notifier

UUIDS = [f"550e8400-e29b-41d4-a716-44665544000{number}" for number in range(4)]


def ids_with_one_digest():
    """Two ids that are no UUIDs, and whose digests begin alike."""
    known = {}
    for number in range(1_000_000):
        other = known.setdefault(tag(f"job-{number}"), number)
        if other != number:
            return [f"job-{other}", f"job-{number}"]
    raise AssertionError("no two ids have one tag")


IDS = {"UUIDs": UUIDS, "other ids": ids_with_one_digest()}


@pytest.fixture(params=IDS.values(), ids=IDS.keys())
def ids(request):
    assert len({tag(one) for one in request.param}) == 1
    return request.param


async def download(request_id, place, *, content=None, ascii_names=False):
    session = session_for(Storage(content or request_id.encode()).service())
    job = job_with(request_id=request_id, payload={"prompt": "rain 雨"})
    return await session.downloader.download_to(
        job, place, emit=session.api.emitter(Notifier()), ascii_names=ascii_names
    )


@pytest.mark.parametrize("ascii_names", [False, True])
@pytest.mark.parametrize("place", ["folder/", "storm.mp4"])
async def test_each_job_has_a_file_of_its_own(tmp_path, ids, place, ascii_names):
    saved = [await download(one, f"{tmp_path}/{place}", ascii_names=ascii_names) for one in ids]
    assert [one.path.read_bytes() for one in saved] == [one.encode() for one in ids]
    again = [await download(one, f"{tmp_path}/{place}", ascii_names=ascii_names) for one in ids]
    assert [one.path for one in again] == [one.path for one in saved]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(ids)


async def test_a_new_version_of_a_video_replaces_no_file_but_that_of_its_job(tmp_path):
    first, second = UUIDS[:2]
    await download(first, f"{tmp_path}/", content=b"first")
    saved = [await download(second, f"{tmp_path}/", content=content) for content in (b"second", b"newer")]
    assert saved[0].path == saved[1].path
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"first", b"newer"]


async def test_two_batches_in_one_folder_keep_the_videos_of_both(tmp_path):
    paths = []
    for request_id in UUIDS[:2]:
        service = Service(script=lambda _, name=request_id: JobScript(request_id=name))
        [result] = await run(service, ["rain"], folder=tmp_path)
        paths.append(result.path)
    assert [path.name for path in paths] == [
        "00000-rain-550e8400.mp4",
        f"00000-550e8400-{whole_tag(UUIDS[1])}.mp4",
    ]
    assert len({path.read_bytes() for path in paths}) == 2
