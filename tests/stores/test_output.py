from __future__ import annotations

import logging
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from independent_store import Stored, error

from kling_async import ConfigurationError, DownloadError, KlingClient, Limits, RetryPolicy
from kling_async._engine.download.output_store import partial_folder
from kling_async._policy.file_names import whole_tag
from kling_async._policy.http_ranges import FileVersion, dump
from kling_async._policy.object_stores import job_mark
from kling_async.emulator import Emulator, EmulatorSettings, LogNormal
from kling_async.events import Downloaded, Resumed, Retrying
from kling_async.journal import Journal, NextStep
from kling_async.types import ObjectUrl

SECRET = "secret-of-the-store"
PLACE = "s3://videos/batch"
FAST = EmulatorSettings(
    queue_time=LogNormal(0.1), dispatch_time=0.1, run_time=LogNormal(0.5, 0.1), time_scale=100.0
)
pytestmark = pytest.mark.usefixtures("tiny_films")


@asynccontextmanager
async def service(**options):
    """A client, and the emulator that it uses."""
    async with (
        Emulator(FAST) as emulator,
        KlingClient(
            "key-of-the-service",
            base_url=emulator.url,
            limits=Limits(max_polls_per_second=200),
            retry=RetryPolicy(initial_delay=0.01, max_retries=3),
            **options,
        ) as client,
    ):
        yield client, emulator


def refuse(status, code, *, method="PUT", key="kling", times=None):
    """A fault of the store for the objects that have this text in their names."""
    left = [times]

    def fault(request):
        if request.method != method or key not in request.path or left[0] == 0:
            return None
        left[0] = None if left[0] is None else left[0] - 1
        return error(status, code)

    return fault


async def test_the_videos_of_a_batch_are_stored_whole_and_nothing_else_is_left(store, temporary):
    events = []
    async with service() as (client, emulator):
        batch = await client.generate_many(["a comet", "the sea"], output=PLACE, on_event=events.append)
        contents = [await emulator_content(emulator, result.job) for result in batch]
    assert [str(result.path) for result in batch] == [f"s3://videos/{key}" for key in sorted(store.videos)]
    assert [result.path.name for result in batch] == [Path(key).name for key in sorted(store.videos)]
    assert batch.paths == tuple(result.path for result in batch)
    assert all(isinstance(path, ObjectUrl) for path in batch.paths)
    assert [store.videos[result.path.key] for result in batch] == contents
    assert [record["path"] for record in batch.to_records()] == [str(path) for path in batch.paths]
    assert f"'{batch[0].path}'" in repr(batch[0])
    saved = {event.path for event in events if isinstance(event, Downloaded)}
    assert saved == set(batch.paths)
    assert [path for path in temporary.rglob("*") if path.is_file()] == []
    assert temporary.joinpath(f"kling_async-{os.getuid()}").stat().st_mode & 0o077 == 0


async def emulator_content(emulator, job):
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(job.video_url) as reply:
        return await reply.read()


async def test_one_video_goes_to_a_prefix_or_to_a_named_object(store):
    async with service() as (client, emulator):
        job = await client.generate("a comet", output="s3://videos/one.mp4")
        assert list(store.videos) == ["one.mp4"]
        assert await client.download(job, "s3://videos/two.mp4") == "s3://videos/two.mp4"
        saved = await client.download(job.request_id, f"{PLACE}/")
        assert saved.name == f"kling-a-comet-{job.request_id[:8]}.mp4"
        assert saved.key in store.videos
        await client.generate("a comet", output=PLACE)
        assert len(emulator.stats.accepted) == 2


