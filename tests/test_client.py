from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import subprocess
import sys

import pytest
from virtual_service import Service

from kling_async import (
    APIConnectionError,
    BatchInterruptedError,
    ConfigurationError,
    DownloadError,
    InvalidRequestError,
    JobFailedError,
    KlingClient,
    Limits,
    NotFoundError,
    PollingPolicy,
    ResultState,
    RetryPolicy,
    VideoOptions,
    VideoRequest,
    WaitTimeoutError,
)
from kling_async._transport.base import Request
from kling_async.emulator import (
    Drop,
    Emulator,
    EmulatorSettings,
    Fault,
    Flood,
    JobScript,
    LogNormal,
    Reply,
    ResponseFormat,
)
from kling_async.events import Downloaded, Finished, Submitted
from kling_async.types import BatchOptions

QUICK = {
    "queue_time": LogNormal(0.5),
    "dispatch_time": 0.1,
    "run_time": LogNormal(2.0, 0.2),
    "time_scale": 100.0,
}
KEY = "secret-key-of-the-client-tests"
pytestmark = pytest.mark.usefixtures("tiny_films")


def emulator(**settings):
    return Emulator(EmulatorSettings(**QUICK, **settings))


def client_of(emulator, **settings):
    settings = {
        "limits": Limits(max_polls_per_second=200),
        "polling": PollingPolicy(poll_interval=0.02),
        "retry": RetryPolicy(initial_delay=0.01),
        **settings,
    }
    return KlingClient(KEY, base_url=emulator.url, **settings)


async def test_one_video_from_prompt_to_file(tmp_path):
    async with emulator() as service, client_of(service) as client:
        job = await client.generate("A majestic eagle at sunset", duration=5)
        path = await client.download(job, tmp_path / "deep" / "eagle.mp4")
        again = await client.download(job.request_id, f"{tmp_path}/")
    assert path.read_bytes()[4:8] == b"ftyp"
    assert again.parent == tmp_path
    assert again.name.startswith("kling-a-majestic-eagle-at-sunset-")
    assert again.read_bytes() == path.read_bytes()
    assert list(tmp_path.rglob("*.part")) == []
    assert service.stats.credentials_at_storage == 0


async def test_a_prompt_that_looks_like_a_mistake_is_sent_only_if_it_is_meant():
    async with emulator() as service, client_of(service) as client:
        for call in (client.submit, client.generate):
            with pytest.raises(
                InvalidRequestError, match=r"'a\.txt' is the name of a file: .*allow_suspicious=True"
            ):
                await call("a.txt")
        with pytest.raises(InvalidRequestError, match=r"'a\.txt' is the name of a file"):
            await client.generate_many(["a comet", "a.txt"])
        assert not service.stats.accepted
        await client.submit("a.txt", allow_suspicious=True)
        await client.generate("a.txt", allow_suspicious=True)
        await client.generate_many(["a.txt"], allow_suspicious=True)
        assert len(service.stats.accepted) == 3


@pytest.mark.parametrize("name", ["limits", "polling", "retry", "transport"])
@pytest.mark.parametrize("value", [5, "fast", {"max_retries": 5}], ids=repr)
def test_a_setting_of_another_kind_is_refused_when_given(name, value):
    with pytest.raises(ConfigurationError, match=rf"^KlingClient\(\): {name} must be .*, not "):
        KlingClient(KEY, **{name: value})
    if name in ("polling", "retry"):
        with pytest.raises(ConfigurationError, match=rf"^with_options\(\): {name} must be .*, not "):
            KlingClient(KEY).with_options(**{name: value})


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
async def test_a_client_is_neither_pickled_nor_copied(duplicate):
    client = KlingClient(KEY)
    for view in (client, client.with_options(timeout=5)):
        with pytest.raises(
            TypeError, match=r"^A KlingClient cannot be pickled or copied.* with_options\(\)"
        ) as caught:
            duplicate(view)
        assert KEY not in str(caught.value)


async def test_many_videos_are_saved_in_input_order(tmp_path):
    events = []
    prompts = [f"prompt {number}" for number in range(6)]
    async with emulator(media_cache_bytes=0) as service, client_of(service, on_event=events.append) as client:
        batch = await client.generate_many(prompts, output=tmp_path / "videos", max_concurrency=3)
    assert [result.request.prompt for result in batch] == prompts
    assert [path.name[:14] for path in batch.paths] == [
        f"{number:05d}-prompt-{number}" for number in range(6)
    ]
    assert all(path.stat().st_size > 1000 for path in batch.paths)
    assert service.stats.max_jobs_in_flight <= 3
    assert len([event for event in events if isinstance(event, Downloaded)]) == 6
    assert len([event for event in events if isinstance(event, Finished)]) == 6


