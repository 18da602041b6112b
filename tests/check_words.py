"""Finds the words that the glossary replaces, and functions whose name is a participle.

`nox -s lint` runs it as a program, and `docs/test_glossary.py` as a test.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "explanation" / "glossary.md"
FOLDERS = ("kling_async", "tests", "benchmarks", "docs")
SAYS_THE_WORDS = {GLOSSARY, Path(__file__), ROOT / "tests" / "docs" / "test_glossary.py"}
SUFFIXES = {".py", ".md", ".ipynb", ".html", ".js"}
KEEP_ALIVE = re.compile(r"keep[-_ ]alive", re.IGNORECASE)
"""The name of a header and of a parameter: the one standard term that has a word of the right column in it."""
PARTICIPLE = re.compile(
    r"\w+(?:[^e]ed|[^e]en|ing)|sent|kept|told|held|found|lost|made|shown|drawn|known|gone|seen"
)
VERBS = {"open", "loosen", "listen", "happen", "ring", "bring", "embed", "need"}
"""Words that end like a participle and are none."""
NOUNS_BY_DECORATOR = {"property", "cached_property", "fixture"}
"""A property and a fixture are used without a call, so an adjective is their right name."""


def files() -> list[Path]:
    """All files of the project that people read, except those that are about the words."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in FOLDERS:
        found += (path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
    return sorted(path for path in found if path not in SAYS_THE_WORDS and "_build" not in path.parts)


def banned_words(glossary: str) -> list[str]:
    """The words in backticks of the glossary's columns "not"."""
    words = []
    column = None
    for line in glossary.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            column = None
        elif column is None:
            column = cells.index("not") if "not" in cells else None
        else:
            words += re.findall(r"`([a-z ]+)`", cells[column])
    return words


def pattern_of(words: list[str]) -> re.Pattern[str]:
    """Matches each word in all its forms, also where a phrase goes over two lines."""
    return re.compile(rf"(?<![a-z])(?:{'|'.join(map(_forms, words))})(?![a-z])", re.IGNORECASE)


def _forms(word: str) -> str:
    if " " in word:
        return word.replace(" ", r"[\s#]+")
    if word.endswith("y"):
        return f"{word[:-1]}(?:y|ies|ied|ying)"
    return f"{word[:-1]}(?:e|es|ed|er|ers|ing)" if word.endswith("e") else f"{word}(?:s|ed|er|ers|ing)?"


def find_banned(text: str, banned: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """The line and the text of each banned word; `at_hand` and `AtHand` are words as `at hand` is."""
    plain = re.sub(r"_|(?<=[a-z0-9])(?=[A-Z])", " ", KEEP_ALIVE.sub("keepalive", text))
    for match in banned.finditer(plain):
        yield (
            plain.count("\n", 0, match.start()) + 1,
            f"{' '.join(match[0].split())!r} is not a word of the glossary",
        )


def find_participles(source: str) -> Iterator[tuple[int, str]]:
    """The line and the name of each function that is named by a participle."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_noun(node):
            continue
        name = node.name.strip("_")
        if "_" not in name and name not in VERBS and PARTICIPLE.fullmatch(name):
            yield node.lineno, f"the function {node.name!r} is named by a participle, not by a verb"


def _is_noun(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    named = (ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list)
    return not NOUNS_BY_DECORATOR.isdisjoint(name.rpartition(".")[2] for name in named)


def problems() -> list[str]:
    """One line for each finding, as `path:line: text`."""
    banned = pattern_of(banned_words(GLOSSARY.read_text()))
    lines = []
    for path in files():
        text = path.read_text()
        found = [*find_banned(text, banned), *(find_participles(text) if path.suffix == ".py" else ())]
        lines += [f"{path.relative_to(ROOT)}:{line}: {problem}" for line, problem in sorted(found)]
    return lines


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or None)
