"""Cells: values as tables, files and shells have them, read as plain Python values.

The libraries of tables are recognised by the public attributes of their values, and never imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

_PLAIN = frozenset({str, int, float, bool, type(None)})
_GAPS = frozenset({"NAType", "MaskedConstant"})
"""The types of pandas.NA and numpy.ma.masked."""
_WORDS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
_EXACT = 2**53
"""A float holds every whole number below this one, so that no two names become the same."""
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(?!\d{3}\Z)\d+", re.ASCII)
"""A number as a spreadsheet with semicolons writes it; `1,000` can be a thousand too, and is not read."""


def to_plain(value: Any) -> Any:
    """The Python value of a scalar of NumPy, pandas or PyArrow, None for a gap; any other value as it is.

    Source: `numpy.generic.item`, which a tensor without dimensions has too, and `pyarrow.Scalar.as_py`.
    """
    if type(value) in _PLAIN:
        return value
    if hasattr(value, "as_py"):
        return value.as_py()
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        if is_missing(value):  # numpy.ma.masked has an item, 0.0
            return None
        plain = value.item()
        return _shortest(value, plain) if type(plain) is float else plain
    return value


def _shortest(scalar: object, plain: float) -> float:
    """The shortest number that a scalar of 32 bits stands for: 0.1 instead of 0.10000000149."""
    try:
        return float(str(scalar))
    except ValueError:
        return plain


def to_json_value(value: Any) -> Any:
    """The value with plain Python values in all its mappings and lists."""
    value = to_plain(value)
    if isinstance(value, Mapping):
        return {name: to_json_value(inner) for name, inner in value.items()}
    return [to_json_value(inner) for inner in value] if isinstance(value, list | tuple) else value


def is_missing(value: object) -> bool:
    """Whether a table means by this value that nothing was given: None, NaN, NA, NaT, or text without a visible part.

    Source: NaN and NaT are not equal to themselves. A comparison of pandas.NA or numpy.ma.masked gives no answer.
    """
    if isinstance(value, str):
        return not value or value.isspace()
    if value is None:
        return True
    if type(value) in _PLAIN:
        return value != value  # noqa: PLR0124 - NaN
    if type(value).__name__ in _GAPS:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - see the source
    except Exception:  # noqa: BLE001 - the comparison of a caller's class may raise anything
        return False


def to_option(value: Any) -> Any:
    """The plain value, or None if nothing was given."""
    if value is None:
        return None
    value = to_plain(value)
    return None if is_missing(value) else value


def to_word(value: Any) -> Any:
    """The plain value without outer white space, or None if nothing was given."""
    if value is None:
        return None
    value = to_option(value)
    return value.strip() if isinstance(value, str) else value


def to_name(value: Any) -> Any:
    """The text of a given value; also of a whole number, because a table can hold numbers as names."""
    if value is None:
        return None
    value = to_option(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.0f}" if is_number and value == value // 1 and abs(value) < _EXACT else value


def to_bool(value: Any) -> Any:
    """True or False for on/off, yes/no, true/false and 1/0, in any case; any other given value as it is."""
    if value is None or value is True or value is False:
        return value
    number = to_number(value)
    if isinstance(number, str):
        return _WORDS.get(number.strip().lower(), number)
    is_digit = isinstance(number, int | float) and number in {0, 1}
    return bool(number) if is_digit else to_option(value)


def to_seconds(value: Any) -> Any:
    """A whole number for whole seconds, however they are written; any other given value as a number, if it is one."""
    if value is None or type(value) is int:
        return value
    number = to_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def to_number(value: Any) -> Any:
    """The number of a text, of a Decimal, or of any other real number; any other given value as it is."""
    if value is None:
        return None
    value = to_option(value)
    if type(value) in {int, float, bool}:
        return value
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if not isinstance(text, str | Decimal | Real):
        return value
    try:
        number = float(text)
    except (ValueError, OverflowError):
        return value
    return number if math.isfinite(number) else value
