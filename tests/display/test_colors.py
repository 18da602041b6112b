from __future__ import annotations

from itertools import product

import pytest

from kling_async._display.colors import (
    CARD,
    GREY,
    GROUND,
    STATE_COLORS,
    TEAL,
    TEXT,
    UNSAVED,
    color_rules,
    state_class,
)
from kling_async.errors import DownloadError
from kling_async.jobs import JobStatus
from kling_async.results import Result, ResultState


def luminance(color: str) -> float:
    """Source: the definition of relative luminance in WCAG 2.2."""
    channels = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable_on_every_background_of_a_report(scheme):
    for text, ground in product((TEAL, TEXT, GREY, *STATE_COLORS.values()), (GROUND, CARD)):
        assert contrast(getattr(text, scheme), getattr(ground, scheme)) >= 4.5, (text, ground)


@pytest.mark.parametrize("ground", ["#ffffff", "#f3f3f3", "#111111", "#1f1f1f"])
@pytest.mark.parametrize("name", STATE_COLORS)
def test_a_dot_stands_out_from_the_backgrounds_of_notebooks(name, ground):
    assert contrast(STATE_COLORS[name].any_ground, ground) >= 3


def test_every_final_state_has_its_color():
    assert set(ResultState) | {UNSAVED} <= set(STATE_COLORS)
    assert {status for status in JobStatus if status.is_final} <= set(STATE_COLORS)


def test_every_color_has_a_name_in_both_schemes():
    light, dark = color_rules(".here").split("@media screen and (prefers-color-scheme:dark)")
    assert light.startswith(".here{")
    assert f"--accent:{TEAL.light};" in light
    assert f"--accent:{TEAL.dark};" in dark
    assert all(f"--{state}:" in light and f"--{state}:" in dark for state in ResultState)


def test_an_element_with_a_state_as_its_class_has_the_color_of_the_state():
    rules = color_rules()
    assert all(f".{state}{{--color:var(--{state})}}" in rules for state in (*ResultState, UNSAVED))


def test_a_video_that_could_not_be_saved_has_not_the_color_of_a_success():
    made = Result(index=0, request=None, state=ResultState.SUCCEEDED)
    unsaved = Result(index=0, request=None, state=ResultState.SUCCEEDED, error=DownloadError("disk full"))
    late = Result(index=0, request=None, state=ResultState.TIMED_OUT)
    assert [state_class(result) for result in (made, unsaved, late)] == ["succeeded", "unsaved", "timed_out"]
