from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._secrets import Secret
from kling_async._wire import endpoints
from kling_async._wire.endpoints import (
    DEFAULT_BASE_URL,
    LIST,
    MAX_VALUES,
    MODEL,
    MODELS,
    QUEUE_PATH,
    STATUS,
    SUBMIT,
    UPLOAD_URL,
    Endpoint,
    headers_for,
    queue_url,
    suggest_id,
    url_for,
)
from kling_async.errors import ConfigurationError, InvalidRequestError

QUEUE = DEFAULT_BASE_URL + QUEUE_PATH


@pytest.mark.parametrize(
    "base_url, queue",
    [
        ("https://console.gmicloud.ai", QUEUE),
        (" https://console.gmicloud.ai/ ", QUEUE),
        (QUEUE, QUEUE),
        (QUEUE + "/", QUEUE),
        (QUEUE + "/requests", QUEUE),
        ("HTTPS://Console.GMIcloud.ai", "HTTPS://Console.GMIcloud.ai" + QUEUE_PATH),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080" + QUEUE_PATH),
        ("http://[::1]:8080", "http://[::1]:8080" + QUEUE_PATH),
        ("https://gateway.example/gmi", "https://gateway.example/gmi" + QUEUE_PATH),
        ("console.gmicloud.ai", QUEUE),
        (" console.gmicloud.ai/ ", QUEUE),
        (QUEUE.removeprefix("https://") + "/requests", QUEUE),
        ("console.gmicloud.ai:443", "https://console.gmicloud.ai:443" + QUEUE_PATH),
        ("gateway:8443/gmi", "https://gateway:8443/gmi" + QUEUE_PATH),
        ("localhost", "http://localhost" + QUEUE_PATH),
        ("127.0.0.1:8080", "http://127.0.0.1:8080" + QUEUE_PATH),
        ("[::1]:8080", "http://[::1]:8080" + QUEUE_PATH),
    ],
)
def test_a_bare_host_gets_the_queues_path(base_url, queue):
    assert queue_url(base_url) == queue


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "console",
        "./console",
        "console.gmicloud.ai:port",
        "console.gmicloud.ai?x=1",
        "user:password@console.gmicloud.ai",
        "//console.gmicloud.ai",
        "https//console.gmicloud.ai",
        "https:console.gmicloud.ai",
        "mailto:me",
        "ftp://console.gmicloud.ai",
        "https://",
        "https:///path",
        "https://host?x=1",
        "https://host#x",
        "https://ho st",
        "https://host/\x00",
        "https://host\\path",
        "https://host:99999",
        "https://host:port",
        "https://[::1",
        "https://" + "a" * 64 + ".example",
        "https://a..example",
        "https://user@host",
        "https://user:password@host",
        None,
        b"https://host",
        7,
    ],
)
def test_a_base_url_that_is_not_the_url_of_a_service_is_refused(base_url):
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        queue_url(base_url)
    assert "password@" not in caught.value.message


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.gmi-serving.com",
        "https://api.gmi-serving.com/v1",
        "api.gmi-serving.com/v1",
        "https://API.gmi-serving.com:443/v1/chat/completions",
        "https://other.example/v1/",
        "https://other.example/llm/chat/completions",
    ],
)
def test_the_chat_endpoint_is_refused_with_the_right_url(base_url):
    with pytest.raises(
        ConfigurationError, match=r"is the chat endpoint, .* use 'https://console.gmicloud.ai'"
    ):
        queue_url(base_url)


def test_a_reply_about_one_thing_is_shorter_than_a_list():
    longest = {
        call.name: call.max_reply_bytes // 2**20 for call in (SUBMIT, STATUS, LIST, MODELS, MODEL, UPLOAD_URL)
    }
    assert longest == {"submit": 16, "status": 16, "list": 64, "models": 4, "model": 4, "upload": 4}


