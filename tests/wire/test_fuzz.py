"""Fuzz tests: recorded replies, changed in structure or in bytes, against everything that reads them.

Some hundreds in the usual run; `nox -s fuzz` tries more than 100,000.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_service import Service, Stream, VirtualLoop, prompts, run, session_for

from kling_async import Job, KlingError, ModelInfo, PollingPolicy, RetryPolicy, VideoRequest
from kling_async._secrets import Secret
from kling_async._transport.base import Reply
from kling_async._wire.codec import (
    structure_job,
    structure_model,
    structure_model_ids,
    structure_page,
    structure_rows,
    structure_upload,
)
from kling_async._wire.endpoints import QUEUE_PATH
from kling_async._wire.replies import decode, error_for
from kling_async.errors import APIResponseError, DownloadError
from kling_async.events import Notifier

REPLIES = Path(__file__).parent / "replies"
KEY = "key-of-the-tests"
RECORDED = {path.name: path.read_bytes() for path in sorted(REPLIES.iterdir()) if path.name != "README.md"}
VALUES = {name: json.loads(body) for name, body in RECORDED.items() if name.endswith(".json")}
RECORDS = [name for name, value in VALUES.items() if isinstance(value, dict) and "request_id" in value]
LISTS = [name for name in VALUES if name.startswith("list")]
OTHERS = [name for name in RECORDED if name not in {*RECORDS, *LISTS}]


class Written(str):
    """JSON text that no encoder writes."""

    __slots__ = ()


ODD = [
    *map(Written, ("NaN", "-Infinity", "1e999", "-0.0", "9" * 5000, '"\\ud800"', '"\\uDFFF\\u0000"')),
    *(Written("[" * depth + "]" * depth) for depth in (50, 400, 900, 10_000)),
    *(Written('{"error":' * depth + "0" + "}" * depth) for depth in (50, 400, 10_000)),
    *(None, True, False, 0, -1, 7, 1.5, 10**30, "", " ", "x", "\0\x1b[31m", "\N{RIGHT-TO-LEFT OVERRIDE}</script>"),
    *("success", " FAILED ", "processing", "cancelled", "finished", "x" * 5000, KEY, "../../etc", "https://x/\r\n"),
    *([], {}, [[]], [None], {"": None}, {"error": {"message": ["x"]}}, [{"url": 7}], [{"request_id": "a"}] * 3),
]  # fmt: skip
PIECES = [
    b"",
    b"\0",
    b'"',
    b"{",
    b"]",
    b",",
    b":",
    b"null",
    b"NaN",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"9" * 50,
]
STATUSES = [200] * 6 + [
    201,
    204,
    206,
    302,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    418,
    429,
    500,
    502,
    503,
    599,
    999,
]
HEADERS: list[Mapping[str, str]] = [
    {},
    {"retry-after": "0.5"},
    {"retry-after": "-1"},
    {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"retry-after": "\N{ARABIC-INDIC DIGIT SEVEN}"},
    {"location": "//"},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything within a value, itself first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def write_json(value: Any) -> str:
    """JSON text of a value that may hold text of its own."""
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {write_json(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_json, value)) + "]"
    return json.dumps(value)


def bent(value: Any, path: tuple[Any, ...], how: str, odd: Any) -> Any:
    """The value with one change at that place."""
    if not path:
        return {"drop": None, "wrap": [value], "key": {"request_id": odd, "data": value}}.get(how, odd)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key, rest = path[0], path[1:]
    if rest or how == "put":
        copy[key] = bent(copy[key], rest, how, odd)
    elif how == "drop":
        del copy[key]
    elif how == "wrap":
        copy[key] = [copy[key]] if isinstance(copy, list) else {"error": copy[key]}
    elif isinstance(copy, dict):
        copy[key if how == "key" else "status"] = odd
    else:
        copy.append(odd)
    return copy


@st.composite
def bodies(draw, names):
    """A recorded body, bent in its structure, in its bytes, in both or not at all."""
    name = draw(st.sampled_from(names))
    body = RECORDED[name]
    if name in VALUES:
        value = VALUES[name]
        for _ in range(draw(st.integers(0, 3))):
            path = draw(st.sampled_from(places(value)))
            value = bent(
                value,
                path,
                draw(st.sampled_from(["put", "put", "drop", "wrap", "key", "add"])),
                draw(st.sampled_from(ODD)),
            )
        body = write_json(value).encode()
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        until = at + draw(st.integers(0, 30))
        match draw(st.sampled_from(["cut", "insert", "flip", "double"])):
            case "cut":
                body = body[:at]
            case "insert":
                body = body[:at] + draw(st.sampled_from(PIECES)) + body[until:]
            case "flip":
                body = (
                    body[:at]
                    + bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in body[at : at + 1])
                    + body[at + 1 :]
                )
            case "double":
                body = body[:until] + body[at:]
    return body


@st.composite
def replies(draw, names):
    return Reply(draw(st.sampled_from(STATUSES)), draw(st.sampled_from(HEADERS)), draw(bodies(names)))


def named_id(body: bytes) -> str | None:
    """The id that a body names at its top, read by another reader than ours."""
    with suppress(ValueError, RecursionError):
        value = json.loads(body.decode(errors="replace").removeprefix("\ufeff"))
        found = value.get("request_id") if isinstance(value, dict) else None
        if isinstance(found, str) and found.strip():
            return found.encode(errors="replace").decode()
    return None


def answer_first(kind, *answers):
    """Answers the first calls of a kind once the service has worked on them."""
    left = list(answers)
    return lambda request, service: left.pop(0) if left and service.kind(request) == kind else None


def outcome_of(service, call, **settings):
    """What a call of an engine gives on a virtual clock, or the error of ours that it ends with."""

    async def run_call():
        return await call(session_for(service, **settings))

    with asyncio.Runner(loop_factory=VirtualLoop) as loop:
        try:
            return loop.run(run_call())
        except KlingError as error:
            check_error(error)
            return error


def check_error(error: KlingError) -> None:
    """An error can be kept, shown and sent elsewhere, and tells nothing that is secret."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert (type(again), again.message) == (type(error), error.message)
    assert len(error.message) < 2000
    assert KEY not in f"{error.message}{error.body}{error.request_id}"


