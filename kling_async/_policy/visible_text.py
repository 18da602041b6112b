"""The part of a text that a reader sees: two texts that look alike are one request."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""The spaces of Unicode, such as the one that does not break; an ogham space mark is a line, and is left out."""
_INVISIBLE = "\u00ad\u200b\u2060\ufeff"
"""Characters without a width: soft hyphen, zero width space, word joiner, byte order mark.

Joiners, bidi marks and variation selectors change how other characters look, so they are not among these.
"""
_TRANSLATION = {**dict.fromkeys(map(ord, _SPACES), " "), **dict.fromkeys(map(ord, _INVISIBLE))}


def visible_text(text: str) -> str:
    """The text without what no reader sees.

    These make no difference: line ends, white space at the ends of the text and of its lines, the kind of a space,
    invisible characters, and the normal form of Unicode.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_TRANSLATION))
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def visible_value(value: Any) -> Any:
    """The JSON value with the visible part of each of its texts; the keys of mappings stay as they are."""
    if isinstance(value, str):
        return visible_text(value)
    if isinstance(value, Mapping):
        return {key: visible_value(each) for key, each in value.items()}
    return [visible_value(each) for each in value] if isinstance(value, list) else value
