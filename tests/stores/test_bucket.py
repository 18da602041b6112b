from __future__ import annotations

import subprocess
import sys

import pytest
from independent_store import Stored, error

from kling_async import APIConnectionError, ConfigurationError, DownloadError
from kling_async._policy.object_stores import LARGEST_SINGLE_PUT_BYTES, PART_BYTES, StoredObject
from kling_async._stores import open_store
from kling_async.types import ObjectUrl

URL = ObjectUrl("s3://videos/batch")


async def put(bucket, key, content=b"123", **marks):
    return await bucket.put(key, content, size_bytes=len(content), **marks)


async def test_an_object_comes_back_with_its_size_and_its_marks(store):
    bucket = open_store(URL)
    assert await bucket.find("é b/a.mp4") is None
    assert await put(bucket, "é b/a.mp4", mark="mark", sha256="digest")
    assert store.videos == {"é b/a.mp4": b"123"}
    assert store.objects["é b/a.mp4"].headers["Content-Type"] == "video/mp4"
    assert await bucket.find("é b/a.mp4") == StoredObject(3, mark="mark", sha256="digest")
    await bucket.delete("é b/a.mp4")
    assert store.videos == {}


async def test_an_object_of_another_program_has_no_marks(store):
    store.objects["a.mp4"] = Stored(b"1234", {})
    assert await open_store(URL).find("a.mp4") == StoredObject(4)


async def test_an_object_that_is_there_stays_as_it_is(store):
    bucket = open_store(URL)
    assert await put(bucket, "a.mp4")
    assert not await put(bucket, "a.mp4", b"other")
    assert store.videos == {"a.mp4": b"123"}


async def test_a_store_without_conditional_writes_is_used_as_the_environment_says(store, monkeypatch):
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    assert await put(open_store(URL), "a.mp4")
    assert store.videos == {"a.mp4": b"123"}


@pytest.mark.unmeasured
@pytest.mark.parametrize("more, requests", [(0, 1), (1, 2 + LARGEST_SINGLE_PUT_BYTES // PART_BYTES + 1)])
async def test_a_large_video_is_sent_in_parts(store, tmp_path, more, requests):
    video = bytes(LARGEST_SINGLE_PUT_BYTES) + b"x" * more
    (tmp_path / "a.mp4").write_bytes(video)
    assert await open_store(URL).put("a.mp4", tmp_path / "a.mp4", size_bytes=len(video), mark="mark")
    assert store.videos == {"a.mp4": video}
    assert store.uploads == {}
    assert len(store.requests) == requests
    assert (await open_store(URL).find("a.mp4")).mark == "mark"


async def test_parts_of_which_one_fails_are_removed_and_show_nothing(store, tmp_path):
    store.faults.append(
        lambda request: error(503, "SlowDown") if request.query.get("partNumber") == "3" else None
    )
    video = bytes(LARGEST_SINGLE_PUT_BYTES + 1)
    (tmp_path / "a.mp4").write_bytes(video)
    with pytest.raises(APIConnectionError, match="503 SlowDown"):
        await open_store(URL).put("a.mp4", tmp_path / "a.mp4", size_bytes=len(video))
    assert store.videos == store.uploads == {}


async def test_what_fails_for_good_is_no_connection_error(store):
    bucket = open_store(URL)
    store.faults.append(lambda _: error(403, "AccessDenied"))
    for call, step in (
        (put(bucket, "a.mp4"), "write to"),
        (bucket.find("a.mp4"), "read from"),
        (bucket.delete("a.mp4"), "delete from"),
    ):
        with pytest.raises(DownloadError, match=f"may not {step} it"):
            await call


async def test_no_error_quotes_a_credential_or_an_answer(store):
    store.faults.append(lambda _: error(403, "SignatureDoesNotMatch"))
    with pytest.raises(DownloadError) as raised:
        await put(open_store(URL), "a.mp4")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert "Signature" not in f"{raised.value.__context__!r}{raised.value.__context__}"
    assert "secret-of-the-store" not in f"{open_store(URL)!r}{raised.value!r}"
    assert "<" not in str(raised.value)


@pytest.mark.parametrize(
    "url, words",
    [("az://container/x", "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY in the environment")],
)
def test_a_store_without_its_settings_is_refused(store, url, words):
    with pytest.raises(ConfigurationError, match=words):
        open_store(ObjectUrl(url))


def test_google_and_azure_are_opened_too(store, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert open_store(ObjectUrl("az://container/x")).scheme == "az"
    assert open_store(ObjectUrl("gs://bucket/x")).scheme == "gs"


def test_without_obstore_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(
        ConfigurationError,
        match=r"'s3://videos/batch' needs obstore: pip install '\.\[stores\]' in a checkout",
    ):
        open_store(URL)


def test_the_package_imports_without_obstore():
    code = "import sys, kling_async, kling_async.journal, kling_async.notebook; assert 'obstore' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
