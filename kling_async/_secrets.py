"""The API key as a value that shows itself to no one, and tracebacks without local variables.

Error trackers send away the repr of each local variable in a traceback. So a key is a `Secret` until its header is
written, and the frames that had the header in a variable forget their variables.
"""

from __future__ import annotations

import traceback


class Secret:
    """A text that only `reveal` shows: not its repr, not a log, not a pickle or a copy."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

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
        """The text with `***` for each place where the secret stands."""
        return text.replace(self._text, "***") if self._text else text

    def hide_in_bytes(self, body: bytes) -> bytes:
        """The bytes with `***` for each place where the secret stands."""
        return body.replace(self._text.encode(), b"***") if self._text else body

    def is_shown_by(self, error: BaseException) -> bool:
        """Whether the text, the arguments or an attribute of an error, or of one that led to it, shows the secret."""
        return bool(self._text) and any(
            self._text in shown
            for each in _chain(error)
            for shown in (str(each), repr(each), repr(each.args), repr(vars(each)))
        )


def clear_locals(error: BaseException, *, outer: BaseException | None = None) -> None:
    """Have the finished frames of an error, and of the errors that led to it, forget their local variables.

    Args:
        error: The error.
        outer: The error that was handled before; its frames belong to others and stay as they are.
    """
    for each in _chain(error, outer=outer):
        traceback.clear_frames(each.__traceback__)


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
