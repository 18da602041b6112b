"""Reads the body of a reply as JSON."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from kling_async._secrets import Secret
from kling_async._wire.endpoints import MAX_VALUES

_MARKS = (b",", b":", b"[", b"{")
_COUNTED_BYTES = 256 * 1024
_ID_BYTES = 1024
_LEADING_ID = re.compile(r'\s*\{\s*"request_id"\s*:\s*"([^"\\]+)"')
"""Every recorded reply about a job begins with its id, so the id is known even if the rest is broken."""


class ShapeError(ValueError):
    """A reply lacks something that the contract promises; `decode` makes an `APIResponseError` of it.

    Args:
        message: The missing part.
        value: The reply, as far as it could be read.
    """

    def __init__(self, message: str, value: object = None) -> None:
        super().__init__(message)
        self.value = value


def _parse_finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _parse_int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


_decoder = json.JSONDecoder(parse_float=_parse_finite, parse_constant=lambda _: None)
_patient_decoder = json.JSONDecoder(
    parse_float=_parse_finite, parse_int=_parse_int, parse_constant=lambda _: None
)


def load_json(body: bytes, *, max_values: int = MAX_VALUES, secret: Secret | None = None) -> Any:
    """The JSON value of a body, in UTF-8 with or without a byte order mark.

    A body of more values than `max_values`, roughly counted, is not read: to make a million values of a body blocks the
    event loop for most of a second.

    NaN, infinities, and numbers beyond a float or with more digits than Python reads become null. Broken bytes and lone
    surrogates become a replacement character.

    Args:
        body: The body.
        max_values: The most values that it may have.
        secret: The API key; `***` replaces it where it stands with characters as escapes.

    Raises:
        ShapeError: The body is not JSON, is nested too deep, or has too many values. Its `value` has the `request_id` if
            the body begins with one.
    """
    if has_more_values(body, max_values):
        begins = body[:_ID_BYTES].decode(errors="replace")
        raise ShapeError(f"the body has more than {max_values:,} values", _read_leading_id(begins))
    text = body.decode(errors="replace").removeprefix("\ufeff")
    try:
        value = _decode(text)
        if "\\ud" in text or "\\uD" in text:
            # A lone surrogate cannot be printed, stored or sent.
            repaired = json.dumps(value, ensure_ascii=False).encode(errors="replace")
            value = _decode(repaired.decode())
        if secret is not None and secret.may_be_escaped_in(body):
            # The decoder and the encoder read escapes a hundred times as fast as Python code could.
            plain = json.dumps(value, ensure_ascii=False).encode()
            hidden = secret.hide_in_json(plain)
            value = value if hidden == plain else _decode(hidden.decode())
    except (ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise ShapeError(f"the body is not readable JSON ({kind})", _read_leading_id(text)) from error
    return value


def _read_leading_id(text: str) -> dict[str, str] | None:
    found = _LEADING_ID.match(text)
    return {"request_id": found[1]} if found else None


def has_more_values(body: bytes, limit: int) -> bool:
    """Whether a body has more of the marks that go with each value of JSON; those in its texts count too."""
    if len(body) <= limit:
        return False
    count = 0
    for start in range(0, len(body), _COUNTED_BYTES):
        count += sum(body.count(mark, start, start + _COUNTED_BYTES) for mark in _MARKS)
        if count > limit:
            return True
    return False


def _decode(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer with thousands of digits
        return _patient_decoder.decode(text)
