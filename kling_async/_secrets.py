"""The API key as a value that shows itself to no one, and tracebacks without local variables.

Error trackers send away the repr of each local variable in a traceback. So a key is a `Secret` until its header is
written, and the frames that had the header in a variable forget their variables.
"""

from __future__ import annotations

import re
import traceback
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType
from typing import Any

_PACKAGE = __name__.partition(".")[0]
_CAN_CONTINUE = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
"""The flags of code whose frame can handle an error, wait, and continue later."""
_SHORTEST_DISGUISED = 8
"""Characters of the shortest secret that is recognised in a disguise: a shorter one would hide innocent text."""
_ESCAPE_OF_A_KEY = re.compile(rb"\\u00(?:2[b-fB-F]|3[0-9dD]|[46][1-9a-fA-F]|[57][0-9aAfFeE])")
"""An escape of a character that keys have. A service escapes others, such as `&` in each URL, and accents."""


class Secret:
    """A text that only `reveal` shows: not its repr, not a log, not a pickle or a copy."""

    __slots__ = ("_disguises", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._disguises: re.Pattern[str] | None = None

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> tuple[object, ...]:
        return Secret, ("***",)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __len__(self) -> int:
        return len(self._text)

    def reveal(self) -> str:
        """The text itself. Keep it in no variable."""
        return self._text

    def hide_in(self, text: str) -> str:
        """The text with `***` for each place where the secret stands, as it is or in a disguise.

        Disguises are: another case, white space in it, characters as escapes of JSON, of a URL or of HTML, and base64. Use
        this for texts of a few thousand characters.
        """
        if not self._text:
            return text
        text = text.replace(self._text, "***")
        if len(self._text) < _SHORTEST_DISGUISED:
            return text
        if self._disguises is None:
            self._disguises = _disguises_of(self._text)
        return self._disguises.sub("***", text)

    def hide_in_json(self, body: bytes) -> bytes:
        """The JSON with `***` for each place where the secret stands as it is; see `may_be_escaped_in`."""
        return body.replace(self._text.encode(), b"***") if self._text else body

    def hide_in_value(self, value: Any) -> Any:
        """A JSON value that was sent, as the service's record of it reads after `hide_in_json`; equal if the secret is not in it."""
        if isinstance(value, str):
            return value.replace(self._text, "***") if self._text else value
        if isinstance(value, Mapping):
            return {self.hide_in_value(key): self.hide_in_value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide_in_value(inner) for inner in value]
        return value

    def may_be_escaped_in(self, body: bytes) -> bool:
        """Whether JSON has an escape that can be a character of the secret: decode it, and hide the secret in its texts.

        It is asked for each reply, so other disguises are not looked for.
        """
        return bool(self._text) and b"\\u00" in body and _ESCAPE_OF_A_KEY.search(body) is not None

    def is_shown_by(self, error: BaseException) -> bool:
        """Whether the text, the arguments or an attribute of an error, or of one that led to it, shows the secret."""
        return any(
            self.hide_in(shown) != shown
            for each in _chain(error)
            for shown in (str(each), repr(each), repr(each.args), repr(vars(each)))
        )


def _disguises_of(secret: str) -> re.Pattern[str]:
    """Matches a secret in any of its disguises."""
    letters = (
        rf"(?:{re.escape(letter)}|%{code:02x}|\\u00{code:02x}|\\x{code:02x}|&\#0*{code};|&\#x0*{code:x};)"
        for letter, code in ((letter, ord(letter)) for letter in secret)
    )
    in_base64 = {text for lead in range(3) for text in _base64_of(secret, lead=lead)}
    split = r"(?:\s|\\[nrt]|\\(?=\\))*+"  # possessive: a text that nearly matches costs no time
    return re.compile("|".join([split.join(letters), *map(re.escape, in_base64)]), re.IGNORECASE)


def _base64_of(secret: str, *, lead: int) -> tuple[str, str]:
    """The secret in base64 behind so many other bytes, without the characters that depend on its neighbours."""
    whole = b64encode(bytes(lead) + secret.encode()).decode().rstrip("=")
    cut = whole[-(-lead * 8 // 6) :][: len(secret) * 8 // 6 - 1]
    return cut, cut.replace("+", "-").replace("/", "_")


def clear_locals(error: BaseException, *, outer: BaseException | None = None) -> None:
    """Have the finished frames of an error, and of the errors that led to it, forget their local variables.

    Args:
        error: The error.
        outer: The error that was handled before; its frames belong to others and stay as they are.
    """
    for each in _chain(error, outer=outer):
        traceback.clear_frames(each.__traceback__)


def forget_arguments(error: BaseException) -> None:
    """Have an error that leaves a call of the public API forget what the call was given, which can be a password.

    Call it in the function that called the function of the error. The frames of the caller's own functions keep their
    variables. So do those of inner coroutines: one that handled the error can continue, and to clear its frame would end
    it.
    """
    called = error.__traceback__ and error.__traceback__.tb_next
    for each in _chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if (called and frame is called.tb_frame) or _is_plain_of_package(frame):
                with suppress(RuntimeError):  # it still runs
                    frame.clear()
        if each.__suppress_context__ and type(each).__module__.partition(".")[0] == _PACKAGE:
            each.__context__ = None  # it is not to be shown


def _is_plain_of_package(frame: FrameType) -> bool:
    """Whether a frame is of a function of this package that cannot continue; attrs writes the code of constructors."""
    if frame.f_code.co_flags & _CAN_CONTINUE:
        return False
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] == _PACKAGE or f"methods {_PACKAGE}." in frame.f_code.co_filename


def _chain(error: BaseException, *, outer: BaseException | None = None) -> list[BaseException]:
    """The error and all that led to it, up to another error."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and each is not outer and not any(each is other for other in found):
            found.append(each)
            left += [each.__cause__, each.__context__]
            left += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return found