async def test_a_failed_download_leaves_a_success_with_its_error(tmp_path):
    gone = Fault("media", Reply(404, "<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml"))
    async with emulator(faults=(gone,)) as service, client_of(service) as client:
        [result] = await client.generate_many(["x"], output=tmp_path)
    assert result.state is ResultState.SUCCEEDED
    assert result.path is None
    assert isinstance(result.error, DownloadError)
    assert list(tmp_path.iterdir()) == []


async def test_options_fill_what_the_items_leave_open():
    items = ["plain", VideoRequest("own", duration=10), {"prompt": "mapped", "sound": False}]
    async with emulator() as service, client_of(service) as client:
        await client.generate_many(items, duration=5, sound=True, max_concurrency=1)
        sent = [job.payload for job in service.stats.accepted]
    assert sent == [
        {"prompt": "plain", "sound": "on", "duration": "5"},
        {"prompt": "own", "sound": "on", "duration": "10"},
        {"prompt": "mapped", "sound": "off", "duration": "5"},
    ]


@pytest.mark.parametrize("call", ["submit", "generate", "generate_many", "stream_many"])
async def test_an_unknown_option_is_a_type_error_before_anything_is_sent(call):
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(
            TypeError, match=rf"^{call}\(\) has no option 'colour'; its options are .*\bduration\b"
        ):
            made = getattr(client, call)(["x"] if "many" in call else "x", colour="red")
            await made
        assert service.stats.requests == {}


@pytest.mark.parametrize(
    "call, wrong, right",
    [
        ("submit", "durations", "duration"),
        ("generate", "wait_timeouts", "wait_timeout"),
        ("wait", "waittimeout", "wait_timeout"),
        ("generate_many", "max_concurency", "max_concurrency"),
        ("generate_many", "raise_on_failures", "raise_on_failure"),
        ("stream_many", "max_cost", "max_cost_usd"),
        ("with_options", "time_out", "timeout"),
    ],
)
async def test_a_misspelt_option_is_answered_with_the_call_and_the_nearest_option(call, wrong, right):
    client = KlingClient(KEY)
    arguments = [] if call == "with_options" else ["x"]
    with pytest.raises(
        TypeError, match=rf"^{call}\(\) has no option '{wrong}'; did you mean '{right}'\?; its options"
    ):
        made = getattr(client, call)(*arguments, **{wrong: 1})
        await made


async def test_the_options_of_a_call_are_those_that_its_error_lists():
    with pytest.raises(TypeError) as caught:
        await KlingClient(KEY).generate_many(["x"], seconds=5)
    assert "did you mean" not in str(caught.value)
    for name in (*VideoOptions.__annotations__, *BatchOptions.__annotations__, "raise_on_failure"):
        assert name in str(caught.value)


async def test_a_wait_has_its_own_timeout_or_that_of_the_policy():
    slow = PollingPolicy(poll_interval=0.02, wait_timeout=0.01)
    async with emulator() as service, client_of(service, polling=slow) as client:
        job = await client.submit("x")
        with pytest.raises(WaitTimeoutError):
            await client.wait(job)
        assert (await client.wait(job, wait_timeout=None)).is_success
        assert (await client.generate("y", wait_timeout=60.0)).is_success
        with pytest.raises(WaitTimeoutError):
            await client.generate("z", wait_timeout=0)


async def test_a_wrong_wait_timeout_is_known_before_anything_is_sent():
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(ConfigurationError, match=r"wait_timeout .*'soon'"):
            await client.generate("x", wait_timeout="soon")
        assert service.stats.requests == {}


async def test_a_view_has_options_of_its_own_and_shares_the_connections():
    heard, viewed = [], []
    async with emulator() as service, client_of(service, on_event=heard.append) as client:
        view = client.with_options(
            timeout=5.0,
            polling=PollingPolicy(poll_interval=0.02, wait_timeout=0),
            retry=RetryPolicy(max_retries=0),
            on_event=viewed.append,
        )
        job = await view.submit("x")
        assert (heard, [type(event) for event in viewed]) == ([], [Submitted])
        with pytest.raises(WaitTimeoutError):
            await view.wait(job)
        assert (await client.wait(job)).is_success
        silent = view.with_options(on_event=None, polling=PollingPolicy(poll_interval=0.02))
        assert (await silent.wait(job)).is_success
        assert len(viewed) == 2
        assert client._sessions is view._sessions is silent._sessions
        assert len(client._sessions.opened) == 1
    assert client._sessions.opened == {}


