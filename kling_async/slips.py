"""Slips: prompts that look like a mistake, and would cost money.

All of this is pure: the caller says whether there is a file of a name. A call or a command refuses a slip, and says how to
send it if it is meant.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Sequence

import attrs

from kling_async.catalog import MODELS
from kling_async.lines import quote_value
from kling_async.requests import FIELDS

_PROMPT_FILES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".ndjson"})
_TABLE_FILES = frozenset({".json", ".md", ".xls", ".xlsx", ".ods", ".parquet", ".yaml", ".yml"})
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
_OTHER_FILES = frozenset({".db", ".py", ".ipynb", ".html", ".mp4"})
_FILES = _PROMPT_FILES | _TABLE_FILES | _PICTURES | _OTHER_FILES
_LONGEST_SUFFIX = max(map(len, _FILES)) + 1
_FIELDS = frozenset(FIELDS)
_SEPARATOR = re.compile("[,;\t]")
_LONGEST_HEADER = 2 * sum(map(len, FIELDS))
"""A longer text is neither the names of fields nor a word."""
_GAPS = frozenset({"nan", "none", "null", "nat", "na", "<na>", "n/a", "undefined"})
"""The words for no value that programs write into texts."""
_SWITCH_WORDS = frozenset({"on", "off", "yes", "no", "true", "false"})
_QUALITY = re.compile("std|pro", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?s?", re.ASCII)
_RATIO = re.compile(r"[0-9]+:[0-9]+", re.ASCII)
_RESOLUTION = re.compile(r"[0-9]+p|[0-9]k", re.ASCII)
_COMMANDS = frozenset(
    {"completion", "demo", "download", "emulator", "generate", "list", "models", "resume", "status", "worker"}
)
_PATH = re.compile(r"[~/.]*/\S*|\S*/")
"""A name that begins or ends as a path does."""
_OPTION = re.compile(r"\s--([a-z][a-z-]*)", re.ASCII)
_DASHES = ("-", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2015", "\u2212")
"""Word processors write a long dash for the two hyphens of an option."""


@attrs.frozen
class Slip:
    """Why a prompt looks like a mistake, and what to do instead."""

    reason: str
    """Such as `'a.txt' is the name of a file`."""
    call: str
    """What to do in Python."""
    command: str
    """What to do on the command line."""
    exception: str = "if it is meant"
    """When the prompt can be sent all the same."""


def could_be_path(prompt: str) -> bool:
    """Whether it makes sense to look for a file of this name: it has no white space, or ends as a file does."""
    return _is_token(prompt) or _suffix(prompt) in _FILES


def find_slip(prompt: str, *, is_path: bool) -> Slip | None:
    """Why a prompt looks like a mistake, wherever it comes from; None if it does not.

    Args:
        prompt: The prompt.
        is_path: Whether there is a file or a folder of this name.
    """
    text = prompt.strip()
    if not prompt:
        return Slip(
            "the prompt is empty",
            "describe the video",
            "describe the video",
            exception="for a model that needs no prompt",
        )
    if "://" in text and _is_token(text):
        advice = "describe the video, and give a picture as"
        return Slip(f"{quote_value(text)} is a URL", f"{advice} image=...", f"{advice} --image URL")
    if is_path or _PATH.fullmatch(text) or (_is_token(text) and _suffix(text) in _FILES):
        return _file_slip(text)
    return _text_slip(text)


def _text_slip(text: str) -> Slip | None:
    """Why a text is data instead of the content of a video; None if it can be the content."""
    if text.startswith("#"):
        return Slip(f"{quote_value(text)} looks like a comment", "leave the item out", "leave the line out")
    if text.startswith("{") and _is_json(text):
        return Slip(
            f"{quote_value(text)} is JSON", "give the mapping: json.loads(...)", "give JSON as a .jsonl file"
        )
    if len(text) > _LONGEST_HEADER:
        return None
    word = text.casefold()
    if all(name.strip() in _FIELDS for name in _SEPARATOR.split(word)):
        reason = f"{quote_value(text)} is the name of a field"
        return Slip(reason, "give the rows of a table, not its columns", "give a table as a .csv file")
    if word in _GAPS:
        return Slip(f"{quote_value(text)} is a word for no value", "leave the item out", "leave it out")
    return None


def find_shell_slip(prompts: Sequence[str], *, has_file: bool) -> Slip | None:
    """Why one of the prompts of a command line looks like a mistake; None if none does.

    A shell parts words at each space, and a value that its option does not take becomes a prompt. So a single word is
    a slip beside other prompts. One word alone is a prompt.

    Args:
        prompts: The prompts of the command line, in their order.
        has_file: Whether the command reads prompts from a file too.
    """
    words = [prompt for prompt in prompts if _is_word(prompt)]
    slips = [*filter(None, map(_option_slip, words)), *filter(None, map(_quotes_slip, prompts))]
    if slips:
        return slips[0]
    if not words or (len(prompts) == 1 and not has_file):
        return None
    if len(words) == len(prompts) > 1:
        start = " ".join(prompts[:2])
        return Slip(
            f"{len(prompts)} prompts of one word each would be {len(prompts)} videos",
            "",
            f'put the words of one prompt into quotes ("{start} …")',
        )
    return Slip(
        f"{quote_value(words[0])} is a prompt of one word beside other prompts",
        "",
        "put all words of one prompt into one pair of quotes, and the value of an option right after the option",
    )


def _quotes_slip(prompt: str) -> Slip | None:
    """Why an option stands within the quotes of a prompt; None if none does."""
    for name in _OPTION.findall(prompt):
        if name.replace("-", "_") in {*_FIELDS, "no_sound"}:
            reason = f"{quote_value(prompt)} has the option --{name} within its quotes"
            return Slip(reason, "", "end the quotes before the option")
    return None


def _option_slip(word: str) -> Slip | None:
    """Why a word looks like an option, or like the value of one; None if it does not."""
    value, quoted = word.casefold(), quote_value(word)
    if value.startswith(_DASHES):
        name = value.strip("".join(_DASHES))
        return Slip(
            f"{quoted} looks like an option", "", f"write --{name} with two plain hyphens, and before any --"
        )
    if value == "help":
        return Slip("'help' would be a video", "", "ask with kling-async generate --help")
    if value in _COMMANDS:
        return Slip(f"{quoted} is the name of a command", "", f"ask with kling-async {value} --help")
    option = _option_of(value)
    if option is None:
        return None
    shown = word.rstrip("s") if option == "--duration" else word
    return Slip(
        f"{quoted} looks like the value of an option",
        "",
        f"put it after its option, such as {option} {shown}",
    )


def _option_of(value: str) -> str | None:
    """The option that takes a value; None if no option does."""
    if value in _SWITCH_WORDS:
        return "--sound"
    if value in MODELS:
        return "--model"
    forms = {"--duration": _NUMBER, "--aspect-ratio": _RATIO, "--resolution": _RESOLUTION, "--mode": _QUALITY}
    return next((option for option, form in forms.items() if form.fullmatch(value)), None)


def _file_slip(name: str) -> Slip:
    suffix, quoted, shown = _suffix(name), quote_value(name), shlex.quote(name)
    reason = f"{quoted} is the name of a file"
    if suffix in _PROMPT_FILES:
        return Slip(
            reason,
            "make a batch of its prompts, such as generate_many(open(...).read().splitlines())",
            f"use --from {shown}",
        )
    if suffix in _PICTURES:
        return Slip(
            reason, f"describe the video, and give image={quoted}", f"describe it, and use --image {shown}"
        )
    if suffix == ".db":
        return Slip(
            reason,
            "make a batch with it, as generate_many(..., journal=...)",
            f"use kling-async resume {shown}",
        )
    return Slip(reason, "describe the video", "describe the video, or give a file of prompts with --from")


def _suffix(text: str) -> str:
    """The suffix of a name in lower case, such as `.txt`; not by `PurePath`, because a batch has many prompts."""
    _, dot, ending = text[-_LONGEST_SUFFIX:].rpartition(".")
    return f".{ending.strip().lower()}" if dot else ""


def _is_token(text: str) -> bool:
    return bool(text) and not any(map(str.isspace, text))


def _is_word(prompt: str) -> bool:
    """Whether the prompt is one word. A script without upper and lower case can write a sentence without a space."""
    return _is_token(prompt) and not any(unicodedata.category(character) == "Lo" for character in prompt)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