def test_a_call_has_its_path_and_query():
    assert url_for(QUEUE, SUBMIT) == f"{QUEUE}/requests"
    assert url_for(QUEUE, STATUS, id="a-1") == f"{QUEUE}/requests/a-1"
    query = {"model_id": "Kling V2&x", "limit": 100}
    assert url_for(QUEUE, LIST, query=query) == f"{QUEUE}/requests?model_id=Kling+V2%26x&limit=100"
    assert url_for(QUEUE, LIST, query={"model_id": "\ud800"}) == f"{QUEUE}/requests?model_id=%3F"


@given(
    any_id=st.text(st.characters(exclude_categories=["Cs"])).filter(
        lambda text: text.strip().strip(".") and "://" not in text and "=" not in text
    )
)
def test_an_id_stays_one_segment_of_the_path(any_id):
    url = url_for(QUEUE, MODEL, id=any_id)
    path = urlsplit(url).path
    assert path.startswith(f"{QUEUE_PATH}/models/")
    assert unquote(path.removeprefix(f"{QUEUE_PATH}/models/")) == any_id
    assert path.count("/") == QUEUE_PATH.count("/") + 2
    assert url.isascii()
    assert "?" not in url


def test_an_id_with_dots_and_slashes_stays_one_segment():
    assert url_for(QUEUE, STATUS, id="../../x\ud800") == f"{QUEUE}/requests/..%2F..%2Fx%3F"


@pytest.mark.parametrize("id_", ["", " ", ".", "..", " .. ", "...", "\n", None, 7])
def test_an_impossible_id_is_refused_before_anything_is_sent(id_):
    with pytest.raises(InvalidRequestError, match="cannot be an id"):
        url_for(QUEUE, STATUS, id=id_)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://me:pw1@db.example/videos",
        " Postgres://me@db.example/videos",
        "postgresql:/me:pw1@db.example/videos",
        "mysql://me:pw1@db.example/videos",
        "host=db.example password = pw1",
    ],
)
def test_the_address_of_a_database_is_no_id_and_is_shown_nowhere(given):
    with pytest.raises(InvalidRequestError, match="the address of a database") as refusal:
        url_for(QUEUE, STATUS, id=given)
    assert "pw1" not in str(refusal.value)


def test_an_id_of_the_service_can_look_a_little_like_an_address():
    assert url_for(QUEUE, STATUS, id="job://a=b") == f"{QUEUE}/requests/job%3A%2F%2Fa%3Db"


@pytest.mark.parametrize(
    "endpoint, given, near",
    [
        (STATUS, "412767A6-5A1C", "412767a6-5a1c"),
        (STATUS, " 412767a6", "412767a6"),
        (STATUS, "412767a6", None),
        (MODEL, "Kling-V2-6", "kling-v2-6"),
        (MODEL, "kling-v2.6", "kling-v2-6"),
        (MODEL, "wan", None),
        (LIST, "", None),
    ],
)
def test_an_id_that_is_not_known_has_the_one_that_was_probably_meant(endpoint, given, near):
    assert suggest_id(endpoint, given) == near


def test_only_the_paid_call_is_not_safe_to_repeat():
    calls = [value for value in vars(endpoints).values() if isinstance(value, Endpoint)]
    assert [call.name for call in calls if not call.is_repeatable] == ["submit"]
    assert len({call.name for call in calls}) == len(calls) == 6


def test_every_call_has_the_key_and_the_organization_if_there_is_one():
    headers = headers_for(api_key=Secret("key"), organization_id=None, user_agent="me/1")
    assert headers == {
        "Authorization": "Bearer key",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "me/1",
    }
    assert headers_for(api_key=Secret("key"), organization_id="org", user_agent="me/1") == {
        **headers,
        "X-Organization-ID": "org",
    }


def test_only_a_list_has_more_values_than_a_record():
    calls = (SUBMIT, STATUS, LIST, MODELS, MODEL, UPLOAD_URL)
    assert {call.name for call in calls if call.max_values > MAX_VALUES} == {"list"}
