"""The public API as one text: `tests/public_api.txt`, whose diff is the review of every change to it.

After a change that is meant, write it again: `PYTHONPATH=. python tests/test_public_api.py`.
"""

from __future__ import annotations

import ast
import difflib
import enum
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import attrs
import pytest

import kling_async
from kling_async import distributed, errors, events, journal, notebook, types

RECORD = Path(__file__).parent / "public_api.txt"
PROMISED = {
    "KlingClient",
    *("VideoRequest", "VideoOptions", "Job", "JobStatus", "Outcome", "Media", "ModelInfo"),
    *("Result", "ResultState", "BatchResult", "Journal"),
    *("BatchHistory", "HistoryRecorder", "ItemTimes", "TimeSpan"),
    *("Limits", "PollingPolicy", "RetryPolicy"),
    *("ProgressCounts", "show_progress"),
    *("KlingError", "ConfigurationError", "InvalidRequestError"),
    *(
        "APIConnectionError",
        "APITimeoutError",
        "CertificateError",
        "ClientClosedError",
        "ProxyError",
        "APIResponseError",
        "APIStatusError",
    ),
    *("BadRequestError", "AuthenticationError", "InsufficientCreditsError", "PermissionDeniedError"),
    *("NotFoundError", "RateLimitError", "InternalServerError"),
    *("AmbiguousSubmitError", "WaitTimeoutError", "DownloadError", "BudgetExceededError", "JournalError"),
    "BatchInterruptedError",
    *("JobError", "JobFailedError", "JobCancelledError"),
    *("Estimate", "ItemEstimate", "estimate"),
    "__version__",
}


