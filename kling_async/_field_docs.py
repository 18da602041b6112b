"""The text of each field for `help()`: Python keeps no docstring that stands below a field, so it is read from the source."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from itertools import pairwise
from textwrap import indent
from typing import Any, SupportsIndex

_ROOT = __name__.partition(".")[0]
HEADING = "Fields:"


def describe_fields(module: str) -> None:
    """Have `help()` show the fields of all classes that a module defines. Call this at the end of the module."""
    for value in list(vars(sys.modules[module]).values()):
        if isinstance(value, type) and value.__module__ == module and value.__doc__:
            docs = _FieldDocs(value.__doc__)
            docs.kind = value
            value.__doc__ = docs


class _FieldDocs(str):
    """The docstring of a class, followed by its fields, which are read when someone asks for the docstring.

    Source: CPython's `type.__doc__` calls `__get__` of the docstring. `pydoc` does not, for a class with a metaclass; then
    `inspect.cleandoc` calls `expandtabs`.
    """

    __slots__ = ("kind",)
    kind: type

    def __get__(self, instance: object, kind: type) -> str:
        own = str(self)
        shown = [indent(f"{name}{text}", " " * 8).removeprefix(" " * 4) for name, text in _read_fields(kind)]
        return "\n".join([inspect.cleandoc(own), "", HEADING, *shown]) if shown else own

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        """The docstring with its fields."""
        return self.__get__(None, self.kind).expandtabs(tabsize)


def _read_fields(kind: type) -> Iterator[tuple[str, str]]:
    """The name of each field with its type and its text, those of the base classes first; none without a source that can be read."""
    module = sys.modules[kind.__module__]
    try:
        source = ast.parse(inspect.getsource(module))
    except (OSError, SyntaxError, TypeError, ValueError):
        return
    for node in source.body:
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            # A TypedDict does not know its base classes in all versions of Python.
            for base in node.bases:
                found: Any = getattr(module, ast.unparse(base), None)
                if isinstance(found, type) and found.__module__.startswith(_ROOT):
                    for name, text in _read_fields(found):
                        yield name, text if ": " in text else f"{text}: see `{found.__name__}`"
            yield from _read_own_fields(node)


def _read_own_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in pairwise([*node.body, ast.Pass()]):
        text = None
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = inspect.cleandoc(str(following.value.value))
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                described = f" ({ast.unparse(annotation)})"
            case ast.Assign(targets=[ast.Name(id=name)]):
                described = ""
            case _:
                continue
        if not name.startswith("_"):
            yield name, f"{described}: {text}" if text else described
