from __future__ import annotations

import pytest

from kling_async.emulator.caption import draw_caption

EMBEDDED_ONLY = ()


def draw(text, *, font_names=EMBEDDED_ONLY, width=640, height=360):
    picture, mask = draw_caption(text, footer="#1 · 5 s", width=width, height=height, font_names=font_names)
    return picture.tobytes(), mask.tobytes()


def test_different_texts_look_different():
    assert draw("rain") != draw("snow")


def test_missing_fonts_are_passed_over():
    assert draw("rain", font_names=("no such font.ttf",)) == draw("rain")


def test_letters_no_font_has_show_as_a_number_not_as_boxes():
    assert draw("雨雪风") == draw("(3 characters)")


def test_a_few_letters_that_no_font_has_are_left_out():
    assert draw("rain and 雨 snow") == draw("rain and snow")


def test_accents_fall_back_to_plain_letters():
    assert draw("café") == draw("cafe")


@pytest.mark.parametrize("text", ["a\x00b", "a\u202eb", "a\ud800b"])
def test_what_cannot_be_printed_is_left_out(text):
    assert draw(text) == draw("ab")


def test_white_space_of_any_kind_is_one_space():
    assert draw("rain\n\n\tand   snow") == draw("rain and snow")


def test_a_long_text_ends_in_dots_within_the_picture():
    assert draw("rain " * 500) == draw("rain " * 600)


@pytest.mark.parametrize("width", [360, 640])
def test_lines_keep_off_the_edges(width):
    _, mask = draw_caption(
        "rain and snow " * 20, footer="", width=width, height=360, font_names=EMBEDDED_ONLY
    )
    left, _, right, _ = mask.getbbox()

    assert 0 < left < right < width
