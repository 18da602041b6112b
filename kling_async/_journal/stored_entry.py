"""Makes the entry of a row, and refuses each value that kling_async does not write: another program has changed the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.store import refuse_row

Decoder: TypeAlias = Callable[[Any], Any]
"""Returns the value of a column as an entry has it; an error says that it cannot."""

_END_OF_DATES = 2.5e11
"""Unix seconds, shortly before the last year of `datetime`."""


def is_amount(value: object) -> bool:
    """Whether a value is an amount of money: a number, and not a negative one."""
    return type(value) is Decimal and value.is_finite() and value >= 0


def _is_number(value: object) -> bool:
    return type(value) in {int, float} and 0 <= value < _END_OF_DATES  # type: ignore[operator]  # also no NaN


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_object(value: object) -> bool:
    return type(value) is dict


_CHECKS: Mapping[str, tuple[bool, Callable[[object], bool]]] = {
    "key": (True, _is_text),
    "fingerprint": (False, _is_text),
    "occurrence": (False, _is_count),
    "model": (False, _is_text),
    "payload": (False, _is_object),
    "state": (False, lambda value: type(value) is EntryState),
    "sent_at": (True, _is_number),
    "has_service_time": (False, lambda value: type(value) is bool),
    "timeout": (True, _is_number),
    "request_id": (True, _is_text),
    "record": (True, _is_object),
    "error": (True, _is_text),
    "path": (True, _is_text),
    "size_bytes": (True, _is_count),
    "sha256": (True, _is_text),
    "cost_usd": (True, is_amount),
    "attempt_cost_usd": (True, is_amount),
    "attempts": (False, _is_count),
    "index": (False, _is_count),
}
"""By column, whether an entry can be without a value, and what its values are."""


def pass_through(value: Any) -> Any:
    """The value: the store has it as an entry has it."""
    return value


def list_decoders(columns: Mapping[str, Decoder], *, decode_text: Decoder) -> Mapping[str, Decoder]:
    """The decoders of a row after its number, in their order: those of the identity, then those of the columns.

    Args:
        columns: The decoders of the columns of a store, by name.
        decode_text: Returns the text that the store has encoded.
    """
    return {"key": decode_text, "fingerprint": pass_through, "occurrence": pass_through, **columns}


def build_stored_entry(row: Sequence[Any], decoders: Mapping[str, Decoder]) -> Entry:
    """The entry of a row: its number, its key, its fingerprint, its occurrence, and the columns of a store.

    Args:
        row: The values, as the store has them.
        decoders: See `list_decoders`.

    Raises:
        JournalError: Another program has changed the row.
    """
    number, *stored = row
    values: dict[str, Any] = {}
    for (name, decode), value in zip(decoders.items(), stored, strict=True):
        may_be_none, is_ours = _CHECKS[name]
        try:
            values[name] = found = decode(value)
        except (ArithmeticError, RecursionError, TypeError, ValueError):
            refuse_row(number, name)
        if not (is_ours(found) or (found is None and may_be_none)):
            refuse_row(number, name)
    identity = Identity(values.pop("key"), values.pop("fingerprint"), values.pop("occurrence"))
    return Entry(number=number, identity=identity, **values)