async def test_a_missing_extra_is_an_error_before_anything_is_paid(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    async with service() as (client, emulator):
        for call in (
            client.generate("a comet", output=PLACE),
            client.generate_many(["a"], output=PLACE),
            client.check_output(PLACE),
        ):
            with pytest.raises(ConfigurationError, match=r"pip install '\.\[stores\]' in a checkout"):
                await call
        assert len(emulator.stats.accepted) == 0


async def test_a_file_url_is_a_folder_of_this_machine(tmp_path):
    async with service() as (client, _):
        batch = await client.generate_many(["a comet"], output=tmp_path.as_uri())
        assert batch[0].path.parent == tmp_path
        assert isinstance(batch[0].path, Path)


async def test_a_batch_that_runs_again_stores_nothing_twice(store, tmp_path):
    events = []
    async with service() as (client, emulator):
        for _ in range(2):
            batch = await client.generate_many(
                ["a comet", "the sea"], output=PLACE, journal=tmp_path / "run.db", on_event=events.append
            )
            assert [result.path.key for result in batch] == sorted(store.videos)
        assert len(emulator.stats.accepted) == 2
    assert store.count("PUT", "mp4") == 2
    assert {event.path for event in events if isinstance(event, Resumed)} == set(batch.paths)
    entries = list(Journal(tmp_path / "run.db").entries())
    assert [entry.path for entry in entries] == [str(path) for path in batch.paths]
    assert [entry.size_bytes for entry in entries] == [len(store.videos[path.key]) for path in batch.paths]
    assert None not in [entry.sha256 for entry in entries]
    assert {Journal.next_step(entry, output=PLACE) for entry in entries} == {NextStep.REPORT}
    assert {Journal.next_step(entry, output=f"{PLACE}/") for entry in entries} == {NextStep.REPORT}
    assert {Journal.next_step(entry, output="s3://videos/other") for entry in entries} == {NextStep.DOWNLOAD}
    assert {Journal.next_step(entry, output=tmp_path) for entry in entries} == {NextStep.DOWNLOAD}


async def test_a_video_that_was_removed_from_the_store_is_stored_again(store, tmp_path):
    async with service() as (client, emulator):
        options = {"output": PLACE, "journal": tmp_path / "run.db"}
        batch = await client.generate_many(["a comet", "the sea"], **options)
        del store.objects[batch[1].path.key]
        store.objects[batch[0].path.key] = Stored(b"cut", store.objects[batch[0].path.key].headers)
        again = await client.generate_many(["a comet", "the sea"], **options)
        assert again[1].path == batch[1].path
        assert store.videos[again[1].path.key]
        assert again[0].path == batch[0].path  # it has our mark; what was stored is not read again
        assert len(emulator.stats.accepted) == 2


async def test_a_journal_without_an_output_reports_what_it_knows_of_a_store(store, tmp_path):
    async with service() as (client, _):
        first = await client.generate_many(["a comet"], output=PLACE, journal=tmp_path / "run.db")
        store.requests.clear()
        again = await client.generate_many(["a comet"], journal=tmp_path / "run.db")
        assert again[0].path == first[0].path
        assert isinstance(again[0].path, ObjectUrl)
        local = await client.generate_many(["a comet"], output=tmp_path / "v", journal=tmp_path / "run.db")
        assert local[0].path == tmp_path / "v" / first[0].path.name
        assert store.requests == []


async def test_a_video_that_was_stored_before_the_journal_knew_is_found(store, tmp_path):
    """As after a kill between the last byte and the record: the journal has no file, and the store has the object."""
    async with service() as (client, emulator):
        journal = tmp_path / "run.db"
        batch = await client.generate_many(["a comet"], journal=journal)
        where = await client.download(
            batch[0].job, f"s3://videos/00000-a-comet-{batch[0].job.request_id[:8]}.mp4"
        )
        fetched = emulator.stats.requests["media"]
        again = await client.generate_many(["a comet"], output="s3://videos", journal=journal)
        assert again[0].path == where
        assert emulator.stats.requests["media"] == fetched
    assert store.count("PUT", "mp4") == 1


async def test_the_partial_file_of_a_video_that_is_stored_already_is_removed(store, temporary):
    async with service() as (client, _):
        job = await client.generate("a comet")
        left = partial_folder() / f"kling-{job.request_id[:8]}.mp4.part"
        left.write_bytes(b"as after a kill")
        version = FileVersion(request_id=job.request_id, size_bytes=None, validator=None, digest=None)
        left.with_name(f"{left.name}.json").write_text(dump(version))
        store.objects["a.mp4"] = Stored(b"whole", {"x-amz-meta-klingjob": job_mark(job.request_id)})
        assert await client.download(job, "s3://videos/a.mp4") == "s3://videos/a.mp4"
    assert list(partial_folder().iterdir()) == []


async def test_what_killed_processes_left_of_a_video_is_removed_when_the_store_has_it(
    store, tmp_path, temporary
):
    def leave():
        for end in ("2.part", "2.part.json", "3.part"):
            (partial_folder() / f"kling-{job.request_id[:8]}.mp4.{end}").touch(0o600)

    async with service() as (client, _):
        journal = tmp_path / "run.db"
        job = (await client.generate_many(["a comet"], journal=journal))[0].job
        for _ in ("stores the video", "finds the video"):
            leave()
            await client.generate_many(["a comet"], output=PLACE, journal=journal)
            assert list(partial_folder().iterdir()) == []
        leave()
        partial_folder().chmod(0o777)  # no folder of ours alone
        batch = await client.generate_many(["a comet"], output=PLACE, journal=journal, direct_upload=True)
        assert batch[0].path.key in store.videos
        assert len(list(temporary.joinpath(partial_folder_name()).iterdir())) == 3


def partial_folder_name():
    return f"kling_async-{os.getuid()}"


async def test_the_object_of_another_job_is_never_replaced(store):
    async with service() as (client, _):
        job = await client.generate("a comet")
        store.objects["eagle.mp4"] = Stored(b"another", {"x-amz-meta-klingjob": job_mark("other")})
        beside = await client.download(job, "s3://videos/eagle.mp4")
        assert beside == f"s3://videos/eagle-{job.request_id[:8]}.mp4"
        assert await client.download(job, "s3://videos/eagle.mp4") == beside
        assert store.videos["eagle.mp4"] == b"another"
        store.objects[beside.key] = Stored(b"another", {})
        own = await client.download(job, "s3://videos/eagle.mp4")
        assert own == f"s3://videos/eagle-{whole_tag(job.request_id)}.mp4"
        assert store.videos[beside.key] == b"another"
        store.objects[own.key] = Stored(b"another", {})
        with pytest.raises(
            DownloadError, match=r"was not saved to 's3://videos/eagle\.mp4': other objects have that"
        ):
            await client.download(job, "s3://videos/eagle.mp4")
        assert store.count("PUT") == 2


async def test_a_name_that_another_program_takes_meanwhile_is_not_replaced(store):
    def take(request):
        if request.method == "PUT":
            store.objects.setdefault("eagle.mp4", Stored(b"another", {}))

    async with service() as (client, _):
        job = await client.generate("a comet")
        store.faults.append(take)
        assert (await client.download(job, "s3://videos/eagle.mp4")).name == f"eagle-{job.request_id[:8]}.mp4"
        assert store.videos["eagle.mp4"] == b"another"


@pytest.mark.parametrize("method", ["PUT", "HEAD"])
async def test_a_store_that_is_busy_is_tried_again(store, method):
    events = []
    async with service(on_event=events.append) as (client, _):
        store.faults.append(refuse(503, "SlowDown", method=method, key="comet", times=5))
        batch = await client.generate_many(["a comet"], output=PLACE)
        assert batch[0].path.key in store.videos
    assert {event.call for event in events if isinstance(event, Retrying)} == {"store"}


async def test_a_put_whose_answer_is_lost_is_recognised(store):
    async with service() as (client, _):
        job = await client.generate("a comet")

        def lose(request):
            if request.method == "PUT" and "eagle.mp4" not in store.objects:
                marks = {"x-amz-meta-klingjob": job_mark(job.request_id)}
                store.objects["eagle.mp4"] = Stored(b"whole", marks)
                return error(500, "InternalError")
            return None

        store.faults.append(lose)
        assert await client.download(job, "s3://videos/eagle.mp4") == "s3://videos/eagle.mp4"
    assert list(store.videos) == ["eagle.mp4"]


async def test_a_video_that_is_not_stored_is_resumed_from_its_partial_file(store, tmp_path, temporary):
    async with service() as (client, emulator):
        options = {"output": PLACE, "journal": tmp_path / "run.db"}
        store.faults.append(refuse(403, "AccessDenied", key="comet"))
        first = await client.generate_many(["a comet"], **options)
        assert first[0].is_unsaved
        assert "may not write to it (it answered 403 AccessDenied)" in str(first[0].error)
        partial = [path.name for path in temporary.rglob("*") if path.is_file()]
        assert sorted(partial) == [
            f"kling-{first[0].job.request_id[:8]}.mp4.part{end}" for end in ("", ".json")
        ]
        store.faults.clear()
        second = await client.generate_many(["a comet"], **options)
        assert second[0].path.key in store.videos
        assert len(emulator.stats.accepted) == 1
        assert [path for path in temporary.rglob("*") if path.is_file()] == []


async def test_a_store_that_does_not_answer_at_a_later_run_leaves_the_video_unsaved(store, tmp_path):
    async with service() as (client, emulator):
        options = {"output": PLACE, "journal": tmp_path / "run.db"}
        first = await client.generate_many(["a comet"], **options)
        store.faults.append(refuse(403, "AccessDenied", method="HEAD", key="comet"))
        second = await client.generate_many(["a comet"], **options)
        assert second[0].is_unsaved
        store.faults.clear()
        third = await client.generate_many(["a comet"], **options)
        assert third[0].path == first[0].path
        assert len(emulator.stats.accepted) == 1


@pytest.mark.parametrize(
    "place, fault, words",
    [
        ("s3://no-such-bucket/v", None, "there is no bucket of this name"),
        (
            PLACE,
            refuse(403, "AccessDenied", key="probe"),
            "may not write to it (it answered 403 AccessDenied)",
        ),
        (PLACE, refuse(403, "", key="probe", method="HEAD"), "may not read from it (it answered 403)"),
        (PLACE, refuse(403, "InvalidAccessKeyId", key=""), "does not accept the credentials"),
        (PLACE, refuse(301, "PermanentRedirect", key=""), "set AWS_REGION in the environment"),
        (PLACE, refuse(503, "SlowDown", key=""), "it answered 503 SlowDown"),
    ],
)
@pytest.mark.parametrize("call", ["generate", "generate_many"])
async def test_a_store_that_takes_no_videos_is_an_error_before_anything_is_paid(
    store, place, fault, words, call
):
    if fault is not None:
        store.faults.append(fault)
    async with service() as (client, emulator):
        with pytest.raises(ConfigurationError) as refused:
            await getattr(client, call)("a comet" if call == "generate" else ["a comet"], output=place)
        assert len(emulator.stats.accepted) == 0
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"{call}(): Videos cannot be stored in '{place}': ")
    assert SECRET not in f"{refused.value!r}{refused.value.__cause__!r}"


