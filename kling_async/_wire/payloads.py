"""Makes the bodies that are sent, and the payload of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kling_async._wire.endpoints import SUBMIT
from kling_async._wire.json_reader import has_more_values
from kling_async.catalog import wire_name
from kling_async.errors import InvalidRequestError
from kling_async.requests import VideoRequest, model_of, parameters_of

_PLAIN = frozenset({str, int, float, bool, type(None)})
_encode = json.JSONEncoder(allow_nan=False).encode
_RECORD_BYTES, _RECORD_VALUES = 64 * 1024, 1_000
"""Room for what the record of a job has beside the payload."""


def payload_of(request: VideoRequest) -> dict[str, Any]:
    """The payload of a request: fields that the caller left out are left out, and `extra` overwrites the others.

    The payload is the identity of a paid item: a later run recognises the item in its journal by the fingerprint of this
    value. If the form of a value changes here, every finished item is a new one, and the same call buys it again. A
    test pins the fingerprints (`tests/engine/test_identity_of_paid_items.py`).

    Sound is sent as on/off, duration as text, cfg_scale as a number.
    Source: docs.gmicloud.ai/model-quickstarts/video/kling-v2-6, read as `docs/explanation/wire.md` argues.
    """
    payload: dict[str, Any] = {}
    for field, value in parameters_of(request).items():
        if field == "sound" and isinstance(value, bool):
            value = "on" if value else "off"  # noqa: PLW2901 - the service's word
        elif field == "duration" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # noqa: PLW2901 - the service's form
        payload[wire_name(model_of(request), field)] = value
    return {**payload, **request.extra}


def plain_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with values of plain types alone.

    The caller's values can be of classes that override `==` or `str()`, and after a POST nothing of the caller may raise.
    """
    if all(type(value) in _PLAIN for value in payload.values()):
        return payload
    plain: dict[str, Any] = json.loads(_encode(payload))
    return plain


def submit_body(model: str, payload: Mapping[str, Any]) -> bytes:
    """The body of a submit.

    Raises:
        InvalidRequestError: The record of the job, which repeats the payload, would be too large to be read.
    """
    body = _encode({"model": model, "payload": payload}).encode()
    longest, most = SUBMIT.max_reply_bytes - _RECORD_BYTES, SUBMIT.max_values - _RECORD_VALUES
    broken = []
    if len(body) > longest:
        broken.append(f"has {len(body):,} bytes, and at most {longest:,} are allowed")
    if has_more_values(body, most):
        broken.append(f"has more than {most:,} commas, colons and brackets")
    if broken:
        raise InvalidRequestError(
            f"{model[:60]}: the payload {'; and it '.join(broken)}. The service repeats the payload in the record of its job, and the "
            "client could not read that record: shorten the longest text."
        )
    return body


def upload_body(file_type: str) -> bytes:
    """The body that asks for an upload URL; the file type is a suffix without its dot."""
    return json.dumps({"file_type": file_type}).encode()
