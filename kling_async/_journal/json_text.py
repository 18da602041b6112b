"""Payloads and records as JSON text, in which any text survives: what is not ASCII is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

to_json = json.JSONEncoder(separators=(",", ":"), default=str).encode
"""The JSON text of a value."""


def encode_record(record: Mapping[str, Any] | None) -> str | None:
    """The record as JSON; None if it is nested too deep."""
    try:
        return None if record is None else to_json(record)
    except (RecursionError, ValueError):
        return None


def decode_record(stored: str | None) -> dict[str, Any] | None:
    """The record; None if it cannot be read."""
    try:
        record = json.loads(stored or "null")
    except (RecursionError, TypeError, ValueError):
        return None
    return record if isinstance(record, dict) else None
