"""Text as people see it: one line, without the characters that steer a terminal or the direction of writing.

The service names jobs and says why they fail, and each such text can hold any character. `KlingError` and the command
line show every text through `one_line`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches

_LINE_ENDS = "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000))
_DIRECTION_MARKS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Marks that turn the direction of writing: one of them would mix up the rest of the line."""
_TRANSLATION = {
    **dict.fromkeys((*_CONTROLS, *map(ord, _DIRECTION_MARKS)), "\N{REPLACEMENT CHARACTER}"),
    **dict.fromkeys(map(ord, _LINE_ENDS), " "),
}
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Letters and marks without a shape. Source: Default_Ignorable_Code_Point of Unicode, and the empty Braille pattern."""
_LONGEST_LINE = 60
_NEAREST = 0.75
"""How alike two names are, by difflib's ratio, before one is offered for the other: `seconds` is not `sound`, and of the ids of
models each begins like the others."""
_CENT = Decimal("0.01")
_TOO_MUCH = 10**12
"""US dollars that no setting means; a sum of less has all its cents."""
_NOT_PLAIN = re.compile(r"[^!-&(-\[\]-~ ]")


def one_line(text: str) -> str:
    """The text with a space for each line end and a replacement character for each steering character.

    Its length stays the same, and so do the spaces within it.
    """
    return text if text.isprintable() else text.translate(_TRANSLATION)


def id_line(id_: str) -> str:
    """An id on one line, with an escape for each character that shows nothing: two ids do not look the same by it."""
    shown = "".join(
        ascii(letter)[1:-1] if _is_blank(letter) and letter not in _DIRECTION_MARKS else letter
        for letter in id_
    )
    return one_line(shown)


def _is_blank(letter: str) -> bool:
    if letter.isascii():
        return False
    return unicodedata.category(letter) in {"Cf", "Zs"} or _BLANK.fullmatch(letter) is not None


def quote_value(value: object) -> str:
    """The value as errors quote it, in at most 60 characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the repr of a caller's class may raise anything; that of a huge int does
        text = f"<{type(value).__name__} that cannot be shown>"
    return text if len(text) <= _LONGEST_LINE else f"{text[:50]}... ({len(text)} characters)"


def quote_line(text: str) -> str:
    """The text in quotes, on one line of at most 60 characters, its control characters escaped."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1].rstrip()}…")


def reason_of(error: BaseException) -> str:
    """Why a file or an address cannot be used, in the words of the system; else the text of the error."""
    return getattr(error, "strerror", None) or str(error)


def error_text(error: BaseException) -> str:
    """The type of an error, and its text if it has one; the `__str__` of an error of the caller may raise anything."""
    name = type(error).__name__
    try:
        text = str(error).rstrip(".")
    except Exception:  # noqa: BLE001 - see above
        text = ""
    return f"{name}: {text}" if text else name


def quote_unprintable(text: str) -> str:
    """The text as a word of a POSIX shell in printable ASCII alone; the shell reads the same text from it.

    Source: POSIX.1-2024, dollar-single-quotes; bash, zsh and ksh have them too.
    """
    octal = _NOT_PLAIN.sub(
        lambda found: "".join(f"\\{byte:03o}" for byte in found[0].encode(errors="replace")), text
    )
    return f"$'{octal}'"


def count_text(count: int, noun: str) -> str:
    """Such as `1 item` or `1,200 items`; the noun is given for one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def nearest_name(given: object, known: Iterable[str]) -> str | None:
    """The known name that a wrong one is probably meant to be, whatever its case; None if no name is near."""
    by_lower_case = {name.lower(): name for name in known}
    found = get_close_matches(str(given).strip().lower(), by_lower_case, n=1, cutoff=_NEAREST)
    return by_lower_case[found[0]] if found else None


def money_text(cost_usd: Decimal) -> str:
    """Such as `$1,234.50`, or `$0.035` for an amount with parts of a cent."""
    if cost_usd == cost_usd.quantize(_CENT):
        return f"${cost_usd:,.2f}"
    return f"${cost_usd.normalize():,f}"


def read_dollars(value: object) -> Decimal | None:
    """The amount of US dollars that a number or its text is; None if it is none that a setting can mean."""
    if not isinstance(value, Decimal | int | float | str) or isinstance(value, bool):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):  # also a whole number of thousands of digits
        return None
    return amount if amount.is_finite() and 0 <= amount < _TOO_MUCH else None


def clock_text(seconds: float) -> str:
    """Such as `0:42` or `1:02:03`."""
    minutes, second = divmod(max(int(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
