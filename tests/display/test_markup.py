from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from page_reader import Element, read

from kling_async._display.markup import isolate, join_facts, replace_unprintable


@given(st.text())
def test_no_text_makes_a_tag_or_leaves_its_attribute(text):
    html = replace_unprintable(Markup('<p title="{0}">{0}</p>').format(text))
    (paragraph,) = read(html).parts
    assert isinstance(paragraph, Element)
    assert all(isinstance(part, str) for part in paragraph.parts)
    assert paragraph.attributes == {"title": paragraph.text}


@pytest.mark.parametrize("text", ["a\x00b", "a\x1bb", "a\x9fb", "a\ud800b", "a\uffffb"])
def test_characters_that_no_page_can_hold_are_replaced(text):
    html = replace_unprintable(Markup("{}").format(text))
    assert html == "a\ufffdb"
    html.encode()


@pytest.mark.parametrize("text", ["two\nlines\tand a tab", "👩‍🚀 水墨 ﷽ e\u0301"])
def test_other_characters_are_kept(text):
    assert replace_unprintable(Markup("{}").format(text)) == text


def test_text_that_turns_the_writing_direction_is_isolated():
    assert isolate("\u202eevil<") == '<bdi dir="auto">\u202eevil&lt;</bdi>'


def test_facts_that_are_empty_are_left_out():
    assert join_facts([Markup("<b>a</b>"), Markup(), Markup("b")]) == "<b>a</b> · b"
