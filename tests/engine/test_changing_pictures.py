"""A local picture that changes while a call runs: a video is paid for only with the picture that its item had."""

from __future__ import annotations

import hashlib
import json
import os
import time

import attrs
import pandas as pd
import polars as pl
import pytest
from virtual_service import Service, reply, run

from kling_async import InvalidRequestError, KlingClient, ResultState, VideoRequest
from kling_async._engine.submit.picture_digests import PictureDigests
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.location import journal_location
from kling_async._journal.open_journal import open_journal
from kling_async.emulator import JobScript
from kling_async.events import Submitted

A_MINUTE = 60.0


@attrs.define(eq=False)
class Storage:
    """Keeps what is uploaded, each upload at a URL of its own."""

    contents: dict[str, bytes] = attrs.field(factory=dict)
    service: Service = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.service = Service(run_time=0.0, before=[self._answer])

    def _answer(self, request, service):
        if service.kind(request) == "upload-url":
            url = f"https://storage.example/{service.calls['upload-url']}.png"
            return reply(200, {"upload_url": url, "public_url": url})
        if request.method == "PUT":
            self.contents[request.url] = request.body
            return reply(200, b"")
        return None

    @property
    def paid(self):
        """The prompt and the picture of each accepted request."""
        bodies = [json.loads(one.body) for one in self.service.requests if self.service.kind(one) == "submit"]
        return [(body["payload"]["prompt"], self.contents[body["payload"]["image"]]) for body in bodies]


@pytest.fixture
def storage():
    return Storage()


@pytest.fixture
def picture(tmp_path):
    return tmp_path / "cur.png"


@pytest.fixture(params=["no journal", "journal", "shared journal"])
def open_one(request, tmp_path):
    """Opens the journal of a run; None if the batch has none."""
    if request.param == "no journal":
        return lambda: None
    if request.param == "journal":
        return lambda: open_journal(str(tmp_path / "run.db"))
    from kling_async._journal.postgres.store import PostgresStore

    url = journal_location(request.getfixturevalue("database"), name="journal")

    def open_shared():
        store = PostgresStore(url)
        return WriteAheadJournal(store, run_sync=at_once)

    return open_shared


async def at_once(function, *arguments):
    return function(*arguments)


async def run_with(open_one, storage, requests, **settings):
    journal = open_one()
    try:
        results = await run(storage.service, requests, journal=journal, **settings)
    finally:
        if journal is not None:
            journal.close()
    return sorted(results, key=lambda result: result.index)


def replace(picture, content):
    new = picture.with_suffix(".new")
    new.write_bytes(content)
    new.replace(picture)


def overwrite(picture, content):
    status = picture.stat() if picture.exists() else None
    picture.write_bytes(content)
    if status is not None:  # as a quick writer on a disk with coarse times does
        os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))


def lead_to(picture, content):
    target = picture.with_name(f"{content.decode()}.png")
    target.write_bytes(content)
    picture.unlink(missing_ok=True)
    picture.symlink_to(target)


WRITERS = {"overwritten": overwrite, "replaced": replace, "a link to another": lead_to}


@pytest.fixture(params=WRITERS.values(), ids=WRITERS.keys())
def write(request):
    return request.param


def is_refused(result, reason="has changed since"):
    return (
        result.state is ResultState.NOT_SUBMITTED
        and isinstance(result.error, InvalidRequestError)
        and reason in result.error.message
    )


@pytest.mark.unmeasured
@pytest.mark.parametrize("limit", [1, 5])
async def test_no_item_is_paid_for_with_the_picture_of_another(storage, picture, open_one, write, limit):
    def frames():
        for number in range(5):
            write(picture, b"frame %d" % number)
            yield VideoRequest(f"frame {number}", image=picture)

    results = await run_with(open_one, storage, frames(), at_once=limit)
    assert all(content == prompt.encode() for prompt, content in storage.paid)
    assert {result.state for result in results} <= {ResultState.SUCCEEDED, ResultState.NOT_SUBMITTED}
    assert results[4].ok
    if limit == 1:
        assert len(storage.paid) == 5


async def test_an_async_input_that_writes_each_picture_to_one_file_pays_for_no_wrong_one(
    storage, picture, open_one
):
    async def frames():
        for number in range(5):
            overwrite(picture, b"frame %d" % number)
            yield {"prompt": f"frame {number}", "image": str(picture)}

    results = await run_with(open_one, storage, frames(), at_once=5)
    assert all(content == prompt.encode() for prompt, content in storage.paid)
    assert all(result.ok or is_refused(result) for result in results)


def grow(picture):
    with picture.open("ab") as file:
        file.write(b" and more")


def become_pipe(picture):
    picture.unlink()
    os.mkfifo(picture)


CHANGES = {
    "overwritten": (lambda picture: overwrite(picture, b"new"), "has changed since"),
    "replaced": (lambda picture: replace(picture, b"new"), "has changed since"),
    "grown": (grow, "has changed since"),
    "cut": (lambda picture: os.truncate(picture, 1), "has changed since"),
    "removed": (lambda picture: picture.unlink(), "cannot be read: No such file"),
    "a pipe": (become_pipe, "it is not a regular file"),
}


