"""HTML that escapes by type: `Markup` is HTML, `str` is text, and text becomes HTML only by being escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from markupsafe import Markup

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML forbids, and lone surrogates, which UTF-8 cannot encode."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def replace_unprintable(page: Markup) -> Markup:
    """The same HTML with every character that a page cannot hold replaced; call this once, on the whole."""
    return Markup(_UNPRINTABLE.sub(_REPLACEMENT, page))  # noqa: S704 - it was HTML before


def isolate(text: object) -> Markup:
    """The text in an element of its own, so that its writing direction does not reach the text around it."""
    return Markup('<bdi dir="auto">{}</bdi>').format(text)


def join_facts(facts: Iterable[Markup]) -> Markup:
    """The facts in one line, without the empty ones."""
    return Markup(" · ").join(fact for fact in facts if fact)
