"""Faults put to work on a real connection."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Awaitable, Callable

import anyio
from aiohttp import web

from kling_async.emulator.faults import Action, Cut, Drop, Edit, LieAboutLength, Raw, Reply, Stall

_NO_LINGER = struct.pack("ii", 1, 0)


async def befall(
    action: Action | None, request: web.Request, answer: Callable[[web.Request], Awaitable[web.Response]]
) -> web.Response:
    """Answer a call as the action wants it; None answers the truth.

    Args:
        action: what befalls the call.
        request: the call.
        answer: lets the call take effect and gives the true response.
    """
    if action is None:
        return await answer(request)
    if isinstance(action, Reply | Drop | Raw):
        if action.accepted:
            await answer(request)
        return await _instead(action, request)
    return await _spoiled(action, request, await answer(request))


async def _instead(action: Reply | Drop | Raw, request: web.Request) -> web.Response:
    if isinstance(action, Reply):
        return _false_reply(action)
    if isinstance(action, Drop):
        return await _hang_up(request, reset=action.reset)
    return await _hang_up(request, action.data)


async def _spoiled(
    action: Stall | Edit | Cut | LieAboutLength, request: web.Request, response: web.Response
) -> web.Response:
    if isinstance(action, Stall):
        await anyio.sleep(action.delay)
        return response if action.then == "answer" else await _hang_up(request)
    if isinstance(action, Edit):
        return _edited(response, action)
    body = _body(response)
    if isinstance(action, Cut):
        size = len(body) // 2 if action.size_bytes is None else action.size_bytes
        return await _hang_up(
            request, _head(response, length_bytes=len(body)) + body[:size], delay=action.delay
        )
    length = max(0, len(body) + action.difference_bytes)
    return await _hang_up(request, _head(response, length_bytes=length) + body)


def _false_reply(reply: Reply) -> web.Response:
    body, content_type = reply.body, "text/html"
    if not isinstance(body, bytes | str):
        body, content_type = json.dumps(body), "application/json"
    if isinstance(body, str):
        body = body.encode()
    headers = {"Content-Type": reply.content_type or content_type, **reply.headers}
    return web.Response(status=reply.status, body=body, headers=headers)


def _edited(response: web.Response, edit: Edit) -> web.Response:
    told = json.loads(_body(response))
    for row in told.get("requests", [told]):
        row.update(edit.changes)
        for key in edit.without:
            row.pop(key, None)
    return web.json_response(told, status=response.status)


def _body(response: web.Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


def _head(response: web.Response, *, length_bytes: int) -> bytes:
    """The head of the response under the length given, as it goes over the wire."""
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name != "Content-Length"]
    lines += [f"Content-Length: {length_bytes}", "", ""]
    return "\r\n".join(lines).encode()


async def _hang_up(
    request: web.Request, last_words: bytes = b"", *, delay: float = 0.0, reset: bool = False
) -> web.Response:
    """Say these bytes and close the connection; the response given back finds it closed and is never sent."""
    transport = request.transport
    if transport is not None:
        transport.write(last_words)
        await anyio.sleep(delay)
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.close()
    return web.Response()
