"""Turns a reply into a value or into the right error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from kling_async._secrets import Secret
from kling_async._wire.codec import failure_text, shorten_spaces
from kling_async._wire.endpoints import MAX_VALUES
from kling_async._wire.json_reader import ShapeError, load_json
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
    404: (NotFoundError, "the service has no such job or model"),
    429: (RateLimitError, "too many requests for now"),
}


def decode(
    reply_body: bytes,
    structure: Callable[[Any], T],
    *,
    about: str,
    status: int,
    secret: Secret,
    max_values: int = MAX_VALUES,
) -> T:
    """The value of a successful reply.

    Args:
        reply_body: The body of the reply.
        structure: Turns JSON into the value, raising `ShapeError`.
        about: What the call is about, such as `job 412767a6`; the error begins with it.
        status: The HTTP status.
        secret: The API key; errors show `***` for it.
        max_values: See `load_json`.

    Raises:
        APIResponseError: The body does not have the promised shape.
    """
    reply_body = secret.hide_in_json(reply_body)
    try:
        return structure(load_json(reply_body, max_values=max_values, secret=secret))
    except ShapeError as error:
        body = excerpt(reply_body, secret=secret)
        raise APIResponseError(
            f"{about}: the reply of the service breaks its contract: {error}. It begins {body[:80]!r}.",
            status_code=status,
            body=body,
        ) from error


def error_for(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    about: str,
    near: str | None = None,
    secret: Secret,
    now: float,
) -> APIStatusError:
    """The error for a reply that is not a success.

    Args:
        status: The HTTP status, outside 200 to 299.
        headers: The headers, with keys in lower case.
        body: Any bytes: JSON, HTML, XML, nothing.
        about: See `decode`.
        near: An id that was perhaps meant, for a 404.
        secret: The API key; the error shows `***` for it.
        now: Unix seconds, to which a date in Retry-After is compared.
    """
    try:
        value = load_json(body)
    except ShapeError as error:
        value = error.value
    text = excerpt(body, secret=secret)
    said = secret.hide_in(failure_text(value) or shorten_spaces(_MARKUP.sub(" ", text)))[:300]
    if status in _BY_STATUS:
        kind, meaning = _BY_STATUS[status]
    elif status >= 500:  # noqa: PLR2004 - the HTTP class
        kind, meaning = InternalServerError, "the service failed"
    else:
        kind, meaning = APIStatusError, "the service answered with an unexpected status"
    request_id = value.get("request_id") if isinstance(value, dict) else None
    end = f"; did you mean {near!r}?" if near is not None and kind is NotFoundError else "."
    return kind(
        f"{about}: {meaning} (HTTP {status}{': ' + said if said else ''}){end}",
        status_code=status,
        body=text,
        retry_after=retry_after(headers, value, now=now),
        request_id=secret.hide_in(request_id) if isinstance(request_id, str) else None,
    )


def retry_after(headers: Mapping[str, str], value: object, *, now: float) -> float | None:
    """Seconds that the service asks to wait, at most a day: from the header, as seconds or a date, or from the body.

    None if there is nothing readable, or if the date has passed: zero seconds would make the caller send at once.

    Source: RFC 9110 section 10.2.3. No rate-limited reply of the service is recorded, so the body is read too.
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


def excerpt(body: bytes, *, secret: Secret) -> str:
    """The beginning of a body as text, without the key or any part of it."""
    window = body[: 4 * _BODY_CHARACTERS + len(secret)]
    text = secret.hide_in(window.decode(errors="replace"))
    if len(window) < len(body) and len(secret):
        text = text[: -len(secret)]  # a key that is cut at the end was not recognised
    return text[:_BODY_CHARACTERS]
