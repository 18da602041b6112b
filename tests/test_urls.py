from __future__ import annotations

from ipaddress import IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._urls import is_public_address, parse_url


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


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"],
)
def test_a_public_address_is_public_also_where_a_gateway_wraps_it(address):
    assert is_public_address(address)
    assert not parse_url(f"https://[{address}]/" if ":" in address else f"https://{address}/").is_private


@pytest.mark.parametrize(
    "address",
    [
        *["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"],  # noqa: S104 - refused
        *["224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1"],
        *["::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "fc00::1", "ff02::1", "2001:db8::1"],
        *["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"],
    ],
)
def test_an_address_of_this_machine_or_of_a_network_is_not_public(address):
    assert not is_public_address(address)
    assert parse_url(f"https://[{address}]/" if ":" in address else f"https://{address}/").is_private


NOT_GLOBAL = [
    *["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"],
    *["192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"],
    *["198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"],
    *[
        "::1/128",
        "::/128",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/32",
        "2001:2::/48",
    ],
    *["2001:10::/28", "2001:20::/28", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"],
    *["fec0::/10", "ff00::/8", "4000::/3", "::ffff:0:0:0/96"],
]
"""Source: IANA, special-purpose address registries of IPv4 and IPv6, and the address space of IPv6."""


@pytest.mark.parametrize("network", NOT_GLOBAL)
def test_no_address_of_a_special_network_is_public(network):
    network = ip_network(network)
    for address in (network[0], network[-1], network[network.num_addresses // 2]):
        assert not is_public_address(str(address))
        if address.version == 4:
            assert not is_public_address(f"::ffff:{address}")
            assert not is_public_address(str(IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))))


@pytest.mark.parametrize("network", NOT_GLOBAL)
def test_the_neighbours_of_a_special_network_are_public_unless_they_are_special_too(network):
    network = ip_network(network)
    for number in (int(network[0]) - 1, int(network[-1]) + 1):
        try:
            address = type(network[0])(number)
        except ValueError:  # no address is below the first or above the last
            continue
        is_special = any(
            address in other for other in map(ip_network, NOT_GLOBAL) if other.version == address.version
        )
        is_elsewhere = address.version == 6 and address not in ip_network("2000::/3")
        is_of_a_protocol = address.version == 6 and address in ip_network("2001::/23")
        assert is_public_address(str(address)) is not (is_special or is_elsewhere or is_of_a_protocol)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "10.0.0.1.",
    ],
)
def test_another_spelling_of_such_an_address_is_private_too(host):
    assert parse_url(f"https://{host}/").is_private


@pytest.mark.parametrize(
    "host", ["storage.example", "localhost.example", "1.example", "127.0.0.1.example", ""]
)
def test_a_name_is_private_only_after_its_lookup(host):
    assert not parse_url(f"https://{host}/").is_private
    assert not is_public_address(host)
