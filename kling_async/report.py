"""A batch as one HTML page to open, keep or send: it needs nothing but the videos beside it."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from markupsafe import Markup

from kling_async._display.cards import Card, card_html, make_cards
from kling_async._display.colors import color_rules
from kling_async._display.markup import replace_unprintable
from kling_async._display.overview import (
    failures_html,
    figures_html,
    filters_html,
    interrupted_html,
    time_line_html,
    when_html,
)
from kling_async._display.page import NOTHING_SIGNED
from kling_async._display.signed_sources import sign_sources
from kling_async._display.timeline import time_line
from kling_async._durable import move_into_place
from kling_async._own_files import for_owner_alone, keep_mode
from kling_async._policy.file_names import partial_name
from kling_async.errors import ConfigurationError, KlingError
from kling_async.history import BatchHistory
from kling_async.lines import reason_of
from kling_async.paths import local_path
from kling_async.results import Result

MAX_CARDS = 5_000
"""How many results get a card: many machines cannot open a page with more."""
_MAX_NAMES = 1000
_PLAIN_HOST = re.compile(r"[a-z0-9.-]+(:[0-9]+)?", re.ASCII)


def write_report(
    results: Sequence[Result],
    path: str | os.PathLike[str],
    *,
    history: BatchHistory | None = None,
    missing: int = 0,
    signed_for: float | None = None,
) -> Path:
    """Write the page, whole or not at all, and return its path.

    Args:
        results: The results that the page shows, in input order.
        path: The file; a missing folder is made. The page names videos relative to itself.
        history: Draws the time line; None leaves it out.
        missing: How many items had not ended when the batch was interrupted.
        signed_for: See `BatchResult.write_report`.

    Raises:
        ConfigurationError: A store cannot sign the URLs of its objects.
        KlingError: The file cannot be written, or is there and no report; it is left as it was.
    """
    target = Path(local_path(path, name="path"))
    signed = sign_sources(results[:MAX_CARDS], signed_for)
    try:
        _refuse_other_file(target)
        with _temporary_file(target) as new:
            page = report_html(results, beside=target.parent, history=history, missing=missing, signed=signed)
            new.write(page)
            keep_mode(new.fileno(), target)
            new.close()
            move_into_place(Path(new.name), target)
    except (OSError, ValueError) as error:
        raise KlingError(_refusal(path, error)) from error
    return target


def check_target(path: str | os.PathLike[str]) -> None:
    """Do nothing if a report can be written to this path; call this before anything is paid for.

    Raises:
        ConfigurationError: No report can be written there.
    """
    target = Path(local_path(path, name="path"))
    try:
        _refuse_other_file(target)
        with _temporary_file(target):
            pass
    except (OSError, ValueError) as error:
        raise ConfigurationError(_refusal(path, error)) from error


def _refuse_other_file(target: Path) -> None:
    """Do nothing if the target is a report, empty or not there: a slip must not cost the list of prompts or a journal."""
    if not target.exists():
        return
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not target.is_file():
        raise FileExistsError(errno.EEXIST, "it is no regular file")
    head, _, _ = _read("report.html").partition("{")  # no file of another program begins so
    mark = head.encode()
    with target.open("rb") as file:
        beginning = file.read(len(mark))
    if beginning and beginning != mark:
        raise FileExistsError(errno.EEXIST, "a file is there that is no report of kling_async")


@contextmanager
def _temporary_file(target: Path) -> Iterator[TextIO]:
    """A new file beside the target; if it is there at the end of the block, it is removed.

    Its name is predictable, and another user may have put a link or a pipe there. So the file is made under the first
    name that is free: then no link is followed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    names = (partial_name(target.name, number) for number in range(1, _MAX_NAMES))
    new = next(filter(None, map(_open_new, map(target.with_name, names))), None)
    if new is None:
        raise FileExistsError(errno.EEXIST, "all names for its partial file are taken")
    try:
        with new:
            yield new
    finally:
        Path(new.name).unlink(missing_ok=True)


def _open_new(path: Path) -> TextIO | None:
    """The file, open for writing, for its owner alone: prompts can be secrets. None if the name is taken."""
    try:
        return open(path, "x", encoding="utf-8", newline="\n", opener=for_owner_alone)
    except FileExistsError:
        return None


def _refusal(path: str | os.PathLike[str], error: Exception) -> str:
    reason = reason_of(error)
    return f"The report cannot be written to {os.fspath(path)!r}: {reason}. Choose another file."


def report_html(
    results: Sequence[Result],
    *,
    beside: Path,
    history: BatchHistory | None = None,
    missing: int = 0,
    signed: Mapping[str, str] = NOTHING_SIGNED,
) -> Markup:
    """The page, for a file in the folder `beside`.

    Args:
        results: The results that the page shows, in input order.
        beside: The folder of the page, which addresses of videos are relative to.
        history: Draws the time line; None leaves it out.
        missing: How many items had not ended when the batch was interrupted.
        signed: The signed URLs of objects, which the page then holds.
    """
    line = time_line(results, history) if history else None
    rows = {row.result.index: row for row in line.rows} if line else {}
    cards = make_cards(results[:MAX_CARDS], beside=beside, rows=rows, signed=signed)
    style, script = color_rules() + _read("report.css"), _read("report.js")
    page = _read("report.html").format(
        policy=_content_policy(cards, style=style, script=script),
        title=f"{sum(result.ok for result in results):,} of {len(results) + missing:,} videos made",
        when=when_html(results, history),
        interrupted=interrupted_html(missing),
        figures=figures_html(results, history, missing=missing),
        failures=failures_html(results),
        timeline=time_line_html(line, history) if line and history else "",
        filters=filters_html(results[:MAX_CARDS]),
        cut=f"The first {MAX_CARDS:,} of {len(results):,}." if len(results) > MAX_CARDS else "",
        cards=Markup().join(map(card_html, cards)),
        style=style,
        script=script,
    )
    return replace_unprintable(page)


def _read(name: str) -> Markup:
    """A file of this package, which is trusted."""
    return Markup((files("kling_async") / "_display" / name).read_text(encoding="utf-8"))  # noqa: S704


def _content_policy(cards: Iterable[Card], *, style: str, script: str) -> str:
    """The page's Content Security Policy: its own style and script, and media from the places that its cards name."""
    media = sorted({_origin(card.source) for card in cards if card.source is not None})
    pictures = sorted({_origin(card.picture) for card in cards if card.picture is not None})
    rules = {
        "default-src": ["'none'"],
        "style-src": [_digest(style)],
        "script-src": [_digest(script)],
        "media-src": media or ["'none'"],
        "img-src": pictures or ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(allowed)}" for name, allowed in rules.items())


def _origin(source: str) -> str:
    """The origin of an address as a policy writes it; the whole scheme if a policy cannot write the host."""
    parts = urlsplit(source)
    if not parts.scheme:
        return "'self'"
    return f"{parts.scheme}://{parts.netloc}" if _PLAIN_HOST.fullmatch(parts.netloc) else f"{parts.scheme}:"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
