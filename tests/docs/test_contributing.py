"""What the page for contributors says of the household is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def name_of_session(function):
    """Its own name, or the one that its decorator gives it."""
    keywords = getattr(function.decorator_list[0], "keywords", [])
    given = [keyword.value.value for keyword in keywords if keyword.arg == "name"]
    return given[0] if given else function.name


def test_every_session_that_the_page_names_exists():
    definitions = ast.parse((ROOT / "noxfile.py").read_text()).body
    sessions = {
        name_of_session(node)
        for node in definitions
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    named = set(re.findall(r"nox -s (\w+)", PAGE))

    assert named
    assert named <= sessions


def test_every_fragment_is_of_a_kind_that_exists():
    folder = ROOT / "docs" / "changelog.d"
    kinds = re.findall(r"^\| `(\w+)` \|", (folder / "README.md").read_text(), re.MULTILINE)
    fragments = [path.name for path in folder.glob("*") if path.name != "README.md"]

    assert fragments
    assert [
        name for name in fragments if not re.fullmatch(rf"\+[a-z-]+\.({'|'.join(kinds)})\.md", name)
    ] == []
