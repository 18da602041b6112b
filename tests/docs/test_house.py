"""The page about the rooms is true: rooms, files, and the functions that a request goes through."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = (ROOT / "docs" / "explanation" / "house.md").read_text()
HOPS = re.findall(r"^\| \d+ \| `([\w.]+)` \| `([\w/]+\.py)` \|", HOUSE, re.MULTILINE)
"""Each function that a request goes through, with its file."""
WAYS = (
    "A POST under a shared journal",
    "A batch over many machines",
    "A video on its way to its place",
)
"""The sections whose rows are functions, each called from the file of a row above it in its table."""


def find_function(name, file):
    """The node of a function by its qualified name, nested functions of its body included."""
    node = ast.parse((ROOT / "kling_async" / file).read_text())
    for part in name.split("."):
        # An overload comes before its function, so the last one counts.
        *_, node = (child for child in node.body if getattr(child, "name", "") == part)
    return node


def names_in(node):
    return {
        child.attr if isinstance(child, ast.Attribute) else child.id
        for child in ast.walk(node)
        if isinstance(child, ast.Attribute | ast.Name)
    }


def test_the_page_lists_the_rooms_in_the_order_that_is_enforced():
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers")

    rooms = HOUSE.partition("## Rooms")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", rooms, re.MULTILINE) == layers


def test_every_file_and_folder_that_the_page_names_exists():
    named = set(re.findall(r"`([\w/]+\.py|_\w+/\w+)`", HOUSE))

    assert named
    assert [
        file for file in named if not any((root / file).exists() for root in (ROOT, ROOT / "kling_async"))
    ] == []


def test_every_folder_of_the_engine_is_on_the_page():
    engine = ROOT / "kling_async" / "_engine"
    folders = {path.parent.name for path in engine.glob("*/__init__.py")}

    assert set(re.findall(r"^\| `_engine/(\w+)` \|", HOUSE, re.MULTILINE)) == folders


def test_the_way_of_a_request_goes_from_the_client_to_the_socket():
    assert HOPS[0] == ("KlingClient.generate_many", "client.py")
    assert "write" in names_in(find_function(*HOPS[-1]))
    assert len(HOPS) - 1 <= 15


@pytest.mark.parametrize("caller, called", list(itertools.pairwise(HOPS)), ids=[name for name, _ in HOPS[1:]])
def test_each_function_on_the_way_of_a_request_calls_the_next(caller, called):
    assert find_function(*called)
    assert called[0].rpartition(".")[2] in names_in(find_function(*caller))


def test_the_way_back_names_functions_that_exist():
    way = HOUSE.partition("## The way back")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w/]+\.py)` \|", way, re.MULTILINE)

    assert HOPS[0] in rows
    for name, file in rows:
        assert find_function(name, file)


def tables_in(section):
    """The tables of a section, each as its rows of a function and a file."""
    text = HOUSE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    tables = [
        re.findall(r"^\| `([\w.]+)` \| `([\w/]+\.py)` \|", part, re.MULTILINE) for part in text.split("\n\n")
    ]
    return [rows for rows in tables if rows]


@pytest.mark.parametrize("section", WAYS)
def test_each_function_of_a_way_is_called_from_a_file_of_a_row_above_it(section):
    assert tables_in(section)
    for rows in tables_in(section):
        names = set()
        for number, (name, file) in enumerate(rows):
            assert find_function(name, file)
            assert number == 0 or name.rpartition(".")[2] in names, name
            names |= names_in(ast.parse((ROOT / "kling_async" / file).read_text()))


@pytest.mark.parametrize(
    "folder",
    [
        "_engine/batch",
        "_engine/download",
        "_engine/poll",
        "_engine/submit",
        "_journal",
        "_policy",
        "_distributed",
    ],
)
def test_every_file_of_the_engine_of_the_policies_of_the_journal_and_of_many_machines_has_a_line(folder):
    (files,) = [
        set(re.findall(r"^\| `([\w/]+\.py)` \|", part, re.MULTILINE))
        for part in HOUSE.split("\n\n")
        if part.startswith(f"| file of `{folder}` |")
    ]
    present = {
        path.relative_to(ROOT / "kling_async") for path in (ROOT / "kling_async" / folder).rglob("*.py")
    }

    assert files == {path.as_posix() for path in present if path.name != "__init__.py"}


def test_the_page_on_polls_names_functions_that_exist():
    polls = HOUSE.partition("## When a job is polled")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w/]+\.py)` \|", polls, re.MULTILINE)

    assert rows
    for name, file in rows:
        assert find_function(name, file)


def test_the_life_of_an_item_names_functions_that_exist():
    life = HOUSE.partition("## The life of an item")[2].partition("\n## ")[0]
    sources = [path.read_text() for path in (ROOT / "kling_async" / "_engine").rglob("*.py")]
    defined = {
        node.name
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = {name.rpartition(".")[2] for name in re.findall(r"`((?:[A-Z]\w+\.)?_?[a-z]\w*)`", life)}

    assert named
    assert named <= defined