@pytest.mark.parametrize("change, reason", CHANGES.values(), ids=CHANGES.keys())
async def test_a_picture_that_changes_before_its_upload_is_not_paid_for(
    storage, picture, open_one, change, reason
):
    picture.write_bytes(b"old")

    def requests():
        yield VideoRequest("it moves", image=picture)
        change(picture)

    [result] = await run_with(open_one, storage, requests())
    assert is_refused(result, reason)
    assert storage.service.posts == 0


async def test_the_next_run_sends_the_picture_that_was_refused(storage, picture, open_one):
    picture.write_bytes(b"old")

    def requests():
        yield VideoRequest("it moves", image=picture)
        picture.write_bytes(b"new")

    await run_with(open_one, storage, requests())
    [result] = await run_with(open_one, storage, [VideoRequest("it moves", image=picture)])
    assert result.ok
    assert storage.paid == [("it moves", b"new")]


async def test_an_item_that_is_sent_again_keeps_the_picture_that_was_uploaded(storage, picture, open_one):
    throttled = JobScript(ending="failed", error="rate limit exceeded")
    storage.service.script = lambda number: throttled if number == 0 else JobScript()
    picture.write_bytes(b"old")
    seen = []

    def spoil(event):
        if isinstance(event, Submitted) and not seen:
            seen.append(event)
            picture.write_bytes(b"new")

    item = VideoRequest("it moves", image=picture)
    [result] = await run_with(open_one, storage, [item], notify=spoil)
    assert result.ok
    assert storage.paid == [("it moves", b"old")] * 2


async def test_equal_pictures_of_several_names_are_uploaded_once(storage, tmp_path):
    for name in ("a.png", "b.png", "c.jpg"):
        (tmp_path / name).write_bytes(b"cat")
    items = [VideoRequest("it moves", image=tmp_path / name) for name in ("a.png", "b.png", "c.jpg")]
    await run(storage.service, items)
    assert storage.service.calls["upload-url"] == 2  # the service wants the type of a .jpg


def client_of(storage):
    return KlingClient("key", transport=storage.service)


@pytest.mark.parametrize("call", ["generate", "submit"])
async def test_each_call_of_a_client_sends_the_picture_that_the_file_holds_then(
    storage, picture, write, call
):
    async with client_of(storage) as client:
        for content in ("one", "two"):
            write(picture, content.encode())
            await getattr(client, call)(content, image=picture)
    assert storage.paid == [("one", b"one"), ("two", b"two")]


DOORS = {
    "submit": lambda client, row: client.submit(row),
    "generate": lambda client, row: client.generate(row),
    "a mapping": lambda client, row: client.generate_many([row]),
    "a request": lambda client, row: client.generate_many([VideoRequest(**row)]),
    "pandas": lambda client, row: client.generate_many(pd.DataFrame([row])),
    "polars": lambda client, row: client.generate_many(pl.DataFrame([row])),
}


@pytest.mark.parametrize("call", DOORS.values(), ids=DOORS.keys())
async def test_no_call_pays_for_a_picture_that_changes_while_it_runs(storage, tmp_path, call):
    first, last = tmp_path / "a.png", tmp_path / "b.png"
    first.write_bytes(b"first")
    last.write_bytes(b"last")
    row = {
        "prompt": "it moves",
        "image": str(first),
        "image_tail": str(last),
        "model": "kling-v3-image-to-video",
    }

    def change(request, service):
        if request.method == "PUT" and request.body == b"first":
            last.write_bytes(b"new")

    storage.service.before.insert(0, change)
    async with client_of(storage) as client:
        with pytest.raises(InvalidRequestError, match=r"b\.png' has changed since"):
            raise (await call(client, row))[0].error
    assert list(storage.contents.values()) == [b"first"]
    assert storage.service.posts == 0


async def test_both_pictures_of_a_request_are_sent(storage, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(path.stem.encode())
    async with client_of(storage) as client:
        await client.submit("it moves", image=paths[0], image_tail=paths[1], model="kling-v3-image-to-video")
    [body] = [
        json.loads(one.body) for one in storage.service.requests if storage.service.kind(one) == "submit"
    ]
    assert [storage.contents[body["payload"][key]] for key in ("image", "image_tail")] == [b"a", b"b"]


async def test_an_unchanged_picture_is_read_once(picture, monkeypatch):
    picture.write_bytes(b"old")
    digests = PictureDigests(wall=lambda: time.time() + A_MINUTE)
    first = await digests.read(VideoRequest("x", image=picture))
    assert first == {str(picture): hashlib.sha256(b"old").hexdigest()}
    monkeypatch.delattr(hashlib, "file_digest")
    assert await digests.read(VideoRequest("y", image=picture)) == first
    picture.touch()
    with pytest.raises(AttributeError, match="file_digest"):
        await digests.read(VideoRequest("z", image=picture))


async def test_a_picture_that_was_just_written_is_read_again(picture):
    """Two versions of one size can have the same times on a disk with coarse times."""
    picture.write_bytes(b"old")
    digests = PictureDigests()
    await digests.read(VideoRequest("x", image=picture))
    overwrite(picture, b"new")
    again = await digests.read(VideoRequest("x", image=picture))
    assert again == {str(picture): hashlib.sha256(b"new").hexdigest()}