def public_of(module: ModuleType) -> dict[str, object]:
    """What a module without `__all__` makes public: the classes it defines and the aliases it documents."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (getattr(value, "__module__", None) == module.__name__ or name == "Listener")
    }


def members_of(kind: type) -> dict[str, object]:
    return {
        name: value for name, value in vars(kind).items() if not name.startswith("_") and name != "Attributes"
    }


def plain(annotation: object) -> str:
    """An annotation as it stands in the source."""
    return getattr(annotation, "__forward_arg__", annotation)


def call(name: str, value: Callable[..., object]) -> Iterator[str]:
    """A call, each parameter on a line of its own, so that a change of one is a change of one line."""
    signature = inspect.signature(value)
    arrow = (
        ""
        if signature.return_annotation in {inspect.Signature.empty, None, "None"}
        else f" -> {signature.return_annotation}"
    )
    yield f"{name}{arrow}"
    is_named_only = False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_named_only:
            is_named_only = True
            yield "    *"
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        yield f"    {stars}{parameter.name}: {parameter.annotation}{default}"


def describe(kind: type) -> Iterator[str]:
    """What can be done with a class: how it is made, what it holds, what it does."""
    if issubclass(kind, enum.Enum):
        yield from (f"{member.name} = {member.value!r}" for member in kind)
    elif typing.is_typeddict(kind):
        yield from (f"{name}: {plain(annotation)}" for name, annotation in kind.__annotations__.items())
    elif "__init__" in vars(kind):
        yield from call("()", kind)
    for name, member in sorted(members_of(kind).items()):
        member = getattr(member, "__func__", member)  # noqa: PLW2901 - of a static method or a class method
        if inspect.isfunction(member):
            word = "async " if inspect.iscoroutinefunction(member) else ""
            yield from call(f"{word}{name}()", member)
        elif isinstance(member, property):
            yield f"{name}: {inspect.signature(member.fget).return_annotation}"


def described_module(module: ModuleType, names: dict[str, object]) -> Iterator[str]:
    for name, value in sorted(names.items()):
        bases = ", ".join(base.__name__ for base in getattr(value, "__bases__", ()) if base is not object)
        yield f"{module.__name__}.{name}{f'({bases})' if bases else ''}"
        if isinstance(value, type):
            yield from (f"    {line}" for line in describe(value))
        elif inspect.isfunction(value) or inspect.isfunction(value):
            yield from (f"    {line}" for line in call("()", value))


def public_api() -> str:
    top = {name: getattr(kling_async, name) for name in kling_async.__all__ if not name.startswith("_")}
    shown = {name: getattr(notebook, name) for name in notebook.__all__}
    lines = [
        *described_module(kling_async, top),
        *described_module(events, public_of(events)),
        *described_module(
            journal, {name: getattr(journal, name) for name in journal.__all__ if name not in top}
        ),
        *described_module(distributed, {name: getattr(distributed, name) for name in distributed.__all__}),
        *described_module(notebook, shown),
        *described_module(
            types, {name: getattr(types, name) for name in types.__all__ if name not in {*top, "Listener"}}
        ),
    ]
    return "\n".join(lines) + "\n"


def test_the_top_has_what_is_promised_and_nothing_else():
    assert set(kling_async.__all__) == PROMISED
    assert len(kling_async.__all__) == len(PROMISED)
    assert all(hasattr(kling_async, name) for name in PROMISED)


def test_dir_shows_what_is_public_and_no_import():
    modules = {"emulator", "errors", "events", "journal", "notebook", "types"}
    assert set(dir(kling_async)) == PROMISED | modules
    assert all(inspect.ismodule(getattr(kling_async, name)) for name in modules)
    with pytest.raises(AttributeError, match="has no attribute 'asyncio'"):
        _ = kling_async.asyncio


def test_a_python_that_is_too_old_is_told_which_one_is_needed(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(ImportError, match=r"^kling_async needs Python 3\.11 or newer; this is Python "):
        importlib.reload(kling_async)


def test_every_signature_is_as_recorded():
    recorded, current = RECORD.read_text().splitlines(), public_api().splitlines()
    changes = "\n".join(difflib.unified_diff(recorded, current, "recorded", "now", lineterm="", n=1))
    assert not changes, (
        f"the public API changed; if that is meant, run `python {RECORD.parent.name}/{Path(__file__).name}`:\n{changes}"
    )


@pytest.mark.parametrize("module", [kling_async, distributed, errors, events, journal, notebook, types])
def test_everything_public_says_what_it_is(module):
    assert module.__doc__
    names = (
        {name: getattr(kling_async, name) for name in PROMISED}
        if module is kling_async
        else public_of(module)
    )
    silent = []
    for name, value in names.items():
        if not isinstance(value, type):
            continue
        members = members_of(value)
        silent += [
            f"{name}.{member}"
            for member, it in members.items()
            if inspect.isroutine(it) and not inspect.getdoc(it)
        ]
        silent += [
            f"{name}.{member}"
            for member, it in members.items()
            if isinstance(it, property) and not it.__doc__
        ]
        silent += [name] if not value.__doc__ or value.__doc__.startswith("Method generated") else []
    assert silent == []


@pytest.mark.parametrize("name", sorted(PROMISED - {"__version__"}))
def test_what_a_docstring_says_begins_with_one_whole_sentence(name):
    first = inspect.getdoc(getattr(kling_async, name)).splitlines()[0]
    assert first[0].isupper() or first[0].isdecimal()
    assert first.endswith((".", ":"))


def annotations_of(value: object) -> Iterator[tuple[str, str]]:
    """Each annotation of a public class or function, with the place that it annotates."""
    if typing.is_typeddict(value):
        yield from ((name, plain(annotation)) for name, annotation in value.__annotations__.items())
        return
    functions = {"": value}
    if isinstance(value, type):
        functions = {"()": value} if "__init__" in vars(value) and not issubclass(value, enum.Enum) else {}
        for name, member in members_of(value).items():
            routine = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(routine):
                functions[name] = routine
    for place, function in functions.items():
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            yield f"{place} {parameter.name}", parameter.annotation
        yield place, signature.return_annotation


def names_in(annotation: object) -> set[str]:
    """The names that an annotation uses."""
    if not isinstance(annotation, str):
        return set()
    tree = ast.parse(annotation, mode="eval")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def defined_by_the_package() -> set[str]:
    """Every class, function and alias that a module of the package defines, private or not."""
    names = set()
    for file in Path(kling_async.__file__).parent.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_no_public_signature_names_anything_private():
    modules = (kling_async, distributed, errors, events, journal, notebook, types)
    public = {}
    for module in modules:
        listed = getattr(module, "__all__", None)
        public |= {name: getattr(module, name) for name in listed} if listed else public_of(module)
    defined = defined_by_the_package()
    assert {"JobPoller", "OnAmbiguous", "quote_value"} <= defined
    private = {
        f"{name} {place}: {used}"
        for name, value in public.items()
        if isinstance(value, type) or inspect.isfunction(value)
        for place, annotation in annotations_of(value)
        for used in names_in(annotation)
        if used in defined and used not in public
    }
    assert private == set()


def test_values_are_frozen_and_hold_nothing_but_their_fields():
    values = {name for name in PROMISED if attrs.has(getattr(kling_async, name))}
    values -= {"HistoryRecorder", "ProgressCounts"}  # listeners, which every event changes
    assert {"Job", "Result", "VideoRequest", "Limits"} <= values
    for name in values:
        kind = getattr(kling_async, name)
        assert kind.__setattr__ is not object.__setattr__, name
        assert not hasattr(kind.__new__(kind), "__dict__"), name


if __name__ == "__main__":
    RECORD.write_text(public_api())