fewer = settings(max_examples=settings().max_examples // 4)
"""For what takes a whole life of jobs."""

STRUCTURES = [
    structure_job,
    structure_page,
    structure_rows,
    structure_model_ids,
    structure_upload,
    lambda value: structure_model(value, model_id="m"),
]


@given(answer=replies(list(RECORDED)))
def test_a_reply_is_a_value_or_an_error_of_this_package(answer):
    for structure in STRUCTURES:
        try:
            decode(answer.body, structure, about="the submit", status=answer.status, secret=Secret(KEY))
        except APIResponseError as error:
            check_error(error)
    error = error_for(
        answer.status, answer.headers, answer.body, about="the submit", secret=Secret(KEY), now=0.0
    )
    check_error(error)
    if (said := named_id(answer.body)) is not None:
        assert error.request_id == said.replace(KEY, "***")


@given(answer=replies([*RECORDS, *OTHERS]))
def test_a_submit_is_a_job_or_an_error_and_never_loses_an_id_in_the_reply(answer):
    service = Service(after=[answer_first("submit", answer)])
    outcome = outcome_of(service, lambda engine: engine.submit(VideoRequest("x"), Notifier()))

    assert service.posts == (2 if answer.status == 429 else 1)
    if (said := named_id(answer.body)) is not None and answer.status != 429:
        if answer.status < 300 or isinstance(outcome, KlingError):
            assert outcome.request_id == said.replace(KEY, "***")
        else:
            assert outcome.request_id == "job-0"  # as the list says


@fewer
@given(answers=st.lists(replies([*RECORDS, *OTHERS]), min_size=1, max_size=3))
def test_a_wait_ends_with_a_job_or_an_error_for_any_replies_to_its_polls(answers):
    service = Service(run_time=2.0, after=[answer_first("status", *answers)])

    async def generate(engine):
        return await engine.wait(await engine.submit(VideoRequest("x"), Notifier()), Notifier())

    outcome = outcome_of(service, generate, polling=PollingPolicy(poll_interval=1.0, wait_timeout=600.0))
    assert outcome.request_id == "job-0"


@fewer
@given(answers=st.lists(replies([*LISTS, *RECORDS, *OTHERS]), min_size=1, max_size=3))
def test_a_batch_ends_with_a_result_for_each_item_for_any_replies(answers):
    service = Service(
        run_time=2.0, before=[answer_first("list", *answers), answer_first("status", answers[0])]
    )
    polling = PollingPolicy(use_lists="always", poll_interval=1.0, wait_timeout=600.0)
    with asyncio.Runner(loop_factory=VirtualLoop) as loop:
        results = loop.run(run(service, prompts(4), polling=polling))

    assert sorted(result.index for result in results) == [0, 1, 2, 3]
    assert service.posts == 4
    assert all(result.job is not None for result in results)


@given(answers=st.lists(replies([*LISTS, *OTHERS]), min_size=1, max_size=3), which=st.integers(0, 3))
def test_a_call_that_only_reads_gives_a_value_or_an_error(answers, which):
    left = list(answers)
    service = Service(before=[lambda *_: left.pop(0) if len(left) > 1 else left[0]])

    async def read_jobs(engine):
        return [job async for jobs in engine.list_pages("m", 100, Notifier()) for job in jobs]

    call, kind = [
        (lambda engine: engine.list_models(Notifier()), list),
        (lambda engine: engine.get_model("m", Notifier()), ModelInfo),
        (lambda engine: engine.get_job("a", Notifier()), Job),
        (read_jobs, list),
    ][which]
    assert isinstance(outcome_of(service, call, retry=RetryPolicy(max_retries=1)), kind | KlingError)


@given(ticket=replies(OTHERS), put=replies(OTHERS))
def test_an_upload_gives_an_address_or_an_error(picture, ticket, put):
    service = Service(before=[lambda request, _: ticket if request.method == "POST" else put])
    retry = RetryPolicy(max_retries=1)
    outcome = outcome_of(service, lambda engine: engine.upload(picture, Notifier()), retry=retry)

    assert isinstance(outcome, str | KlingError)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "in.png"
    path.write_bytes(b"png")
    return path


ADDRESSES = [
    "https://h/a.mp4",
    "http://h/a.mp4",
    "//",
    "https://[::1",
    "\ud800",
    "file:///etc/passwd",
    "https://h/a.mp4#x",
    "",
]
NUMBERS = [
    "0",
    "5",
    "11",
    "12",
    "-1",
    "+11",
    "1e1",
    "\N{SUPERSCRIPT TWO}",
    "9" * 5000,
    " 11",
    "11, 11",
    "",
    "x",
]


@st.composite
def streams(draw):
    """An answer of the storage, whatever its headers say of it."""
    headers = {
        name: draw(st.sampled_from(values))
        for name, values in {
            "content-length": NUMBERS,
            "content-range": ["bytes 0-10/11", "bytes 5-10/11", "bytes 5-4/3", "bytes */*", "items 1-2/3", *NUMBERS],
            "location": ADDRESSES,
            "content-encoding": ["gzip", "identity", "x"],
            "etag": ['"a"', 'W/"a"', "a", '"'],
            "retry-after": NUMBERS,
            "content-md5": ["", "eA==", "x"],
            "x-goog-hash": ["md5=eA==", "crc32c=x,md5=", "="],
            "repr-digest": ["sha-256=:eA==:", "sha-512=", ":", f"sha-256=:{'A' * 43}=:"],
            "transfer-encoding": ["chunked", "gzip", "", ","],
        }.items()
        if draw(st.booleans())
    }  # fmt: skip
    pieces = draw(st.lists(st.sampled_from([b"video", b" of it", b"", b"\0" * 70_000]), max_size=3))
    status = draw(st.sampled_from([*STATUSES, 200, 206, 206, 301, 307, 416]))
    return Stream(status, pieces, headers, has_end=draw(st.booleans()))


@given(answers=st.lists(streams(), min_size=1, max_size=3), url=st.sampled_from(ADDRESSES))
def test_a_download_saves_a_whole_file_or_ends_with_its_error(folder, answers, url):
    record = {"request_id": "a", "status": "success", "outcome": {"video_url": url}}
    job, path = structure_job(record), folder / "a.mp4"
    left = list(answers)
    service = Service()
    for address in ADDRESSES:
        service.media[address] = lambda _: left.pop(0) if len(left) > 1 else left[0]
    retry = RetryPolicy(max_retries=2)
    outcome = outcome_of(service, lambda engine: engine.download(job, str(path), Notifier()), retry=retry)

    assert isinstance(outcome, DownloadError) != path.exists()
    strangers = [request for request in service.requests if QUEUE_PATH not in request.url]
    assert all("authorization" not in map(str.lower, request.headers) for request in strangers)
    for file in folder.iterdir():
        file.unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")
