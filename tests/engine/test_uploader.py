from __future__ import annotations

import os

import anyio
import pytest
from virtual_service import KEY, Service, always, on, reply, session_for

from kling_async import (
    APIConnectionError,
    APIStatusError,
    InternalServerError,
    InvalidRequestError,
    RetryPolicy,
    VideoRequest,
)
from kling_async._engine.submit.picture_digests import PictureDigests
from kling_async._engine.submit.uploader import Uploader, upload
from kling_async.events import Notifier

TICKET = reply(
    200, {"upload_url": "https://storage.example/put?sig=1", "public_url": "https://storage.example/a"}
)


@pytest.fixture
def anyio_backend():
    """The real loop: threads read the files, and the virtual clock would not wait for them."""
    return "asyncio"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "start.jpg"
    path.write_bytes(b"a picture")
    return path


def caller_of(service):
    return session_for(service, retry=RetryPolicy(max_retries=2, initial_delay=0.001)).api


async def upload_to(service, picture):
    api = caller_of(service)
    return await upload(api, picture, api.emitter(Notifier()))


def uploader_for(service):
    api = caller_of(service)
    return Uploader(api, api.emitter(Notifier()))


async def payload_by(uploader, request):
    return await uploader.make_payload(request, await PictureDigests().read(request))


def service_with_storage(*answers, ticket=TICKET):
    return Service(before=[on("upload-url", ticket), on("put", *answers), always("put", reply(200, b""))])


async def test_a_picture_is_uploaded_with_the_signed_type_and_without_the_key(picture):
    service = service_with_storage()
    assert await upload_to(service, picture) == "https://storage.example/a"
    ticket, put = service.requests
    assert ticket.body == b'{"file_type": "jpeg"}'
    assert (put.method, put.body, dict(put.headers)) == ("PUT", b"a picture", {"Content-Type": "image/jpeg"})
    assert KEY not in repr(put)


@pytest.mark.parametrize("lost", [APIConnectionError("reset"), reply(503, b"busy")], ids=["reset", "503"])
async def test_a_failed_put_is_retried(picture, lost):
    service = service_with_storage(lost, lost)
    assert await upload_to(service, picture) == "https://storage.example/a"
    assert service.calls["put"] == 3
    with pytest.raises((APIConnectionError, InternalServerError)):
        await upload_to(service_with_storage(lost, lost, lost), picture)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
async def test_a_storage_that_refuses_a_picture_says_nothing_of_the_key(picture, status):
    service = service_with_storage(reply(status, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(
        APIStatusError, match=rf"the upload: it refused .*HTTP {status}.*AccessDenied"
    ) as caught:
        await upload_to(service, picture)
    assert type(caught.value) is APIStatusError
    assert service.calls["put"] == 1


async def test_an_upload_url_that_is_not_https_is_not_used(picture):
    ticket = reply(200, {"upload_url": "http://other.example/put", "public_url": "https://storage.example/a"})
    service = service_with_storage(ticket=ticket)
    with pytest.raises(InvalidRequestError, match="only https"):
        await upload_to(service, picture)
    assert service.calls["put"] == 0


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "10.0.0.1", "169.254.169.254", "localhost"])
async def test_a_picture_goes_to_no_private_network_for_a_far_service(picture, host):
    ticket = reply(200, {"upload_url": f"https://{host}/put", "public_url": "https://storage.example/a"})
    service = service_with_storage(ticket=ticket)
    with pytest.raises(InvalidRequestError, match="not safe: it leads to this machine or a private network"):
        await upload_to(service, picture)
    assert service.calls["put"] == 0


async def test_the_host_of_an_upload_has_to_be_public_after_its_lookup_too(picture):
    service = service_with_storage()
    await upload_to(service, picture)
    assert [request.is_public_only for request in service.requests] == [False, True]


@pytest.mark.parametrize("place", ["https://example.com/a.png", 5, b"a.png", ""], ids=repr)
async def test_only_a_file_on_this_machine_is_uploaded(place):
    service = service_with_storage()
    with pytest.raises(InvalidRequestError, match="path="):
        await upload_to(service, place)
    assert not service.requests


async def test_a_picture_in_the_home_folder_is_uploaded(picture, monkeypatch):
    monkeypatch.setenv("HOME", str(picture.parent))
    monkeypatch.setenv("USERPROFILE", str(picture.parent))
    service = service_with_storage()
    assert await upload_to(service, "~/start.jpg") == "https://storage.example/a"
    request = VideoRequest("x", image="~/start.jpg")
    again = uploader_for(service_with_storage())
    assert (await payload_by(again, request))["image"] == "https://storage.example/a"


async def test_each_picture_is_uploaded_once_for_all_requests(picture):
    service = service_with_storage()
    uploader = uploader_for(service)
    sent = []

    async def one(number):
        sent.append(await payload_by(uploader, VideoRequest(f"prompt {number}", image=picture)))

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(one, number)
    assert {payload["image"] for payload in sent} == {"https://storage.example/a"}
    assert service.calls["put"] == 1


async def test_a_picture_that_is_a_url_is_not_uploaded():
    service = Service()
    payload = await payload_by(uploader_for(service), VideoRequest("x", image="https://example.com/a.png"))
    assert payload == {"prompt": "x", "image": "https://example.com/a.png"}
    assert service.calls == {}


async def test_a_picture_that_extra_replaces_is_not_uploaded(picture):
    service = Service()
    request = VideoRequest("x", image=picture, extra={"image": "https://example.com/a.png"})
    payload = await payload_by(uploader_for(service), request)
    assert payload["image"] == "https://example.com/a.png"
    assert service.calls == {}


async def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    with pytest.raises(InvalidRequestError, match="it is not a regular file"):
        await upload_to(Service(), pipe)