async def test_a_view_keeps_what_it_is_not_told_to_change():
    client = KlingClient(KEY, timeout=7.0)
    view = client.with_options()
    assert view is not client
    assert repr(view) == repr(client)
    assert view._session().api.timeout == 7.0
    await view.aclose()


@pytest.mark.parametrize("timeout", [0, -1, None, "5"])
def test_a_view_refuses_a_timeout_that_makes_no_sense(timeout):
    with pytest.raises(ConfigurationError, match="timeout"):
        KlingClient(KEY).with_options(timeout=timeout)


async def test_failures_are_raised_only_when_asked_for():
    failing = lambda number, payload: JobScript(ending="failed", error="no") if number == 2 else None  # noqa: E731
    async with emulator(script=failing) as service, client_of(service) as client:
        batch = await client.generate_many(["a", "b", "c"], max_concurrency=1)
        assert [result.ok for result in batch] == [True, False, True]
        assert [result.index for result in batch.failed] == [1]
        with pytest.raises(ExceptionGroup, match="1 of 3 videos"):
            batch.raise_for_failures()


async def test_raise_on_failure_raises_the_group_of_all_errors():
    async with emulator(failure_rate=1.0) as service, client_of(service) as client:
        with pytest.RaisesGroup(JobFailedError, JobFailedError):
            await client.generate_many(["a", "b"], raise_on_failure=True)


async def test_an_input_that_raises_interrupts_the_batch_and_its_results_are_kept():
    def fail_midway():
        yield "a"
        yield "b"
        raise LookupError("the file ended")

    async with emulator() as service, client_of(service) as client:
        with pytest.raises(
            BatchInterruptedError, match=r"by LookupError: the file ended\. .* \(2\) are in"
        ) as caught:
            await client.generate_many(fail_midway())
    assert isinstance(caught.value.__cause__, LookupError)
    assert [result.ok for result in caught.value.batch] == [True, True]


async def test_what_an_input_raises_comes_out_of_a_stream_as_it_is():
    def fail_midway():
        yield "a"
        raise OSError("the file ended")

    async with emulator() as service, client_of(service) as client:
        with pytest.raises(OSError, match="the file ended"):
            async with client.stream_many(fail_midway()) as results:
                assert [result.ok async for result in results] == [True]


async def test_a_model_is_chosen_by_the_request_or_the_call_or_is_the_default():
    items = [VideoRequest("A", duration=5), VideoRequest("B", model="kling-v2-6"), {"prompt": "C"}]
    async with emulator() as service, client_of(service) as client:
        await client.submit(VideoRequest("A", duration=5), model="kling-v2-5-turbo")
        await client.submit(VideoRequest("A", duration=5))
        batch = await client.generate_many(items, model="kling-v2-5-turbo", max_concurrency=1)
        sent = [job.model for job in service.stats.accepted]
    assert sent[:2] == ["kling-v2-5-turbo", "kling-v2-6"]
    assert sent[2:] == ["kling-v2-5-turbo", "kling-v2-6", "kling-v2-5-turbo"]
    assert [result.request.model for result in batch] == sent[2:]


async def test_a_collection_is_checked_by_the_rules_of_the_model_that_the_call_fills():
    items = [VideoRequest("A", duration=5), VideoRequest("B", duration=7)]
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(InvalidRequestError, match="item 1: kling-v2-6: duration must be 5 or 10, not 7"):
            await client.generate_many(items)
        assert service.stats.requests == {}


async def test_every_job_is_listed_once_whatever_the_page_size():
    async with emulator(response_format=ResponseFormat(list_rows=3)) as service, client_of(service) as client:
        jobs = [await client.submit(f"prompt {number}") for number in range(8)]
        for page_size in (1, 3, 100):
            listed = [job.request_id async for job in client.list_jobs(page_size=page_size)]
            assert sorted(listed) == sorted(job.request_id for job in jobs)
        assert [job async for job in client.list_jobs("kling-v2-5-turbo")] == []


async def test_the_models_and_one_of_them():
    async with emulator() as service, client_of(service) as client:
        assert "kling-v2-6" in await client.list_models()
        info = await client.get_model("kling-v2-6")
        assert (info.id, info.kind) == ("kling-v2-6", "video")
        assert "duration" in [parameter["name"] for parameter in info.parameters]
        with pytest.raises(NotFoundError):
            await client.get_model("no-such-model")


