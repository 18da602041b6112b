"""The colours of reports and notebooks; each state has its colour here, once."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from markupsafe import Markup

from kling_async.jobs import JobStatus
from kling_async.results import Result, ResultState


@attrs.frozen
class Color:
    """A colour on a light page, and its counterpart on a dark page."""

    light: str
    dark: str


@attrs.frozen
class StateColor(Color):
    """A colour of words and dots. As text it is readable on `GROUND` and on `CARD`: a contrast of 4.5 and more."""

    any_ground: str
    """For notebooks, whose theme a cell cannot know: a contrast of 3 and more to white and to black."""


TEAL = StateColor("#0a6b5e", "#4fd1bd", "#14917f")
RED = StateColor("#b3261e", "#ff9089", "#d9534a")
AMBER = StateColor("#8a5300", "#e8b454", "#b97a10")
VIOLET = StateColor("#7639a8", "#cfa6f5", "#9a63cf")
SLATE = StateColor("#44566c", "#9db4cf", "#6f8299")
GREY = StateColor("#596269", "#9ba6ad", "#7f888e")

UNSAVED = "unsaved"
"""The state of a video that was made and could not be saved, as a class of the style sheet."""
STATE_COLORS: Mapping[str, StateColor] = {
    ResultState.SUCCEEDED.value: TEAL,
    UNSAVED: AMBER,
    ResultState.FAILED.value: RED,
    ResultState.CANCELLED.value: GREY,
    ResultState.TIMED_OUT.value: AMBER,
    ResultState.AMBIGUOUS.value: VIOLET,
    ResultState.NOT_SUBMITTED.value: SLATE,
    JobStatus.SUCCESS.value: TEAL,
    JobStatus.PROCESSING.value: AMBER,
}
"""How each `ResultState` and `JobStatus` looks; a status that is missing here is `SLATE`."""

GROUND = Color("#ffffff", "#14181b")
"""The background of the page."""
CARD = Color("#f5f7f7", "#1d2327")
"""The background of a card."""
TEXT = Color("#1b1f23", "#e8ecee")
_PAGE_COLORS: Mapping[str, Color] = {
    "accent": TEAL,
    "ground": GROUND,
    "card": CARD,
    "text": TEXT,
    "faint": GREY,
    "line": Color("#d9dfe1", "#343c41"),
    "queued": Color("#8b979e", "#66737b"),
    "running": TEAL,
    "saving": Color("#3b74d4", "#7fadff"),
    **STATE_COLORS,
}


def state_class(result: Result) -> str:
    """The key of a result in `STATE_COLORS`, and its class in the style sheet."""
    return UNSAVED if result.is_unsaved else result.state.value


def color_rules(selector: str = ":root") -> Markup:
    """CSS rules that define every colour as a variable, such as `--accent`, for the reader's scheme; paper is light.

    An element that has a state as its class finds the colour of the state in `--color`.

    Args:
        selector: The elements that know the variables.
    """
    light = Markup().join(
        Markup("--{}:{};").format(name, color.light) for name, color in _PAGE_COLORS.items()
    )
    dark = Markup().join(Markup("--{}:{};").format(name, color.dark) for name, color in _PAGE_COLORS.items())
    states = Markup().join(Markup(".{0}{{--color:var(--{0})}}").format(name) for name in STATE_COLORS)
    return Markup("{0}{{{1}}}@media screen and (prefers-color-scheme:dark){{{0}{{{2}}}}}{3}").format(
        selector, light, dark, states
    )
