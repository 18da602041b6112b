from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.visible_text import visible_text, visible_value

ANY_TEXT = st.text(st.characters(codec=None), max_size=20) | st.text(
    " \n\r\t\u00a0\u2028\u3000\u200b\ufeffae\u0301\u00e9", max_size=8
)


@pytest.mark.parametrize(
    "text",
    [
        "a café\nat night",
        "a café\r\nat night",
        "a café\rat night",
        "a café\u2028at night",
        "a café  \nat night",
        "a café\nat night\n",
        "\n\n  a café\nat night\t",
        "\u00a0a café\nat night\u00a0",
        "a\u00a0café\nat\u202fnight",
        "a\u3000café\nat night",
        "\ufeffa café\nat night",
        "a ca\u00adfé\nat\u200b night",
        "a cafe\u0301\nat night",
        "a cafe\u200b\u0301\nat night",
    ],
)
def test_what_no_reader_sees_makes_no_difference(text):
    assert visible_text(text) == "a café\nat night"


@pytest.mark.parametrize(
    "one, other",
    [
        ("a cat", "A cat"),
        ("a cat", "a  cat"),
        ("a cat", "acat"),
        ("a cat\nat night", "a cat at night"),
        ("a cat\n\nat night", "a cat\nat night"),
        ("a cat\n  at night", "a cat\nat night"),
        ("½ moon", "1\u20442 moon"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\U0001f680"),
        ("נ\u200ea", "נa"),
        ("cafe", "café"),
    ],
)
def test_what_a_reader_sees_makes_a_difference(one, other):
    assert visible_text(one) != visible_text(other)


@given(ANY_TEXT)
def test_the_visible_text_of_a_visible_text_is_itself(text):
    assert visible_text(visible_text(text)) == visible_text(text)


@given(ANY_TEXT, st.sampled_from(["\n", "\r\n", " ", "\u00a0", "\ufeff", "\t"]))
def test_white_space_at_the_ends_makes_no_difference_to_any_text(text, space):
    assert visible_text(space + text + space) == visible_text(text)


def test_every_text_of_a_value_counts_and_nothing_else_changes():
    value = {"a ": "b ", "list": ["c\r\n", {"deep": "d\u00a0"}], "number": 1.5, "flag": True, "none": None}
    assert visible_value(value) == {**value, "a ": "b", "list": ["c", {"deep": "d"}]}
