"""What every call meets before and after its handler: a check of its `Host` header, JSON for errors, a line of the log."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

fault_name: ContextVar[str | None] = ContextVar("fault_name")
"""The name of the fault that hits the present call, set by its handler; None without a fault."""

_log = logging.getLogger("kling_async.emulator")
_LOGGED_PARAMETERS = ("model_id", "limit", "offset")
_MAX_LINE = 500
_SECRET_CHARACTERS = 8


def make_middleware(hosts: Iterable[str]) -> Middleware:
    """The middleware of a service that clients call by these names, by `localhost`, and by addresses in numbers."""
    names = frozenset(hosts)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        fault_name.set(None)
        start = time.monotonic()
        response = await _answer(request, handler, names)
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", _describe_call(request, response, time.monotonic() - start))
        return response

    return middleware


async def _answer(request: web.Request, handler: Handler, names: frozenset[str]) -> web.StreamResponse:
    """The reply of the handler; an error of the router or of aiohttp becomes JSON, as all errors of the service are."""
    host = request.headers.get("Host")
    if not is_allowed_host(host, names):
        return web.json_response(
            {
                "error": f"The emulator has no name {host!r}: call it by its address, or start it with this name in "
                "`allowed_hosts` (`--allowed-host` on the command line)."
            },
            status=421,
        )
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        text = f"{request.method} {request.path}: {error.reason}"
        return web.json_response({"error": text}, status=error.status, headers=headers)


def is_allowed_host(host: str | None, names: frozenset[str]) -> bool:
    """False if a web page may have sent the call under a name of its own, which its owner let point to this machine.

    Args:
        host: the `Host` header; None if the call has none, which no browser sends.
        names: the names of the emulator, besides `localhost` and addresses in numbers.
    """
    if host is None:
        return True
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or name in names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _describe_call(request: web.Request, response: web.StreamResponse, duration: float) -> str:
    """The call and its reply on one line of ASCII, without the key."""
    query = "&".join(f"{name}={request.query[name]}" for name in _LOGGED_PARAMETERS if name in request.query)
    path = request.path + (f"?{query}" if query else "")
    line = f"{request.method} {path} {response.status} {duration * 1000:.0f} ms"
    if fault := fault_name.get():
        line += f", fault {fault}"
    if response.status >= 400 and isinstance(response, web.Response) and isinstance(response.body, bytes):  # noqa: PLR2004 - the first status of an error
        line += f": {response.body.decode(errors='replace')}"
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    line = _mask(line, key.strip() or scheme)
    return "".join(character if " " <= character <= "~" else "?" for character in line[:_MAX_LINE])


def _mask(line: str, key: str) -> str:
    """The line without the key, in its own form and in that of JSON. A key such as `key` is masked only as a whole word."""
    for form in {key, json.dumps(key)[1:-1]} - {""}:
        pattern = re.escape(form) if len(form) >= _SECRET_CHARACTERS else rf"(?<!\w){re.escape(form)}(?!\w)"
        line = re.sub(pattern, "***", line)
    return line
