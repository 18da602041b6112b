"""A host that a far service named is looked up, and only a public address of it is connected to."""

from __future__ import annotations

import socket

import pytest
from loopback_proxy import Loopback, run_listener

from kling_async._transport.base import Request
from kling_async._transport.network import Network, Proxy
from kling_async._transport.over_aiohttp import AiohttpTransport
from kling_async._transport.public_hosts import PrivateAddressError, PublicResolver
from kling_async.errors import APIConnectionError, ConfigurationError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def asked():
    """A server on loopback: its port, and the heads of the requests that reached it."""
    heads = []

    async def answer(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)
        writer.close()
        await writer.wait_closed()

    async with run_listener(answer, Loopback()) as server:
        yield server.port, heads


@pytest.fixture
def leads_to(monkeypatch):
    """Sets the addresses of every name, as a hostile name server does."""

    def lead(*addresses):
        def look_up(host, port, *args, **kwargs):
            return [
                (
                    socket.AF_INET6 if ":" in address else socket.AF_INET,
                    socket.SOCK_STREAM,
                    socket.IPPROTO_TCP,
                    "",
                    (address, port, 0, 0) if ":" in address else (address, port),
                )
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return lead


async def get(transport, url, *, streamed, is_public_only=True, method="GET"):
    request = Request(method, url, {}, b"" if method == "PUT" else None, 5.0, is_public_only=is_public_only)
    if not streamed:
        return (await transport.send(request)).status
    async with transport.stream(request) as reply:
        return reply.status


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_name_that_leads_to_this_machine_is_not_connected_to(transport, asked, leads_to, streamed):
    port, heads = asked
    leads_to("127.0.0.1")
    url = f"http://storage.example:{port}/a?signature=s"
    with pytest.raises(
        ConfigurationError, match=r"storage\.example has no public address.*TRUST_NETWORK=1"
    ) as caught:
        await get(transport, url, streamed=streamed)
    assert "signature" not in str(caught.value)
    assert heads == []
    assert await get(transport, url, streamed=streamed, is_public_only=False) == 200
    with pytest.raises(ConfigurationError):  # the connection that is open now is of the other pool
        await get(transport, url, streamed=streamed, method="PUT")
    assert len(heads) == 1


@pytest.mark.parametrize(
    "addresses, public",
    [
        (["10.0.0.1", "8.8.8.8", "169.254.169.254"], ["8.8.8.8"]),
        (["2606:4700::1111", "::1"], ["2606:4700::1111"]),
        (["1.1.1.1"], ["1.1.1.1"]),
    ],
)
async def test_only_the_public_addresses_of_a_name_are_used(leads_to, addresses, public):
    leads_to(*addresses)
    resolver = PublicResolver()
    assert [found["host"] for found in await resolver.resolve("storage.example", 443)] == public
    await resolver.close()


@pytest.mark.parametrize(
    "address",
    ["192.168.1.1", "172.17.0.2", "100.64.0.1", "0.0.0.0", "fd00::1", "fe80::1", "::ffff:10.0.0.1"],  # noqa: S104 - refused
)
async def test_a_name_with_no_public_address_is_refused(leads_to, address):
    leads_to(address)
    with pytest.raises(PrivateAddressError, match="has no public address"):
        await PublicResolver().resolve("storage.example", 443)


async def test_an_unknown_name_is_a_lost_connection_as_before(transport, monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(APIConnectionError, match="no connection") as caught:
        await get(transport, "http://storage.example/", streamed=True)
    assert not caught.value.was_sent


async def test_through_a_proxy_the_proxy_looks_up_the_name(asked):
    port, heads = asked
    transport = AiohttpTransport(Network({"http": Proxy(f"http://127.0.0.1:{port}")}))
    try:
        assert await get(transport, "http://storage.example/a", streamed=False) == 200
    finally:
        await transport.aclose()
    assert heads[0].startswith(b"GET http://storage.example/a ")
