"""The calls of the public API: each refuses an unknown keyword, and each of its errors says which call was made."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from functools import partial, wraps
from typing import Any, TypeAlias, TypeVar, cast, overload

from kling_async._interrupts import interruptible
from kling_async._secrets import forget_arguments
from kling_async.errors import KlingError
from kling_async.lines import nearest_name

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
_Check: TypeAlias = Callable[[AbstractSet[str]], None]


def check_options(options: Iterable[str], known: Collection[str], *, call: str) -> None:
    """Refuse an option that a call does not have, as Python refuses an unknown argument.

    Args:
        options: The names that the caller gave.
        known: The names that the call takes.
        call: The method that was called.

    Raises:
        TypeError: An option is unknown. The message lists the call's options and offers the nearest one.
    """
    for name in options:
        if name not in known:
            names = f"its options are {', '.join(sorted(known))}" if known else "it takes no options"
            raise TypeError(f"{call}() has no option {name!r}{suggest_name(name, known)}; {names}.")


def suggest_name(name: object, known: Collection[str]) -> str:
    """The end of a sentence that offers the known name nearest to a wrong one; empty if none is near."""
    near = nearest_name(name, known)
    return "" if near is None else f"; did you mean {near!r}?"


@overload
def public_call(function: F, /) -> F: ...
@overload
def public_call(*, options: Callable[[], Collection[str]]) -> Callable[[F], F]: ...
def public_call(
    function: F | None = None, /, *, options: Callable[[], Collection[str]] = tuple
) -> F | Callable[[F], F]:
    """The function as a call of the public API: it checks its keywords, and its errors have its name in `call`.

    Of nested calls the outermost counts: that is the one that the user made.

    Args:
        function: The function.
        options: Returns the names that its `**options` take. It is called with the first call, for to import them takes time.
    """
    if function is None:
        return partial(_as_public_call, options=options)
    return _as_public_call(function, options=options)


def _as_public_call(function: F, *, options: Callable[[], Collection[str]]) -> F:
    name = _name_of(function)
    check = _keyword_check(function, name, options)
    if inspect.iscoroutinefunction(function):
        return cast("F", _wrap_coroutine(function, name, check))
    if inspect.isasyncgenfunction(function):
        return cast("F", _wrap_iterator(function, name, check))
    return cast("F", _wrap_plain(function, name, check))


def _wrap_coroutine(function: Callable[..., Any], name: str, check: _Check) -> Callable[..., Any]:
    @wraps(function)
    async def await_call(*args: Any, **kwargs: Any) -> Any:
        try:
            check(kwargs.keys())
            with interruptible():
                return await function(*args, **kwargs)
        except BaseException as error:
            _leave(error, name)
            raise
        finally:
            del args, kwargs

    return await_call


def _wrap_iterator(
    function: Callable[..., AsyncGenerator[Any, None]], name: str, check: _Check
) -> Callable[..., Any]:
    @wraps(function)
    def iterate(*args: Any, **kwargs: Any) -> Any:
        check(kwargs.keys())
        return _name_errors(function(*args, **kwargs), name)

    return iterate


def _wrap_plain(function: Callable[..., Any], name: str, check: _Check) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            check(kwargs.keys())
            return function(*args, **kwargs)
        except BaseException as error:
            _leave(error, name)
            raise
        finally:
            del args, kwargs

    return call


def _leave(error: BaseException, name: str) -> None:
    """Name the call, and forget its arguments: one can be a password, and a traceback shows the variables of frames."""
    if isinstance(error, KlingError):
        error.call = name
    forget_arguments(error)


def public_class(kind: C) -> C:
    """The class, whose constructor is a call of the public API."""
    kind.__init__ = public_call(vars(kind)["__init__"])  # type: ignore[misc]
    return kind


def check_keywords(kind: C) -> C:
    """The class, whose constructor checks its keywords; its errors name no call, for a batch makes such values too."""
    init = vars(kind)["__init__"]
    check = _keyword_check(init, kind.__name__)

    @wraps(init)
    def call(*args: Any, **kwargs: Any) -> None:
        check(kwargs.keys())
        init(*args, **kwargs)

    kind.__init__ = call  # type: ignore[misc]
    return kind


async def _name_errors(items: AsyncGenerator[Any, None], name: str) -> AsyncGenerator[Any, None]:
    async with aclosing(items):
        try:
            async for item in items:
                yield item
        except KlingError as error:
            error.call = name
            raise


def _name_of(function: Callable[..., Any]) -> str:
    """The name as a user writes it: that of the class for its constructor."""
    kind, _, name = function.__qualname__.rpartition(".")
    return kind if name == "__init__" else name


def _keyword_check(
    function: Callable[..., Any], name: str, options: Callable[[], Collection[str]] = tuple
) -> _Check:
    """Raises the `TypeError` for an unknown keyword; a check against a set, for a batch makes many requests."""
    parameters = inspect.signature(function).parameters.values()
    named = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD} - {"self"}
    takes_options = any(each.kind is each.VAR_KEYWORD for each in parameters)
    subjects = {each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD}

    def check(keywords: AbstractSet[str]) -> None:
        if not keywords <= named:
            known = named - subjects | set(options()) if takes_options else named
            check_options([each for each in keywords if each not in named], known, call=name)

    return check
