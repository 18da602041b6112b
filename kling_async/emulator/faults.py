"""Faults as values: which calls they hit, and what they do to them. Nothing here touches a socket.

A `Fault` chooses calls by their number, or at random from a seed. Both repeat exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, Literal, TypeAlias, get_args

import attrs
from attrs.validators import and_, ge, in_, le, optional

Operation = Literal["submit", "status", "list", "models", "upload", "store", "media"]
"""A kind of call. `models` lists the models or describes one, `upload` requests an upload URL, `store` PUTs a file to
that URL, and `media` downloads a file."""

ONE_OR_MORE: Callable[[object, attrs.Attribute[Any], Any], None] = optional(ge(1))
"""Validates a number from 1, or None."""
SHARE = and_(ge(0.0), le(1.0))
"""Validates a number from 0 to 1."""


def _to_tuple(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@attrs.frozen
class Reply:
    """Sends this reply in place of the real one."""

    status: int = 200
    body: bytes | str | Mapping[str, Any] | list[Any] = b""
    """Bytes and text are sent unchanged; a mapping or list is sent as JSON."""
    content_type: str | None = None
    """None means JSON for a mapping or list, and `text/html` for bytes or text."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    accepted: bool = attrs.field(default=False, kw_only=True)
    """True: the call takes effect first, so that a submit creates a paid job."""


@attrs.frozen
class Drop:
    """Closes the connection without a reply."""

    accepted: bool = attrs.field(default=True, kw_only=True)
    """True: the call takes effect first. False: the service does not read the request body."""
    reset: bool = attrs.field(default=True, kw_only=True)
    """True: a TCP reset. False: an orderly close."""


@attrs.frozen
class Stall:
    """Lets the call take effect, waits, then sends the real reply or closes the connection."""

    delay: float = attrs.field(validator=ge(0.0))
    """Real seconds; the time scale does not apply."""
    then: Literal["reply", "drop"] = "reply"


@attrs.frozen
class SlowReply:
    """Sends the body of the real reply in pieces, with a pause after each."""

    delay: float = attrs.field(validator=ge(0.0))
    """Real seconds after each piece."""
    pieces: int = attrs.field(default=10, validator=ge(1))


