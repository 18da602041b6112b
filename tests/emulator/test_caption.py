from __future__ import annotations

import pytest

from kling_async.emulator.caption import draw_caption

EMBEDDED_ONLY = ()


def caption_bytes(text, *, font_names=EMBEDDED_ONLY, width=640, height=360):
    picture, mask = draw_caption(text, footer="#1 · 5 s", width=width, height=height, font_names=font_names)
    return picture.tobytes(), mask.tobytes()


def test_different_texts_look_different():
    assert caption_bytes("rain") != caption_bytes("snow")


def test_missing_fonts_are_ignored():
    assert caption_bytes("rain", font_names=("no such font.ttf",)) == caption_bytes("rain")


def test_a_text_that_no_font_has_is_replaced_by_its_length():
    assert caption_bytes("雨雪风") == caption_bytes("(3 characters)")


def test_a_few_letters_that_no_font_has_are_left_out():
    assert caption_bytes("rain and 雨 snow") == caption_bytes("rain and snow")


def test_accents_fall_back_to_plain_letters():
    assert caption_bytes("café") == caption_bytes("cafe")


@pytest.mark.parametrize("text", ["a\x00b", "a\u202eb", "a\ud800b"])
def test_unprintable_characters_are_left_out(text):
    assert caption_bytes(text) == caption_bytes("ab")


def test_any_white_space_becomes_one_space():
    assert caption_bytes("rain\n\n\tand   snow") == caption_bytes("rain and snow")


def test_a_long_text_is_truncated_to_the_picture():
    assert caption_bytes("rain " * 500) == caption_bytes("rain " * 600)


@pytest.mark.parametrize("width", [360, 640])
def test_lines_do_not_touch_the_edges(width):
    _, mask = draw_caption(
        "rain and snow " * 20, footer="", width=width, height=360, font_names=EMBEDDED_ONLY
    )
    left, _, right, _ = mask.getbbox()

    assert 0 < left < right < width
