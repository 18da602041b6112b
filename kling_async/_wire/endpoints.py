"""The service's calls as a table: method, path, and whether a call is safe to repeat.

Source: docs.gmicloud.ai/inference-engine/api-reference/video-api-reference; `limit` and `offset` are not
documented there but answered by the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import attrs

from kling_async._urls import parse_url
from kling_async.errors import ConfigurationError, InvalidRequestError

DEFAULT_BASE_URL = "https://console.gmicloud.ai"
QUEUE_PATH = "/api/v1/ie/requestqueue/apikey"


@attrs.frozen
class Endpoint:
    """One call of the service."""

    name: str
    """How errors and events name it."""
    method: str
    path: str
    is_safe: bool
    """Whether sending it twice does nothing that sending it once does not."""


SUBMIT = Endpoint("submit", "POST", "/requests", is_safe=False)
STATUS = Endpoint("status", "GET", "/requests/{id}", is_safe=True)
LIST = Endpoint("list", "GET", "/requests", is_safe=True)
MODELS = Endpoint("models", "GET", "/models", is_safe=True)
MODEL = Endpoint("model", "GET", "/models/{id}", is_safe=True)
UPLOAD_URL = Endpoint("upload", "POST", "/upload-url", is_safe=True)


def queue_url(base_url: str) -> str:
    """The queue's base address for what the user gave: a bare host gets the queue's path appended.

    Raises:
        ConfigurationError: It is no http(s) URL, holds a password, or is the address of the chat service.
    """
    if not isinstance(base_url, str):
        raise ConfigurationError(f"base_url must be text such as {DEFAULT_BASE_URL!r}, not {base_url!r}.")
    url = base_url.strip().rstrip("/").removesuffix(SUBMIT.path)
    try:
        parts = parse_url(url)
    except ValueError as error:
        raise ConfigurationError(f"base_url={base_url!r} is not a URL: {error}.") from error
    if parts.has_credentials:
        raise ConfigurationError("base_url must hold no user name or password; the key is api_key=.")
    if not parts.is_web or parts.query or parts.fragment:
        raise ConfigurationError(
            f"base_url={base_url!r} is not the address of a service; write it like {DEFAULT_BASE_URL!r}."
        )
    if parts.host == "api.gmi-serving.com" or parts.path == "/v1" or parts.path.endswith("/chat/completions"):
        raise ConfigurationError(
            f"base_url={base_url!r} is the chat endpoint, where videos cannot be made; "
            f"use {DEFAULT_BASE_URL!r} or leave base_url out."
        )
    return url if parts.path.endswith(QUEUE_PATH) else url + QUEUE_PATH


def url_for(
    queue: str,
    endpoint: Endpoint,
    *,
    id: str = "",  # noqa: A002 - the path says {id}
    query: Mapping[str, object] | None = None,
) -> str:
    """The call's address, percent-encoded; an id cannot leave its place in the path.

    Raises:
        InvalidRequestError: The id is empty, or a dot segment that would name another path.
    """
    path = endpoint.path
    if "{id}" in path:
        if not isinstance(id, str) or not id.strip().strip("."):
            raise InvalidRequestError(f"{endpoint.name}: {id!r} is not an id that the service gives.")
        path = path.replace("{id}", quote(id, safe="", errors="replace"))
    return f"{queue}{path}?{urlencode(query, errors='replace')}" if query else f"{queue}{path}"


def headers_for(*, api_key: str, organization_id: str | None, user_agent: str) -> dict[str, str]:
    """The headers that every call of the service carries, and that no other host may see."""
    headers = {
        "Authorization": f"Bearer {api_key}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": user_agent,
    }
    if organization_id is not None:
        headers["X-Organization-ID"] = organization_id
    return headers
