"""The calls of the service: method, path, and whether a call is safe to repeat.

Source: docs.gmicloud.ai/inference-engine/api-reference/video-api-reference; `limit` and `offset` are not
documented there, but the service answers them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import attrs

from kling_async._policy.list_prices import LIST_PRICES
from kling_async._secrets import Secret
from kling_async._urls import parse_url
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.lines import nearest_name, quote_value

DEFAULT_BASE_URL = "https://console.gmicloud.ai"
QUEUE_PATH = "/api/v1/ie/requestqueue/apikey"
MAX_VALUES = 25_000
"""More values than the record of a job has, or a reply about one thing."""

_DATABASE = re.compile(r"^\s*postgres(?:ql)?:/|://[^/\s]*:[^/\s]*@|\bpassword\s*=", re.IGNORECASE)
"""In what a caller gives for an id by mistake: the URL or the connection string of a database, with its password."""


@attrs.frozen
class Endpoint:
    """One call of the service."""

    name: str
    """The name in events."""
    method: str
    path: str
    is_repeatable: bool
    """Whether sending the call twice has no more effect than sending it once."""
    subject: str
    """What an error is about. Not the name of a call: many calls of users read a status, for example."""
    max_reply_bytes: int = 4 * 1024 * 1024
    """The longest reply that is read."""
    max_values: int = MAX_VALUES
    """The most values that a reply may have; see `load_json`."""


_JOB_BYTES = 16 * 1024 * 1024
"""The record of a job repeats its payload: a picture of 10 MB, as text, is 13.4 MB."""
_LIST_BYTES = 64 * 1024 * 1024
_LIST_VALUES = 1_000_000
"""Enough for all 10,000 jobs of an account at once, with 40 fields each, and prompts and URLs with commas and colons.

`limit` is not documented, so a service may ignore it, and a lost submit is found in the list alone.
"""

SUBMIT = Endpoint(
    "submit", "POST", "/requests", is_repeatable=False, subject="the submit", max_reply_bytes=_JOB_BYTES
)
STATUS = Endpoint(
    "status", "GET", "/requests/{id}", is_repeatable=True, subject="job {id}", max_reply_bytes=_JOB_BYTES
)
LIST = Endpoint(
    "list",
    "GET",
    "/requests",
    is_repeatable=True,
    subject="the list of jobs",
    max_reply_bytes=_LIST_BYTES,
    max_values=_LIST_VALUES,
)
MODELS = Endpoint("models", "GET", "/models", is_repeatable=True, subject="the list of models")
MODEL = Endpoint("model", "GET", "/models/{id}", is_repeatable=True, subject="model {id}")
UPLOAD_URL = Endpoint("upload", "POST", "/upload-url", is_repeatable=True, subject="the upload")


def queue_url(base_url: str) -> str:
    """The URL of the queue for a `base_url`: a bare host gets the path of the queue, and a scheme if it has none.

    Raises:
        ConfigurationError: It is not an http or https URL, holds a password, or is the URL of the chat service.
    """
    if not isinstance(base_url, str):
        raise _unusable(f"must be text such as {DEFAULT_BASE_URL!r}, not {base_url!r}")
    try:
        url = _add_scheme(base_url.strip()).rstrip("/").removesuffix(SUBMIT.path)
        parts = parse_url(url)
    except ValueError as error:
        raise _unusable(f"{base_url!r} is not a URL: {error}") from error
    if parts.has_credentials:
        raise _unusable("must hold no user name or password")
    if not parts.is_web or parts.query or parts.fragment:
        raise _unusable(f"{base_url!r} is not the URL of a service; write it like {DEFAULT_BASE_URL!r}")
    if parts.host == "api.gmi-serving.com" or parts.path == "/v1" or parts.path.endswith("/chat/completions"):
        raise _unusable(f"{base_url!r} is the chat endpoint, which makes no videos; use {DEFAULT_BASE_URL!r}")
    return url if parts.path.endswith(QUEUE_PATH) else url + QUEUE_PATH


def _add_scheme(address: str) -> str:
    """An address with a scheme: `https`, or `http` for a server on this machine.

    A single word stays as it is: more likely a slip than a host.

    Raises:
        ValueError: See `parse_url`.
    """
    if "://" in address:
        return address
    server = address.partition("/")[0]
    if parse_url(f"//{server}").is_loopback:
        return f"http://{address}"
    return f"https://{address}" if "." in server or ":" in server else address


def _unusable(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The base URL {reason}.", advice="It is base_url=, or else GMI_BASE_URL; without both, the vendor's."
    )


def list_query(model: str | None, *, limit: int, offset: int = 0) -> dict[str, object]:
    """The query of one page of a model's list; neither `limit` nor `offset` is documented, and a service may ignore them."""
    return {"model_id": model, "limit": limit, "offset": offset}


def url_for(
    queue: str,
    endpoint: Endpoint,
    *,
    id: str = "",  # noqa: A002 - the path says {id}
    query: Mapping[str, object] | None = None,
) -> str:
    """The URL of a call, percent-encoded; an id stays one segment of the path.

    Raises:
        InvalidRequestError: The id is empty, is made of dots, which name another path, or names a database.
    """
    path = endpoint.path
    if "{id}" in path:
        if isinstance(id, str) and _DATABASE.search(id):
            raise InvalidRequestError(
                "What was given for an id is the address of a database. It was not sent, because it can hold a password.",
                advice="`client.list_jobs()` shows the ids of jobs, and `client.list_models()` those of models.",
            )
        if not isinstance(id, str) or not id.strip().strip("."):
            raise InvalidRequestError(
                f"{quote_value(id)} cannot be an id of the service.",
                advice="`client.list_jobs()` shows the ids of jobs, and `client.list_models()` those of models.",
            )
        path = path.replace("{id}", quote(id, safe="", errors="replace"))
    return f"{queue}{path}?{urlencode(query, errors='replace')}" if query else f"{queue}{path}"


def suggest_id(endpoint: Endpoint, given: str) -> str | None:
    """The id that was probably meant; None if no other is likely. Ids of jobs are in lower case, those of models as listed."""
    if endpoint is STATUS:
        near = given.strip().lower()
        return None if near == given else near
    return nearest_name(given, LIST_PRICES) if endpoint is MODEL else None


def headers_for(*, api_key: Secret, organization_id: str | None, user_agent: str) -> dict[str, str]:
    """The headers of every call of the service; no other host may receive them."""
    headers = {
        "Authorization": f"Bearer {api_key.reveal()}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": user_agent,
    }
    if organization_id is not None:
        headers["X-Organization-ID"] = organization_id
    return headers
