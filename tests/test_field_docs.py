"""`help()` of a public class has the text of each field."""

from __future__ import annotations

import enum
import inspect
import pydoc
import sys
import typing
from types import ModuleType

import attrs
import pytest

import kling_async
from kling_async import ModelInfo, Result, ResultState, distributed, events, journal, notebook, types
from kling_async._field_docs import describe_fields
from kling_async.journal import NextStep
from kling_async.types import BatchOptions, GenerateOptions

MODULES = (kling_async, distributed, events, journal, notebook, types)


def fields_of(kind):
    if typing.is_typeddict(kind):
        return list(kind.__annotations__)
    if issubclass(kind, enum.Enum):
        return list(kind.__members__)
    return (
        [field.name for field in attrs.fields(kind) if not field.name.startswith("_")]
        if attrs.has(kind)
        else []
    )


CLASSES = {
    f"{kind.__module__}.{kind.__name__}": kind
    for module in MODULES
    for kind in (getattr(module, name) for name in getattr(module, "__all__", dir(module)))
    if isinstance(kind, type) and kind.__module__.startswith("kling_async.") and fields_of(kind)
}


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_help_of_a_public_class_names_each_field(kind):
    shown = inspect.getdoc(kind)
    assert shown.startswith(kind.__doc__.splitlines()[0])
    for field in fields_of(kind):
        assert f"\n    {field}" in shown.partition("\nFields:\n")[2].join(["\n", ""])


@pytest.mark.parametrize(
    "kind, text",
    [
        (ModelInfo, "    kind (str | None): Such as `video`."),
        (Result, "    cost_usd (Decimal | None): US dollars for the item"),
        (events.Downloaded, "    at (float): The time of the event"),
        (events.Downloaded, "    size_bytes (int): Its size in bytes."),
        (BatchOptions, "    duration (int | None): see `VideoOptions`"),
        (
            BatchOptions,
            "    allow_suspicious (bool): Send a prompt that looks like a mistake.\n\n        Without",
        ),
        (GenerateOptions, "    progress (Progress): Whether to draw"),
        (ResultState, "    SUCCEEDED\n"),
        (NextStep, "    RECONCILE"),
    ],
)
def test_help_shows_the_text_below_a_field_and_those_of_its_base_classes(kind, text):
    assert text in inspect.getdoc(kind)
    page = pydoc.plain(pydoc.render_doc(kind))
    assert text in "\n".join(line.removeprefix(" |").removeprefix("  ") for line in page.splitlines())


def test_an_instance_has_the_same_text():
    info = ModelInfo(id="kling-v2-6")
    assert info.__doc__ == ModelInfo.__doc__


def test_a_class_without_its_source_keeps_its_own_docstring(monkeypatch):
    module = ModuleType("module_without_source")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec('class Point:\n    "A place."\n    x: int = 0\nclass Bare:\n    x: int = 0', vars(module))  # noqa: S102 - our own text
    describe_fields(module.__name__)
    assert module.Point.__doc__ == "A place."
    assert module.Bare.__doc__ is None


@pytest.mark.parametrize("text", ["class Point(:", "x = '\0'", "\ud800"])
def test_a_class_whose_source_was_edited_meanwhile_keeps_its_own_docstring(tmp_path, monkeypatch, text):
    module = ModuleType("module_with_edited_source")
    module.__file__ = str(tmp_path / "edited.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec('class Point:\n    "A place."\n    x: int = 0', vars(module))  # noqa: S102 - our own text
    describe_fields(module.__name__)
    (tmp_path / "edited.py").write_bytes(text.encode(errors="surrogatepass"))
    assert module.Point.__doc__ == "A place."
