from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._urls import parse_url


@pytest.mark.parametrize(
    "text", ["https://host.example/a.png", "HTTP://Host.example:80", "https://[2001:db8::1]/a?b#c"]
)
def test_an_http_or_https_url_with_a_host_is_a_web_url(text):
    assert parse_url(text).is_web


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.png",
        "//host.example/a.png",
        "ftp://host.example/a.png",
        "https:///a.png",
        "https:host.example",
        "https://host.example/a b.png",
        "https://host.example/a\n.png",
        " https://host.example",
        "https://host.example\\@evil.example",
        "https://host.example/\ud800.png",
    ],
    ids=ascii,
)
def test_any_other_text_is_no_web_url(text):
    assert not parse_url(text).is_web


@pytest.mark.parametrize(
    "text",
    [
        "https://[::1/a",
        "https://host:99999/",
        "https://host:port/",
        f"https://{'a' * 64}.example/",
        "https://a..b/",
    ],
)
def test_a_malformed_url_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_url(text)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.8.9.10:80", "[::1]:8080"])
def test_this_machine_is_loopback(host):
    assert parse_url(f"http://{host}/a").is_loopback


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f000001", "[::]", "localhost.evil.example", "127.0.0.1@evil.example", ""]
)
def test_any_other_host_is_not_loopback(host):
    assert not parse_url(f"http://{host}/a").is_loopback


def test_the_parts_are_told_apart():
    url = parse_url("HTTPS://user:word@Host.example:8443/a/b.png?c=d#e")
    assert (url.scheme, url.host, url.path, url.query, url.fragment) == (
        "https",
        "host.example",
        "/a/b.png",
        "c=d",
        "e",
    )
    assert url.has_credentials
    assert not parse_url("https://host.example/@").has_credentials


@given(st.text())
def test_any_text_is_parsed_or_refused_by_a_value_error(text):
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert url.is_web <= bool(url.host)
