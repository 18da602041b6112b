"""(status, body) to a value, or to the right error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from kling_async._wire.codec import ShapeError, failure_text, load_json, one_line
from kling_async.errors import (
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InsufficientCreditsError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

T = TypeVar("T")

_BODY_CHARACTERS = 500
_MAX_PAUSE = 24 * 3600.0
_MARKUP = re.compile(r"<[^>]*>")

_BY_STATUS: Mapping[int, tuple[type[APIStatusError], str]] = {
    400: (BadRequestError, "the service refused the request"),
    401: (AuthenticationError, "the API key was not accepted; check GMI_API_KEY"),
    402: (InsufficientCreditsError, "the account has no credits left; add some and run again"),
    403: (PermissionDeniedError, "this key may not do that"),
    404: (NotFoundError, "the service does not know it"),
    429: (RateLimitError, "too many requests for now"),
}


def decode(reply_body: bytes, structure: Callable[[Any], T], *, call: str, status: int, secret: str) -> T:
    """The value that a successful reply holds.

    Args:
        reply_body: The body as it was answered.
        structure: Turns JSON into the value, raising `ShapeError`.
        call: How an error names the call.
        status: The HTTP status that was answered.
        secret: The API key, to be removed from what an error quotes.

    Raises:
        APIResponseError: The body is not of the promised shape.
    """
    try:
        return structure(load_json(reply_body))
    except ShapeError as error:
        body = excerpt(reply_body, secret=secret)
        raise APIResponseError(
            f"{call}: the service's answer is not what its contract promises: {error}. It began {body[:80]!r}.",
            status_code=status,
            body=body,
        ) from error


def error_for(
    status: int, headers: Mapping[str, str], body: bytes, *, call: str, secret: str, now: float
) -> APIStatusError:
    """The error that a reply which is no success stands for.

    Args:
        status: The HTTP status, outside 200 to 299.
        headers: With lower-case names.
        body: Anything: JSON, HTML, XML, nothing.
        call: How the error names the call.
        secret: The API key, to be removed from what the error quotes.
        now: Unix seconds, against which a date in Retry-After is read.
    """
    try:
        value = load_json(body)
    except ShapeError as error:
        value = error.value
    text = excerpt(body, secret=secret)
    said = hide_secret(failure_text(value) or one_line(_MARKUP.sub(" ", text)), secret)[:300]
    if status in _BY_STATUS:
        kind, meaning = _BY_STATUS[status]
    elif status >= 500:  # noqa: PLR2004 - the HTTP class
        kind, meaning = InternalServerError, "the service failed"
    else:
        kind, meaning = APIStatusError, "the service answered with an unexpected status"
    request_id = value.get("request_id") if isinstance(value, dict) else None
    return kind(
        f"{one_line(call)}: {meaning} (HTTP {status}{': ' + said if said else ''}).",
        status_code=status,
        body=text,
        retry_after=retry_after(headers, value, now=now),
        request_id=hide_secret(request_id, secret) if isinstance(request_id, str) else None,
    )


def retry_after(headers: Mapping[str, str], value: object, *, now: float) -> float | None:
    """Seconds the service asks to wait: in the header as seconds or as a date, or in the body; at most a day.

    None where it says nothing readable, and where its moment has passed: "at once" is no pause, and a caller who
    took it for one would send without any.

    Source: RFC 9110 section 10.2.3. What the service really sends is not recorded, so the body is read too.
    """
    values: list[object] = [headers.get("retry-after")]
    for place in (value, value.get("error") if isinstance(value, dict) else None):
        if isinstance(place, dict):
            values += [place.get("retry_after"), place.get("retryAfter")]
    return next((seconds for value in values if (seconds := _read_seconds(value, now=now)) is not None), None)


def _read_seconds(value: object, *, now: float) -> float | None:
    if isinstance(value, str):
        value = _parse_retry_after(value, now=now)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    return float(min(value, _MAX_PAUSE))


def _parse_retry_after(text: str, *, now: float) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def excerpt(body: bytes, *, secret: str) -> str:
    """The beginning of a body as text, without the key or a part of it."""
    window = body[: 4 * _BODY_CHARACTERS + len(secret)]
    text = hide_secret(window.decode(errors="replace"), secret)
    if len(window) < len(body) and secret:
        text = text[: -len(secret)]  # where the window ends within the key, its beginning was not recognised
    return text[:_BODY_CHARACTERS]


def hide_secret(text: str, secret: str) -> str:
    """The text without the key."""
    return text.replace(secret, "***") if secret else text
