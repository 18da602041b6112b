"""The reference names everything that is public."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import kling_async
from kling_async import distributed, emulator, errors, events, journal, notebook, types

PAGES = Path(__file__).parents[2] / "docs" / "reference"
DIRECTIVE = re.compile(r"\.\. (currentmodule|auto(?:class|exception|function|data)|py:data):: ([\w.]+)")


def read_entries() -> set[str]:
    """Every name that has an entry, as a user would import it."""
    names = set()
    for page in PAGES.glob("*.md"):
        module = ""
        for directive, name in DIRECTIVE.findall(page.read_text()):
            if directive == "currentmodule":
                module = name
            else:
                names.add(f"{module}.{name}")
    return names


def public(module: ModuleType) -> set[str]:
    """What a module says is public, or else what it defines without an underscore for others than the engine."""
    defined = (
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    )
    return set(getattr(module, "__all__", defined))


@pytest.mark.parametrize(
    "module",
    [kling_async, distributed, emulator, events, journal, notebook, types],
    ids=lambda module: module.__name__,
)
def test_every_public_name_has_an_entry(module):
    elsewhere = set() if module is kling_async else public(kling_async)
    elsewhere |= {"Listener"} if module is types else set()
    wanted = {f"{module.__name__}.{name}" for name in public(module) - elsewhere if name != "__version__"}

    assert wanted - read_entries() == set()


def test_every_error_has_an_entry_under_the_name_at_the_top():
    assert {f"kling_async.{name}" for name in public(errors)} - read_entries() == set()


def test_every_entry_is_public():
    modules = {
        module.__name__: module
        for module in (kling_async, distributed, emulator, events, journal, notebook, types)
    }
    for entry in read_entries():
        module, _, name = entry.rpartition(".")
        assert name in public(modules[module]) | {"Listener"}
