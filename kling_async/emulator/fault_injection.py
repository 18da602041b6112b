"""Applies faults to calls on real connections."""

from __future__ import annotations

import json
import math
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
from aiohttp import web

from kling_async.emulator import faults

_NO_LINGER = struct.pack("ii", 1, 0)
_CHUNK = b" " * 2**20
_GZIP = 16 + zlib.MAX_WBITS


async def apply_fault(
    action: faults.Action | None,
    request: web.Request,
    reply: Callable[[web.Request], Awaitable[web.Response]],
    *,
    start_outage: Callable[[float], None],
) -> web.StreamResponse:
    """The response to a call under an action; None means the real response.

    Args:
        action: the action of a fault.
        request: the call.
        reply: lets the call take effect and returns the real response.
        start_outage: refuses all connections for this many real seconds.
    """
    match action:
        case None:
            return await reply(request)
        case faults.Redirect():
            return web.Response(status=action.status, headers={"Location": action.to + request.raw_path})
        case faults.Reply() | faults.Drop() | faults.Raw() | faults.Flood() | faults.Outage():
            if action.accepted:
                await reply(request)
            return await _replace_reply(action, request, start_outage)
        case _:
            return await _alter_reply(action, request, await reply(request))


async def _replace_reply(
    action: faults.Reply | faults.Drop | faults.Raw | faults.Flood | faults.Outage,
    request: web.Request,
    start_outage: Callable[[float], None],
) -> web.StreamResponse:
    match action:
        case faults.Reply():
            return _make_reply(action)
        case faults.Drop():
            return await _close_connection(request, reset=action.reset)
        case faults.Raw():
            return await _close_connection(request, action.data)
        case faults.Flood():
            return await _send_flood(request, action)
        case _:
            start_outage(action.duration)
            return await _close_connection(request, reset=True)


async def _alter_reply(
    action: faults.Stall
    | faults.SlowReply
    | faults.TruncatedReply
    | faults.WrongLength
    | faults.DuplicateReply
    | faults.Edit,
    request: web.Request,
    response: web.Response,
) -> web.StreamResponse:
    body = _body_of(response)
    match action:
        case faults.Stall():
            await anyio.sleep(action.delay)
            return response if action.then == "reply" else await _close_connection(request)
        case faults.SlowReply():
            return await _send_slowly(request, response, action)
        case faults.TruncatedReply():
            return await _truncate_reply(request, response, action)
        case faults.WrongLength():
            length = max(0, len(body) + action.difference_bytes)
            return await _close_connection(request, _format_head(response, length_bytes=length) + body)
        case faults.DuplicateReply():
            return await _send_twice(request, response, delay=action.delay)
        case _:
            return _edit_reply(response, action)


def _make_reply(reply: faults.Reply) -> web.Response:
    body, content_type = reply.body, "text/html"
    if not isinstance(body, bytes | str):
        body, content_type = json.dumps(body), "application/json"
    if isinstance(body, str):
        body = body.encode()
    headers = {"Content-Type": reply.content_type or content_type, **reply.headers}
    return web.Response(status=reply.status, body=body, headers=headers)


def _edit_reply(response: web.Response, edit: faults.Edit) -> web.Response:
    if response.content_type != "application/json":
        return response
    body = json.loads(_body_of(response))
    for row in body.get("requests", [body]):
        _edit_row(row, edit)
    text = json.dumps(body)
    for key, value in edit.raw_json.items():
        text = text.replace(json.dumps(_placeholder(key)), value)
    return web.json_response(text=text, status=response.status)


def _edit_row(row: dict[str, Any], edit: faults.Edit) -> None:
    for key, value in row.items():
        if edit.time_offset and key.endswith("_at") and isinstance(value, int):
            row[key] = value + int(edit.time_offset)
    row.update(edit.changes)
    row.update({key: _placeholder(key) for key in edit.raw_json})
    for key in edit.without:
        row.pop(key, None)


def _placeholder(key: str) -> str:
    """Text in place of a value until the JSON around it is written. No other value is the same text."""
    return f"\0{key}\0"


def _body_of(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


def _format_head(response: web.Response, *, length_bytes: int) -> bytes:
    """The bytes of the response head, with this Content-Length."""
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name != "Content-Length"]
    lines += [f"Content-Length: {length_bytes}", "", ""]
    return "\r\n".join(lines).encode()


async def _truncate_reply(
    request: web.Request, response: web.Response, action: faults.TruncatedReply
) -> web.Response:
    body = _body_of(response)
    whole = _format_head(response, length_bytes=len(body)) if action.within == "head" else body
    sent = whole[: int(len(whole) * action.share) if action.size_bytes is None else action.size_bytes]
    if action.within == "body":
        if not action.declares_full_length:
            return web.Response(status=response.status, body=sent, content_type=response.content_type)
        sent = _format_head(response, length_bytes=len(body)) + sent
    return await _close_connection(request, sent, delay=action.delay, reset=action.reset)


async def _send_slowly(
    request: web.Request, response: web.Response, action: faults.SlowReply
) -> web.StreamResponse:
    body = _body_of(response)
    slow = web.StreamResponse(status=response.status, headers=response.headers)
    slow.content_length = len(body)
    size = max(1, math.ceil(len(body) / action.pieces))
    with suppress(ConnectionError):
        await slow.prepare(request)
        for start in range(0, len(body), size):
            await slow.write(body[start : start + size])
            await anyio.sleep(action.delay)
        await slow.write_eof()
    return slow


async def _send_twice(request: web.Request, response: web.Response, *, delay: float) -> web.Response:
    """Send the response, then the same bytes again on the open connection, before its next call."""
    body = _body_of(response)
    copy = _format_head(response, length_bytes=len(body)) + body
    await response.prepare(request)
    await response.write_eof()
    await anyio.sleep(delay)
    if request.transport is not None:
        request.transport.write(copy)
    return response


async def _send_flood(request: web.Request, flood: faults.Flood) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    compressor = zlib.compressobj(wbits=_GZIP) if flood.is_compressed else None
    if compressor is None:
        response.content_length = flood.size_bytes
    else:
        response.headers["Content-Encoding"] = "gzip"
    with suppress(ConnectionError):
        await response.prepare(request)
        for start in range(0, flood.size_bytes, len(_CHUNK)):
            if request.transport is None:
                raise ConnectionResetError  # while the compressor returns no bytes, no write would raise it
            chunk = _CHUNK[: flood.size_bytes - start]
            await response.write(compressor.compress(chunk) if compressor else chunk)
            await anyio.lowlevel.checkpoint()
        await response.write_eof(compressor.flush() if compressor else b"")
    return response


async def _close_connection(
    request: web.Request, data: bytes = b"", *, delay: float = 0.0, reset: bool = False
) -> web.Response:
    """Send these bytes and close the connection. aiohttp finds it closed and never sends the returned response."""
    transport = request.transport
    if transport is not None:
        transport.write(data)
        await anyio.sleep(delay)
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.close()
    return web.Response()
