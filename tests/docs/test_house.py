"""The page about the rooms says what import-linter holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOUSE = (ROOT / "docs" / "explanation" / "house.md").read_text()


def test_the_page_lists_the_rooms_in_the_order_that_is_enforced():
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers")

    assert re.findall(r"^\| `(\w+)` \|", HOUSE, re.MULTILINE) == layers


def test_every_file_that_the_page_names_exists():
    named = set(re.findall(r"`(\w+/\w+\.py|\w+\.py)`", HOUSE))

    assert named
    assert [file for file in named if not any((ROOT / "kling_async").rglob(file))] == []