async def test_no_server_is_an_error_before_anything_is_paid(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with service() as (client, emulator):
        with pytest.raises(ConfigurationError, match="no connection to it could be made"):
            await client.generate("a comet", output=PLACE)
        assert len(emulator.stats.accepted) == 0


async def test_an_endpoint_that_is_no_url_is_an_error_before_anything_is_paid(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a URL")
    async with service() as (client, emulator):
        with pytest.raises(
            ConfigurationError, match="a setting of the store in the environment is not usable"
        ):
            await client.generate("a comet", output=PLACE)
        assert len(emulator.stats.accepted) == 0


async def test_the_probe_is_removed_or_named(store, caplog):
    async with service() as (client, _):
        await client.generate_many(["a comet"], output=PLACE)
        assert all(key.endswith(".mp4") for key in store.videos)
        store.faults.append(lambda request: error(403, "AccessDenied") if "delete" in request.query else None)
        with caplog.at_level(logging.WARNING, "kling_async"):
            await client.generate_many(["the sea"], output=PLACE)
    (probe,) = [key for key in store.videos if not key.endswith(".mp4")]
    assert f"The probe 's3://videos/{probe}' stays in the store" in caplog.text


async def test_a_folder_for_partial_files_of_another_user_is_refused_before_anything_is_paid(
    store, temporary
):
    (temporary / f"kling_async-{os.getuid()}").symlink_to("/")
    async with service() as (client, emulator):
        with pytest.raises(ConfigurationError, match=r"cannot pass through .+ Set TMPDIR to another folder"):
            await client.generate_many(["a comet"], output=PLACE)
        assert len(emulator.stats.accepted) == 0


def test_a_folder_that_others_can_write_is_refused(temporary):
    partial_folder().chmod(0o770)
    with pytest.raises(PermissionError, match="is not a folder of this user alone"):
        partial_folder()


def test_a_system_without_users_has_one_folder(temporary, monkeypatch):
    monkeypatch.delattr(os, "getuid")
    assert partial_folder() == temporary / "kling_async-user"
    assert partial_folder().is_dir()


async def test_two_downloads_of_one_job_do_not_meet(store):
    async with service() as (client, _):
        job = await client.generate("a comet")
        urls = [ObjectUrl(f"s3://videos/{name}.mp4") for name in "abc"]
        from asyncio import gather

        assert await gather(*(client.download(job, url) for url in urls)) == urls
        assert len(set(store.videos.values())) == 1


async def test_the_credentials_are_in_no_journal_and_no_result(store, tmp_path):
    async with service() as (client, _):
        batch = await client.generate_many(["a comet"], output=PLACE, journal=tmp_path / "run.db")
        page = batch.write_report(tmp_path / "report.html")
    for text in (repr(batch.to_records()), page.read_text(), repr(attrs.asdict(batch[0], recurse=False))):
        assert SECRET not in text
    assert SECRET.encode() not in (tmp_path / "run.db").read_bytes()
