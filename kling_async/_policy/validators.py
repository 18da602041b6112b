"""Validators for settings; the error names the setting, its rule and the value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs

from kling_async.errors import ConfigurationError
from kling_async.lines import quote_value

T = TypeVar("T")

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def at_least(
    minimum: float, *, whole: bool = False, optional: bool = False, above: bool = False
) -> Validator:
    """A validator for a number that is not below `minimum`.

    Args:
        minimum: The smallest valid value.
        whole: Only whole numbers are valid.
        optional: None is valid too.
        above: `minimum` itself is not valid.
    """

    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if (value is None and optional) or _fits(value, minimum, whole=whole, above=above):
            return
        noun = "a whole number" if whole else "a number"
        rule = f"above {minimum:g}" if above else f"of at least {minimum:g}"
        raise ConfigurationError(
            f"{attribute.name} must be {noun} {rule}"
            f"{' or None' if optional else ''}, not {quote_value(value)}."
        )

    return check


def check_flag(name: str, value: object) -> None:
    """Do nothing if a setting is a flag; any other value, such as the text "no", counts as true in Python.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {quote_value(value)}.")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Do nothing if a setting is one of a few values. First its type counts: a comparison with an array raises.

    Raises:
        ConfigurationError: It is not.
    """
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        *others, last = map(repr, choices)
        raise ConfigurationError(f"{name} must be {', '.join(others)} or {last}, not {quote_value(value)}.")


def check_kind(name: str, value: T, kind: type[T]) -> T:
    """The value of a setting, if it is of its kind.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be {kind.__name__}(...), not {quote_value(value)}.")
    return value


def _fits(value: object, minimum: float, *, whole: bool, above: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    return value > minimum if above else value >= minimum