async def test_a_local_picture_is_uploaded_once_and_its_address_sent(tmp_path):
    picture = tmp_path / "start.jpg"
    picture.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    async with emulator() as service, client_of(service) as client:
        await client.generate_many(["a", "b", "c"], image=picture)
        addresses = {job.payload["image"] for job in service.stats.accepted}
        assert len(addresses) == 1
        assert service.stats.requests["upload"] == 1
        assert addresses.pop().startswith(service.url)
        assert service.stats.credentials_at_storage == 0


async def test_a_missing_picture_is_known_before_anything_is_sent(tmp_path):
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(InvalidRequestError, match=r"There is no file .*gone\.jpg"):
            await client.generate_many(["a"], image=str(tmp_path / "gone.jpg"))
        with pytest.raises(InvalidRequestError, match="cannot be read"):
            await client.submit("a", image=str(tmp_path / "gone.jpg"))
        assert service.stats.requests == {}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that root cannot read either")
async def test_a_list_with_a_picture_that_cannot_be_read_is_refused_before_anything_is_sent(tmp_path):
    picture = tmp_path / "start.png"
    picture.symlink_to("/proc/self/mem")
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(InvalidRequestError, match=r"item 1: The picture .*start\.png' cannot be read \("):
            await client.generate_many(["A kite over dunes", {"prompt": "A red boat", "image": picture}])
        assert service.stats.requests == {}


@pytest.mark.parametrize("field", ["image", "image_tail"])
async def test_an_empty_picture_is_refused_before_anything_is_sent(tmp_path, field):
    empty, whole = tmp_path / "empty.png", tmp_path / "start.png"
    empty.touch()
    whole.write_bytes(b"png")
    pictures = {"model": "kling-v3-image-to-video", "image": whole, field: empty}
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(InvalidRequestError, match=r"The picture .*empty\.png' is an empty file"):
            await client.generate_many(["a"], **pictures)
        for call in (client.submit, client.generate):
            with pytest.raises(InvalidRequestError, match=r"empty\.png' cannot be read: it is an empty file"):
                await call("a", **pictures)
        with pytest.raises(InvalidRequestError, match="it is an empty file"):
            await client.upload(empty)
        assert service.stats.requests == {}


async def test_upload_repeats_what_the_store_refused_for_a_moment(tmp_path):
    picture = tmp_path / "start.png"
    picture.write_bytes(b"png")
    faults = (Fault("store", Reply(503, b"")), Fault("store", Drop(accepted=False), nth=2))
    async with emulator(faults=faults) as service, client_of(service) as client:
        assert (await client.upload(picture)).startswith(service.url)
        assert service.stats.requests["store"] == 3


async def test_a_place_for_videos_is_checked_before_anything_is_sent(tmp_path):
    (tmp_path / "taken").write_text("a file")
    async with emulator() as service, client_of(service) as client:
        await client.check_output(tmp_path / "new")
        await client.check_output(tmp_path / "one.mp4")
        await client.check_output(f"{tmp_path}/clips.v1/")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.v1", "new", "taken"]
        for place in (f"{tmp_path}/taken/", tmp_path / "taken" / "one.mp4"):
            with pytest.raises(
                ConfigurationError, match=r"cannot be saved (in|to) '.+taken.*': .+\. Choose another"
            ):
                await client.check_output(place)
        with pytest.raises(ConfigurationError, match="https"):
            await client.check_output("https://example.com/videos")
        assert service.stats.requests == {}