@attrs.frozen
class TruncatedReply:
    """Sends only the beginning of the real reply, then closes the connection."""

    size_bytes: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Bytes to send. None means `share` of them."""
    share: float = attrs.field(default=0.5, validator=SHARE, kw_only=True)
    """The part of the bytes to send if `size_bytes` is None, from 0 to 1."""
    within: Literal["head", "body"] = attrs.field(default="body", kw_only=True)
    """`body`: the head is sent whole, and the body is truncated. `head`: the head itself is truncated."""
    declares_full_length: bool = attrs.field(default=True, kw_only=True)
    """True: Content-Length counts the whole body. False: it counts the bytes that are sent, and the connection stays open."""
    reset: bool = attrs.field(default=False, kw_only=True)
    """True: a TCP reset. False: an orderly close."""
    delay: float = attrs.field(default=0.0, validator=ge(0.0), kw_only=True)
    """Real seconds between the last byte and the close."""


@attrs.frozen
class WrongLength:
    """Sends the whole body with a wrong Content-Length, then closes the connection."""

    difference_bytes: int
    """Added to the real length."""


@attrs.frozen
class DuplicateReply:
    """Sends the real reply, then the same bytes a second time."""

    delay: float = attrs.field(default=0.0, validator=ge(0.0))
    """Real seconds between the two replies."""


@attrs.frozen
class Edit:
    """Changes keys of the real JSON reply; in a list, of each row. A reply that is not JSON stays unchanged."""

    changes: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    raw_json: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    """Keys and the text of their values, for text that no JSON encoder writes, such as `NaN`."""
    time_offset: float = attrs.field(default=0.0, kw_only=True)
    """Seconds to add to every time in the reply, as if the clock of the service had jumped."""
    without: tuple[str, ...] = attrs.field(default=(), converter=_to_tuple, kw_only=True)
    """Keys to remove."""


@attrs.frozen
class Flood:
    """Sends this many blanks as the body, until the client stops reading."""

    size_bytes: int = attrs.field(validator=ge(0))
    is_compressed: bool = attrs.field(default=False, kw_only=True)
    """True: the body is compressed with gzip to a thousandth of its size."""
    accepted: bool = attrs.field(default=True, kw_only=True)
    """True: the call takes effect first."""


@attrs.frozen
class Redirect:
    """Redirects the client to the same path of another host."""

    to: str
    """Scheme, host and port of the other host."""
    status: int = 302


@attrs.frozen
class Raw:
    """Writes these bytes to the socket in place of an HTTP reply, then closes the connection."""

    data: bytes
    accepted: bool = attrs.field(default=True, kw_only=True)
    """True: the call takes effect first."""


@attrs.frozen
class Outage:
    """Closes every connection and refuses new ones for some time. Jobs continue."""

    duration: float = attrs.field(validator=ge(0.0))
    """Real seconds; the time scale does not apply."""
    accepted: bool = attrs.field(default=True, kw_only=True)
    """True: the call takes effect first."""


Action: TypeAlias = (
    Reply
    | Drop
    | Stall
    | SlowReply
    | TruncatedReply
    | WrongLength
    | DuplicateReply
    | Edit
    | Flood
    | Redirect
    | Raw
    | Outage
)
"""What a fault does to a call."""

NOT_FOUND = Reply(404, {"error": "Request not found"})
"""The reply of a service that does not know the job."""

BACKEND_ERROR = Reply(500, {"error": "Backend error (400). Please try again."})
"""The reply of the service if its own backend refuses a request."""

BAD_GATEWAY = Reply(502, "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>")
"""The HTML page of a proxy."""

STORAGE_BUSY = Reply(
    503,
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>",
    "application/xml",
)
"""A reply of the storage host, whose errors are XML."""


@attrs.frozen
class Fault:
    """An action and the calls it hits: number `nth`, then each `every`-th after it, at most `times` calls.

    Each fault counts its own calls, from 1, starting when the fault is added. With a `probability` below 1, each
    chosen call is hit with that probability.
    """

    on: Operation = attrs.field(validator=in_(get_args(Operation)))
    do: Action
    nth: int = attrs.field(default=1, validator=ge(1), kw_only=True)
    times: int | None = attrs.field(default=1, validator=ONE_OR_MORE, kw_only=True)
    """None means no limit."""
    every: int = attrs.field(default=1, validator=ge(1), kw_only=True)
    probability: float = attrs.field(default=1.0, validator=SHARE, kw_only=True)
    job: int | None = attrs.field(default=None, validator=ONE_OR_MORE, kw_only=True)
    """Counts only calls about the job with this submit number, from 1. None means all calls."""

    def applies_to(self, operation: Operation, job: int | None) -> bool:
        """True if the fault counts a call of this kind about this job."""
        return self.on == operation and self.job in (None, job)

    def hits(self, call: int, *, seed: str = "") -> bool:
        """True if the fault hits call number `call` of those that it counts. The same seed gives the same result."""
        hit, remainder = divmod(call - self.nth, self.every)
        if hit < 0 or remainder or (self.times is not None and hit >= self.times):
            return False
        return self.probability >= 1.0 or Random(f"{seed}/{call}").random() < self.probability


@attrs.define
class _CountedFault:
    fault: Fault
    seed: str
    calls: int = 0

    def hits_next_call(self) -> bool:
        self.calls += 1
        return self.fault.hits(self.calls, seed=self.seed)


class Faults:
    """The faults of one emulator, each with the number of calls it has counted."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._seed = seed
        self._faults: list[_CountedFault] = []
        self.add(*faults)

    def __repr__(self) -> str:
        return f"Faults({[counted.fault for counted in self._faults]!r})"

    def add(self, *faults: Fault) -> None:
        """Add faults. Each starts to count calls now."""
        for fault in faults:
            self._faults.append(_CountedFault(fault, f"{self._seed}/{len(self._faults)}"))

    def clear(self) -> None:
        """Remove all faults."""
        self._faults = []

    def next_action(self, operation: Operation, *, job: int | None = None) -> Action | None:
        """The action of the first fault that hits the next call, or None.

        Every fault that applies to the call counts it, also those after the one that hits.
        """
        counting = [counted for counted in self._faults if counted.fault.applies_to(operation, job)]
        actions = [counted.fault.do for counted in counting if counted.hits_next_call()]
        return actions[0] if actions else None
