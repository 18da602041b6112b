"""Files of prompts: found by their name, decoded, and read as rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from kling_async.cli.prompt_rows import PromptFile, read_csv, read_json, read_text
from kling_async.errors import ConfigurationError
from kling_async.lines import reason_of

STDIN = "-"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_READERS: Mapping[str, Callable[..., PromptFile]] = {
    ".txt": read_text,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_json,
    ".ndjson": read_json,
}


def read_file(source: str, *, keep_labels: bool = False, encoding: str | None = None) -> PromptFile:
    """The items of a file, and what was left out.

    Args:
        source: The file's name, which says what it is by its ending, or `-` for a text on stdin.
        keep_labels: Keep what is no field of a request as labels.
        encoding: The encoding of the file; by default UTF-8, or UTF-16 if the file begins as one.

    Raises:
        ConfigurationError: It cannot be read or decoded, or is of another kind; or its header is no header.
    """
    suffix = ".txt" if source == STDIN else Path(source).suffix.lower()
    if suffix not in _READERS and Path(source).is_dir():
        raise ConfigurationError(f"{source} is a folder; name a file in it for --from.")
    if suffix not in _READERS:
        raise ConfigurationError(
            f"{source}: prompts are read from .txt (one a line), .csv, .tsv and .jsonl files; convert it into one of them."
        )
    name = "stdin" if source == STDIN else source
    text = _decode(_read_bytes(source), name, encoding)
    file = _READERS[suffix](text, name, keep_labels=keep_labels)
    if not file.rows:
        raise ConfigurationError(
            f"{name} is empty: there is no prompt in it; write one, or name another file."
        )
    return file


def _read_bytes(source: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise ConfigurationError(
            f"{source} cannot be read: {reason}; check the name given to --from."
        ) from error


def _decode(content: bytes, name: str, encoding: str | None) -> str:
    """The text. Any byte is a letter of an old code page, so no encoding but UTF-8 and UTF-16 is guessed."""
    chosen = encoding or ("utf-16" if content.startswith(_UTF_16) else "utf-8")
    try:
        return content.decode(chosen).removeprefix("\ufeff")
    except LookupError as error:
        raise ConfigurationError(
            f"--encoding {encoding} is not the name of an encoding; utf-8 and cp1252 are."
        ) from error
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else len(content) - 1
        line = content.count(b"\n", 0, start) + 1
        raise ConfigurationError(
            f"{name}, line {line}: not {chosen.upper()} (byte 0x{content[start]:02x}); save the file as UTF-8, or name "
            "its encoding, such as --encoding cp1252."
        ) from error