async def test_upload_says_what_the_store_refused(tmp_path):
    picture = tmp_path / "start.png"
    picture.write_bytes(b"png")
    refusal = Reply(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>", content_type="application/xml")
    async with emulator(faults=(Fault("store", refusal),)) as service, client_of(service) as client:
        with pytest.raises(Exception, match="SignatureDoesNotMatch"):
            await client.upload(picture)
        with pytest.raises(InvalidRequestError, match="the service takes"):
            await client.upload(tmp_path / "start.webp")


def test_one_client_serves_two_event_loops():
    async def serve_and_use(client_box, use):
        seed = len(client_box)  # another one gives other ids: the client remembers the jobs that it owns
        async with emulator(seed=seed) as service:
            client_box.setdefault("client", client_of(service))
            client_box["client"]._sessions.settings = client_of(service)._settings
            return await use(client_box["client"])

    box = {}
    first = asyncio.run(serve_and_use(box, lambda client: client.generate("a")))
    second = asyncio.run(serve_and_use(box, lambda client: client.generate("b")))
    assert first.is_success
    assert second.is_success
    assert box["client"]._sessions.opened == {}


async def test_a_flood_in_place_of_a_status_is_left_at_the_limit_of_that_call():
    flood = Fault("status", Flood(17 * 2**20, is_compressed=True), times=None)
    async with (
        emulator(faults=[flood]) as service,
        client_of(service, retry=RetryPolicy(max_retries=0)) as client,
    ):
        job = await client.submit("A comet")
        with pytest.raises(APIConnectionError, match="the reply is larger than 16,777,216 bytes"):
            await client.get_job(job.request_id)


async def test_bare_use_opens_by_itself_and_closes_when_told():
    async with emulator() as service:
        client = client_of(service)
        assert (await client.generate("x")).is_success
        await client.aclose()
        await client.aclose()
        assert (await client.get_job(service.stats.accepted[0].request_id)).is_success
        await client.aclose()


async def test_calls_that_are_under_way_when_the_client_closes_end_with_an_error():
    async with emulator() as service:
        client = client_of(service, retry=RetryPolicy(max_retries=0))
        session = client._session()
        await client.aclose()
        with pytest.raises(APIConnectionError, match="the client is closed") as caught:
            await session.api.transport.send(Request("GET", service.url, {}))
        assert caught.value.was_sent is False


@pytest.mark.parametrize("request_id", ["", ".", "..", " "])
async def test_an_id_that_names_another_path_is_refused(request_id):
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(InvalidRequestError):
            await client.get_job(request_id)
        assert service.stats.requests == {}


async def test_an_id_with_slashes_stays_in_its_place():
    async with emulator() as service, client_of(service) as client:
        with pytest.raises(NotFoundError):
            await client.get_job("../models")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_max_concurrency_is_a_positive_whole_number(value):
    with pytest.raises(ConfigurationError, match="max_concurrency"):
        KlingClient(KEY).stream_many(["x"], max_concurrency=value)


def test_a_client_whose_settings_were_refused_has_a_repr():
    assert repr(KlingClient.__new__(KlingClient)) == "<KlingClient without settings>"


def test_the_key_is_not_in_the_repr():
    client = KlingClient(KEY, base_url="https://example.com")
    assert repr(client) == "<KlingClient https://example.com api_key=***>"
    assert KEY not in repr(client._settings)


async def test_the_key_is_in_no_error_log_or_event(caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    told = []
    echo = Reply(400, {"error": f"bad key {KEY}", "request_id": "x"})
    faults = (Fault("submit", echo), Fault("status", Reply(500, f"<html>{KEY}</html>"), times=3))
    async with emulator(faults=faults) as service, client_of(service, on_event=told.append) as client:
        [refused] = await client.generate_many(["x"])
        await client.generate_many(["y"], output=tmp_path)
    everything = f"{refused.error!r} {refused.error} {refused.error.body} {told!r} {caplog.text}"
    assert "bad key ***" in everything
    assert KEY not in everything
    assert any(isinstance(event, Submitted) for event in told)


async def test_a_transport_of_ones_own_is_used_and_not_closed():
    service = Service()
    client = KlingClient(KEY, transport=service)
    assert (await client.submit("x")).request_id == "job-0"
    await client.aclose()
    assert service.closed == 0


def test_a_loop_that_ended_without_a_word_is_forgotten():
    client = KlingClient(KEY, transport=Service())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.submit("x"))
    loop.close()
    asyncio.run(client.submit("y"))
    assert client._sessions.opened == {}


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is POSIX's")
async def test_after_a_full_disk_the_same_call_with_the_same_client_finds_its_jobs(tmp_path, caplog):
    import resource

    prompts, path = [f"prompt {number}" for number in range(60)], tmp_path / "run.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with emulator() as service, client_of(service) as client:
        await client.generate_many(prompts[:1], journal=path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        try:
            with pytest.raises(BatchInterruptedError, match="could not be written"):
                await client.generate_many(prompts, journal=path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "could not be written" not in caplog.text  # the error of the call has said it
        before = len(service.stats.accepted)
        batch = await client.generate_many(prompts, journal=path)
        assert 1 < before < 60
        assert len(batch.succeeded) == len(service.stats.accepted) == 60


def test_the_package_is_imported_without_the_libraries_that_only_a_client_needs():
    code = "import sys, kling_async; assert not {'aiohttp', 'anyio', 'cattrs'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - this interpreter
