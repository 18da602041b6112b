from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.safe_urls import is_text, reason_to_refuse
from kling_async.lines import quote_value


@pytest.mark.parametrize(
    "url",
    [
        "https://storage.googleapis.com/gmi-video-assests-prod/user-assests/org/eagle.mp4",
        "https://bucket.storage.googleapis.com/a%20b.mp4?X-Goog-Signature=abc%2F#t=1",
        "HTTPS://Host.example/a.mp4",
        "https://host.example:8443/a.mp4",
        "https://[2001:db8::1]/a.mp4",
        "https://xn--exmple-cua.example/a.mp4",
        "http://localhost:8080/a.mp4",
        "http://LOCALHOST/a.mp4",
        "http://127.0.0.1/a.mp4",
        "http://127.8.9.10:80/a.mp4",
        "http://[::1]:8080/a.mp4",
    ],
)
def test_https_is_fetched_and_plain_http_from_this_machine_only(url):
    assert reason_to_refuse(url, allow_private=True) is None


@pytest.mark.parametrize(
    "url, reason",
    [
        ("http://storage.googleapis.com/a.mp4", "only https"),
        ("http://127.1/a.mp4", "only https"),
        ("http://2130706433/a.mp4", "only https"),
        ("http://0x7f000001/a.mp4", "only https"),
        ("http://0177.0.0.1/a.mp4", "only https"),
        ("http://0.0.0.0/a.mp4", "only https"),
        ("http://[::]/a.mp4", "only https"),
        ("http://169.254.169.254/latest/meta-data", "only https"),
        ("http://localhost.evil.example/a.mp4", "only https"),
        ("http://127.0.0.1.evil.example/a.mp4", "only https"),
        ("http://127.0.0.1\\@evil.example/a.mp4", "only https"),
        ("http://127.0.0.1@evil.example/a.mp4", "only https"),
        ("http://localhost:8080@evil.example/a.mp4", "only https"),
        ("http://evil.example#@localhost/a.mp4", "only https"),
        ("file:///etc/passwd", "only https"),
        ("javascript:alert(1)", "only https"),
        ("data:video/mp4;base64,AAAA", "only https"),
        ("ftp://host.example/a.mp4", "only https"),
        ("//host.example/a.mp4", "only https"),
        ("/a.mp4", "only https"),
        ("a.mp4", "only https"),
        ("", "only https"),
        ("https:///x", "no host"),
        ("https://", "no host"),
        ("https:host.example/a.mp4", "no host"),
        ("https:\\\\host.example\\a.mp4", "no host"),
        ("https://host.example\\@evil.example/a.mp4", "characters"),
        ("https://host.example/a b.mp4", "characters"),
        ("https://host.example/a\x00.mp4", "characters"),
        ("https://host.example/a.mp4\r\nX-Injected: 1", "characters"),
        ("https://host.example/\ud800.mp4", "characters"),
        (" https://host.example/a.mp4", "characters"),
        ("https://user@host.example/a.mp4", "user name"),
        ("https://storage.googleapis.com:443@evil.example/a.mp4", "user name"),
        ("http://user:password@localhost/a.mp4", "user name"),
        ("https://[::1/a.mp4", "no URL"),
        ("https://host.example:99999/a.mp4", "no URL"),
        ("https://host.example:port/a.mp4", "no URL"),
        ("https://" + "a" * 64 + ".example/a.mp4", "no URL"),
        ("https://a..example/a.mp4", "no URL"),
    ],
    ids=quote_value,
)
def test_every_other_url_is_refused_with_the_reason(url, reason):
    assert reason in reason_to_refuse(url, allow_private=True)


HERE = "http://127.0.0.1:8000/a.mp4"


@pytest.mark.parametrize("here", [HERE, "https://localhost/a.mp4", "http://[::1]/a.mp4"])
def test_another_host_cannot_redirect_to_this_machine(here):
    assert "redirected to this machine" in reason_to_refuse(
        here, allow_private=True, came_from="https://storage.example/a.mp4"
    )
    assert reason_to_refuse(here, allow_private=True, came_from=HERE) is None
    assert reason_to_refuse("https://storage.example/a.mp4", allow_private=True, came_from=HERE) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "localhost",
        "10.0.0.5",
        "192.168.1.1:8443",
        "169.254.169.254",
        "[fd00::1]",
        "127.1",
        "0.0.0.0",  # noqa: S104 - refused
    ],
)
@pytest.mark.parametrize("came_from", [None, "https://storage.example/a.mp4"])
def test_a_far_service_leads_into_no_private_network(host, came_from):
    url = f"https://{host}/a.mp4"
    assert reason_to_refuse(url, allow_private=False, came_from=came_from) is not None
    assert reason_to_refuse("https://storage.example/a.mp4", allow_private=False, came_from=came_from) is None
    assert reason_to_refuse(url, allow_private=True) is None


@given(url=st.text() | st.from_regex(r"(https?|file|ftp):/{0,3}[a-z0-9.@:\\\[\]%#?/-]{0,30}", fullmatch=True))
def test_an_accepted_url_has_a_safe_scheme_and_a_host(url):
    if reason_to_refuse(url, allow_private=True) is None:
        parts = urlsplit(url)
        assert parts.hostname
        assert (
            parts.scheme == "https"
            or parts.hostname in {"localhost", "::1"}
            or parts.hostname.startswith("127.")
        )


@pytest.mark.parametrize(
    "content_type, expected",
    [
        ("video/mp4", False),
        ("application/octet-stream", False),
        ("", False),
        ("image/svg+xml", False),
        ("text/html; charset=utf-8", True),
        (" Text/Plain", True),
        ("application/json", True),
        ("APPLICATION/XML", True),
        ("application/problem+json;x=1", True),
        ("application/xhtml+xml", True),
        ("application/jsonp-video", False),
    ],
)
def test_the_content_type_of_a_page_or_an_error_is_text(content_type, expected):
    assert is_text(content_type) is expected
