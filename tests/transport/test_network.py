from __future__ import annotations

import pytest

from kling_async._transport.network import Network, Proxy, parse_proxy

PROXY = Proxy("http://proxy.test:3128")


@pytest.mark.parametrize(
    "address, url, authorization",
    [
        ("http://proxy.test:3128", "http://proxy.test:3128", None),
        ("proxy.test:3128", "http://proxy.test:3128", None),
        ("https://proxy.test/", "https://proxy.test", None),
        ("http://[::1]:3128", "http://[::1]:3128", None),
        ("http://user:p%40ss@proxy.test:1", "http://proxy.test:1", "Basic dXNlcjpwQHNz"),
        ("http://user@proxy.test:1", "http://proxy.test:1", "Basic dXNlcjo="),
    ],
)
def test_the_login_of_a_proxy_is_kept_apart_from_its_url(address, url, authorization):
    proxy = parse_proxy(address)
    assert proxy == Proxy(url, authorization)
    assert authorization is None or authorization not in repr(proxy)


@pytest.mark.parametrize(
    "address",
    ["socks5://h:1", "http://", "http://user:secret@", "http://h:port", "http://h h", "http://[::1"],
)
def test_an_address_of_another_kind_is_an_error_that_does_not_quote_it(address):
    with pytest.raises(ValueError, match=r"^its ") as caught:
        parse_proxy(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "no_proxy, is_direct",
    [
        ("", False),
        (",", False),
        ("*", True),
        ("service.test", True),
        ("SERVICE.test", True),
        ("other.test, .test", True),
        ("*.test", True),
        ("service.test:8080", True),
        ("service.test:80", False),
        ("vice.test", False),
        ("api.service.test", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_ports(no_proxy, is_direct):
    network = Network({"http": PROXY}, no_proxy=no_proxy)
    assert (network.proxy_for("http://service.test:8080/a") is None) is is_direct


def test_a_scheme_without_a_proxy_is_reached_directly():
    network = Network({"https": PROXY})
    assert network.proxy_for("http://service.test/") is None
    assert network.proxy_for("https://service.test/") is PROXY


def test_an_address_in_brackets_can_be_excluded():
    assert Network({"http": PROXY}, no_proxy="[::1]").proxy_for("http://[::1]:80/") is None
