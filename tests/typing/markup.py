"""Text is no HTML: this file is checked by mypy and basedpyright, and never run."""

from __future__ import annotations

from typing import assert_type

from markupsafe import Markup

from kling_async._display.markup import isolate, join_facts, replace_unprintable
from kling_async._display.tiles import wrap


def text_that_was_not_escaped(text: str) -> None:
    wrap(text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    join_facts([text])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    replace_unprintable(text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def text_that_was_escaped(text: str) -> None:
    assert_type(wrap(isolate(text)), Markup)
    assert_type(Markup("<b>{}</b>").format(text), Markup)
