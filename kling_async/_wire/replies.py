"""Turns a reply into a value or into the right error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from kling_async._policy.service_clock import parse_http_date
from kling_async._secrets import Secret
from kling_async._wire.codec import failure_text, shorten_spaces
from kling_async._wire.endpoints import LIST, MAX_VALUES, MODEL, STATUS, SUBMIT, Endpoint
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

_CLIENT_ERRORS, _SERVER_ERRORS = range(400, 500), range(500, 1000)


@attrs.frozen
class _Refusal:
    """How a status is told: what happened, for Python and the command line, and the next step in Python."""

    kind: type[APIStatusError]
    meaning: str
    advice: str


_MODELS = "`client.list_models()` shows the ids of all models."
_ADDRESS = "KlingClient(base_url=...) is another address of the service."
_REJECTED = _Refusal(
    BadRequestError,
    "the service refused the request",
    "Correct what it names: `client.get_model(...)` shows the parameters of a model.",
)
_UNFINISHED = _Refusal(APIStatusError, "the service did not finish the request", "Try again later.")
"""For a 408, after which the request can have been taken, and a 425, after which it is not; neither says that the request is wrong.

Source: RFC 9110, section 15.5.9; RFC 8470, section 5.2.
"""
_BY_STATUS: Mapping[int, _Refusal] = {
    400: _REJECTED,
    401: _Refusal(
        AuthenticationError,
        "the API key was not accepted; check GMI_API_KEY",
        "KlingClient(api_key=...) takes another key.",
    ),
    402: _Refusal(
        InsufficientCreditsError,
        "the account has no credits left; add some and run again",
        "The same call is safe to repeat then: what was refused is not charged.",
    ),
    403: _Refusal(
        PermissionDeniedError,
        "this key may not do that; check the rights of its account",
        "`client.list_models()` shows the models, and `client.list_jobs()` the jobs, that a key may see.",
    ),
    404: _Refusal(NotFoundError, "the service has nothing at this address", _ADDRESS),
    408: _UNFINISHED,
    425: _UNFINISHED,
    429: _Refusal(
        RateLimitError,
        "too many requests for now",
        "Try again later; Limits(max_submits_per_hour=...) keeps the submits of a client below a quota.",
    ),
}
_NOT_FOUND: Mapping[Endpoint, _Refusal] = {
    SUBMIT: _Refusal(NotFoundError, "the service has no such model for this key", _MODELS),
    MODEL: _Refusal(NotFoundError, "the service has no such model", _MODELS),
    LIST: _Refusal(NotFoundError, "the service has no such model for this key", _MODELS),
    STATUS: _Refusal(
        NotFoundError,
        "the service has no such job for this key",
        "`client.list_jobs()` shows the ids of jobs; the service has one list for each model.",
    ),
}
_BY_STORAGE = _Refusal(
    APIStatusError, "it refused the request", "The same call again gets a new address of the file."
)
_FAILED = _Refusal(InternalServerError, "the service failed", "Try again later.")
_UNEXPECTED = _Refusal(APIStatusError, "the service answered with an unexpected status", _ADDRESS)


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
    endpoint: Endpoint | None = None,
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
        endpoint: The call; None if a storage answered, to which the key, the model and the job mean nothing.
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
    refusal = _refusal_for(status, endpoint)
    request_id = value.get("request_id") if isinstance(value, dict) else None
    is_near = near is not None and refusal.kind is NotFoundError
    end = f"; did you mean {near!r}?" if is_near else "."
    return refusal.kind(
        f"{about}: {refusal.meaning} (HTTP {status}{': ' + said if said else ''}){end}",
        status_code=status,
        body=text,
        retry_after=retry_after(headers, value, now=now),
        request_id=secret.hide_in(request_id) if isinstance(request_id, str) else None,
        advice=refusal.advice,
    )


def _refusal_for(status: int, endpoint: Endpoint | None) -> _Refusal:
    """How a status is told, for an answer to a call or of a storage."""
    if status in _SERVER_ERRORS:
        return _FAILED
    known = _BY_STATUS.get(status)
    if endpoint is None:
        # No class that speaks of the key, the credits, the model or the job: a worker would end for it, and a batch.
        refusal = _BY_STORAGE if status in _CLIENT_ERRORS else _UNEXPECTED
        return attrs.evolve(refusal, kind=RateLimitError) if known is _BY_STATUS[429] else refusal
    if known is not None and known.kind is NotFoundError:
        return _NOT_FOUND.get(endpoint, known)
    if known is not None:
        return known
    return attrs.evolve(_REJECTED, kind=APIStatusError) if status in _CLIENT_ERRORS else _UNEXPECTED


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
    moment = parse_http_date(text)
    return None if moment is None else moment - now


def excerpt(body: bytes, *, secret: Secret) -> str:
    """The beginning of a body as text, without the key or any part of it."""
    window = body[: 4 * _BODY_CHARACTERS + len(secret)]
    text = secret.hide_in(window.decode(errors="replace"))
    if len(window) < len(body) and len(secret):
        text = text[: -len(secret)]  # a key that is cut at the end was not recognised
    return text[:_BODY_CHARACTERS]
