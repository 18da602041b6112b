"""What all pages about a batch share: escaping, words, addresses, colours. Everything from outside passes here."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote, urlsplit

import attrs

from kling_async._policy.safe_urls import refusal
from kling_async.jobs import Job
from kling_async.results import Result, ResultState

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What no page may hold, or what no encoding can write."""
_MASKED = "\N{REPLACEMENT CHARACTER}"
_SHORT = 10.0
_SECONDS_IN_MINUTE = 60
_MINUTES_IN_HOUR = 60
_THOUSAND = 1000
_CENT = Decimal("0.01")


@attrs.frozen
class Color:
    """A colour of text on a light ground, and its counterpart on a dark one."""

    light: str
    dark: str


ACCENT = Color("#0a6b5e", "#4fd1bd")
GROUND = Color("#ffffff", "#14181b")
"""What the page is painted with."""
CARD = Color("#f5f7f7", "#1d2327")
"""What stands out from it."""
TEXT = Color("#1b1f23", "#e8ecee")
FAINT = Color("#596269", "#9ba6ad")
"""Text that is not looked for."""
LINE = Color("#d9dfe1", "#343c41")
QUEUED = Color("#8b979e", "#66737b")
"""A stretch of a time line, as are the next two."""
RUNNING = ACCENT
SAVING = Color("#3b74d4", "#7fadff")
STATES: Mapping[ResultState, Color] = {
    ResultState.SUCCEEDED: ACCENT,
    ResultState.FAILED: Color("#b3261e", "#ff9089"),
    ResultState.CANCELLED: FAINT,
    ResultState.TIMED_OUT: Color("#8a5300", "#e8b454"),
    ResultState.AMBIGUOUS: Color("#7639a8", "#cfa6f5"),
    ResultState.NOT_SUBMITTED: Color("#44566c", "#9db4cf"),
}
"""Text in any of them is readable on `GROUND` and on `CARD`: a contrast of 4.5 and more."""
_NAMED: Mapping[str, Color] = {
    "accent": ACCENT,
    "ground": GROUND,
    "card": CARD,
    "text": TEXT,
    "faint": FAINT,
    "line": LINE,
    "queued": QUEUED,
    "running": RUNNING,
    "saving": SAVING,
    **{state.value: color for state, color in STATES.items()},
}


def color_rules(selector: str = ":root") -> str:
    """Rules of CSS that name all colours for what the selector selects, such as `--accent`, by the reader's scheme; paper is light."""
    light = "".join(f"--{name}:{color.light};" for name, color in _NAMED.items())
    dark = "".join(f"--{name}:{color.dark};" for name, color in _NAMED.items())
    return f"{selector}{{{light}}}@media screen and (prefers-color-scheme:dark){{{selector}{{{dark}}}}}"


def escape(value: object) -> str:
    """The value's text, harmless between tags and in quoted attributes."""
    return html.escape(_UNPRINTABLE.sub(_MASKED, str(value)))


def isolate(value: object) -> str:
    """The value's text in an element of its own, so that its direction of writing ends where it ends."""
    return f'<bdi dir="auto">{escape(value)}</bdi>'


def state_label(result: Result) -> str:
    """How an item ended, such as `timed out`; a video that could not be saved is `made, not saved`."""
    if result.ok and result.error is not None:
        return "made, not saved"
    return result.state.replace("_", " ")


def state_class(result: Result) -> str:
    """The class of a page's style that colours those words."""
    return "unsaved" if result.ok and result.error is not None else result.state.value


def duration_text(seconds: float) -> str:
    """Such as `0.4 s`, `42 s`, `3 min 07 s` or `2 h 05 min`."""
    seconds = max(seconds, 0.0)
    if seconds < _SHORT - 0.05:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), _SECONDS_IN_MINUTE)
    hours, minute = divmod(minutes, _MINUTES_IN_HOUR)
    if hours:
        return f"{hours:,} h {minute:02} min"
    return f"{minute} min {second:02} s" if minute else f"{second} s"


def clock_text(seconds: float) -> str:
    """Such as `0:42` or `1:02:03`, for what is read at a glance or changes."""
    minutes, second = divmod(max(int(seconds), 0), _SECONDS_IN_MINUTE)
    hours, minute = divmod(minutes, _MINUTES_IN_HOUR)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def money_text(cost_usd: Decimal) -> str:
    """Such as `$1,234.50`, or `$0.035` where a cent is too coarse."""
    if cost_usd == cost_usd.quantize(_CENT):
        return f"${cost_usd:,.2f}"
    return f"${cost_usd.normalize():,f}"


def size_text(size_bytes: float) -> str:
    """Such as `812 B`, `3.1 MB` or `24 MB`, in powers of a thousand."""
    unit = "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if size_bytes < _THOUSAND - 0.5:
            break
        size_bytes, unit = size_bytes / _THOUSAND, bigger
    digits = 0 if unit == "B" or size_bytes >= _SHORT - 0.05 else 1
    return f"{size_bytes:,.{digits}f} {unit}"


def media_source(result: Result, *, beside: Path | None, inline_bytes: int = 0) -> str | None:
    """The address of a result's video as a page may name it, not yet escaped; None where there is none.

    Args:
        result: Its file is used if it is still there, else its job's address.
        beside: The folder of the page: a file is named relative to it. None names it absolutely.
        inline_bytes: A file of at most this size becomes part of the page.
    """
    if result.path is not None and os.path.isfile(result.path):  # noqa: PTH113 - False, not an error, for any name
        return _file_source(result.path, beside, inline_bytes)
    return web_source(result.job.video_url if result.job else None)


def picture_source(job: Job | None) -> str | None:
    """The address of a still of the job's video, not yet escaped; some models name the video itself there."""
    url = web_source(job.thumbnail_url) if job else None
    if job is None or url is None or url == job.video_url or urlsplit(url).path.lower().endswith(".mp4"):
        return None
    return url


def web_source(url: str | None) -> str | None:
    """The address if it may be fetched, as a download would be; None for anything else, such as a script."""
    return url if url is not None and refusal(url) is None else None


def _file_source(path: Path, beside: Path | None, inline_bytes: int) -> str:
    if path.stat().st_size <= inline_bytes:
        return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    if beside is not None:
        try:
            # Quoting leaves no colon, so that no name can pass for a scheme.
            return quote(os.fsencode(Path(os.path.relpath(path, beside)).as_posix()))
        except ValueError:  # another drive of Windows
            pass
    return path.absolute().as_uri()
