"""Faults put to work on a real connection."""

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

from kling_async.emulator.faults import (
    Action,
    Drop,
    DuplicateReply,
    Edit,
    Flood,
    Outage,
    Raw,
    Redirect,
    Reply,
    SlowReply,
    Stall,
    TruncatedReply,
    WrongLength,
)

_NO_LINGER = struct.pack("ii", 1, 0)
_CHUNK = b" " * 2**20
_GZIP = 16 + zlib.MAX_WBITS


async def apply_fault(
    action: Action | None,
    request: web.Request,
    answer: Callable[[web.Request], Awaitable[web.Response]],
    *,
    start_outage: Callable[[float], None],
) -> web.StreamResponse:
    """Answer a call as the action wants it; None answers the truth.

    Args:
        action: what befalls the call.
        request: the call.
        answer: lets the call take effect and gives the true response.
        start_outage: refuses all connections for so many real seconds.
    """
    match action:
        case None:
            return await answer(request)
        case Redirect():
            return web.Response(status=action.status, headers={"Location": action.to + request.raw_path})
        case Reply() | Drop() | Raw() | Flood() | Outage():
            if action.accepted:
                await answer(request)
            return await _replace_reply(action, request, start_outage)
        case _:
            return await _alter_reply(action, request, await answer(request))


async def _replace_reply(
    action: Reply | Drop | Raw | Flood | Outage, request: web.Request, start_outage: Callable[[float], None]
) -> web.StreamResponse:
    match action:
        case Reply():
            return _make_reply(action)
        case Drop():
            return await _close_connection(request, reset=action.reset)
        case Raw():
            return await _close_connection(request, action.data)
        case Flood():
            return await _send_flood(request, action)
        case _:
            start_outage(action.duration)
            return await _close_connection(request, reset=True)


async def _alter_reply(
    action: Stall | SlowReply | TruncatedReply | WrongLength | DuplicateReply | Edit,
    request: web.Request,
    response: web.Response,
) -> web.StreamResponse:
    body = _body_of(response)
    match action:
        case Stall():
            await anyio.sleep(action.delay)
            return response if action.then == "answer" else await _close_connection(request)
        case SlowReply():
            return await _send_slowly(request, response, action)
        case TruncatedReply():
            return await _truncate_reply(request, response, action)
        case WrongLength():
            length = max(0, len(body) + action.difference_bytes)
            return await _close_connection(request, _format_head(response, length_bytes=length) + body)
        case DuplicateReply():
            return await _send_twice(request, response, delay=action.delay)
        case _:
            return _edit_reply(response, action)


def _make_reply(reply: Reply) -> web.Response:
    body, content_type = reply.body, "text/html"
    if not isinstance(body, bytes | str):
        body, content_type = json.dumps(body), "application/json"
    if isinstance(body, str):
        body = body.encode()
    headers = {"Content-Type": reply.content_type or content_type, **reply.headers}
    return web.Response(status=reply.status, body=body, headers=headers)


def _edit_reply(response: web.Response, edit: Edit) -> web.Response:
    if response.content_type != "application/json":
        return response
    told = json.loads(_body_of(response))
    for row in told.get("requests", [told]):
        _edit_row(row, edit)
    text = json.dumps(told)
    for key, value in edit.raw_json.items():
        text = text.replace(json.dumps(_placeholder(key)), value)
    return web.json_response(text=text, status=response.status)


def _edit_row(row: dict[str, Any], edit: Edit) -> None:
    for key, value in row.items():
        if edit.time_offset and key.endswith("_at") and isinstance(value, int):
            row[key] = value + int(edit.time_offset)
    row.update(edit.changes)
    row.update({key: _placeholder(key) for key in edit.raw_json})
    for key in edit.without:
        row.pop(key, None)


def _placeholder(key: str) -> str:
    """Stands for a value until the JSON around it is written; nobody's own text has it."""
    return f"\0{key}\0"


def _body_of(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


def _format_head(response: web.Response, *, length_bytes: int) -> bytes:
    """The head of the response under the length given, as it goes over the wire."""
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name != "Content-Length"]
    lines += [f"Content-Length: {length_bytes}", "", ""]
    return "\r\n".join(lines).encode()


async def _truncate_reply(request: web.Request, response: web.Response, cut: TruncatedReply) -> web.Response:
    body = _body_of(response)
    whole = _format_head(response, length_bytes=len(body)) if cut.within == "head" else body
    kept = whole[: int(len(whole) * cut.share) if cut.size_bytes is None else cut.size_bytes]
    if cut.within == "body":
        if not cut.declares_full_length:
            return web.Response(status=response.status, body=kept, content_type=response.content_type)
        kept = _format_head(response, length_bytes=len(body)) + kept
    return await _close_connection(request, kept, delay=cut.delay, reset=cut.reset)


async def _send_slowly(request: web.Request, response: web.Response, drip: SlowReply) -> web.StreamResponse:
    body = _body_of(response)
    slow = web.StreamResponse(status=response.status, headers=response.headers)
    slow.content_length = len(body)
    size = max(1, math.ceil(len(body) / drip.pieces))
    with suppress(ConnectionError):
        await slow.prepare(request)
        for start in range(0, len(body), size):
            await slow.write(body[start : start + size])
            await anyio.sleep(drip.delay)
        await slow.write_eof()
    return slow


async def _send_twice(request: web.Request, response: web.Response, *, delay: float) -> web.Response:
    """Send the response as usual, then the same bytes while the connection is kept for the next call."""
    body = _body_of(response)
    words = _format_head(response, length_bytes=len(body)) + body
    await response.prepare(request)
    await response.write_eof()
    await anyio.sleep(delay)
    if request.transport is not None:
        request.transport.write(words)
    return response


async def _send_flood(request: web.Request, flood: Flood) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    packer = zlib.compressobj(wbits=_GZIP) if flood.is_compressed else None
    if packer is None:
        response.content_length = flood.size_bytes
    else:
        response.headers["Content-Encoding"] = "gzip"
    with suppress(ConnectionError):
        await response.prepare(request)
        for start in range(0, flood.size_bytes, len(_CHUNK)):
            if request.transport is None:
                raise ConnectionResetError  # packing gives nothing to write for long, which would tell
            chunk = _CHUNK[: flood.size_bytes - start]
            await response.write(packer.compress(chunk) if packer else chunk)
            await anyio.lowlevel.checkpoint()
        await response.write_eof(packer.flush() if packer else b"")
    return response


async def _close_connection(
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
