"""Faults as values: which call is hit, and what befalls it. Nothing here touches a socket.

A `Fault` says which calls it hits by counting them, or by a probability that follows from a seed. So a schedule is
exact and repeats, whether it was written by hand or drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, Literal, TypeAlias, get_args

import attrs
from attrs.validators import and_, ge, in_, le, optional

Operation = Literal["submit", "status", "list", "models", "upload", "store", "media"]
"""A kind of call: `models` is the listing and one model, `upload` asks for a URL and `store` puts the bytes there."""

_one_or_more: Callable[[object, attrs.Attribute[Any], Any], None] = optional(ge(1))
_share = and_(ge(0.0), le(1.0))


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@attrs.frozen
class Reply:
    """Answer this instead of the truth."""

    status: int = 200
    body: bytes | str | Mapping[str, Any] | list[Any] = b""
    """Bytes and text are sent as they are; anything else as JSON."""
    content_type: str | None = None
    """None: JSON for a mapping or list, otherwise `text/html`."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    accepted: bool = attrs.field(default=False, kw_only=True)
    """True: the call takes effect first, so a submit leaves a paid job behind."""


@attrs.frozen
class Drop:
    """Hang up without an answer."""

    accepted: bool = attrs.field(default=True, kw_only=True)
    """True: the call takes effect first. False: the body is not even read."""
    reset: bool = attrs.field(default=True, kw_only=True)
    """True: a TCP reset. False: an orderly end of the stream."""


@attrs.frozen
class Stall:
    """Let the call take effect, say nothing for some time, then answer the truth or hang up."""

    delay: float = attrs.field(validator=ge(0.0))
    """Real seconds, whatever the time scale."""
    then: Literal["answer", "drop"] = "answer"


@attrs.frozen
class SlowReply:
    """Send the true answer piece by piece."""

    delay: float = attrs.field(validator=ge(0.0))
    """Real seconds after each piece."""
    pieces: int = attrs.field(default=10, validator=ge(1))


@attrs.frozen
class TruncatedReply:
    """Send only the beginning of the true answer, then hang up."""

    size_bytes: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Bytes that get through. None: `share` of them."""
    share: float = attrs.field(default=0.5, validator=_share, kw_only=True)
    """The part that gets through where `size_bytes` is None."""
    within: Literal["head", "body"] = attrs.field(default="body", kw_only=True)
    """`body`: the head comes whole. `head`: the answer breaks off within its headers."""
    declares_full_length: bool = attrs.field(default=True, kw_only=True)
    """True: the Content-Length is that of the whole body. False: it is that of what comes, and nobody hangs up."""
    reset: bool = attrs.field(default=False, kw_only=True)
    """True: a TCP reset. False: an orderly end of the stream."""
    delay: float = attrs.field(default=0.0, validator=ge(0.0), kw_only=True)
    """Real seconds of silence before the end."""


@attrs.frozen
class WrongLength:
    """Send the whole body under a Content-Length that is off, then hang up."""

    difference_bytes: int
    """Added to the true length."""


@attrs.frozen
class DuplicateReply:
    """Send the true answer, and the same bytes once more."""

    delay: float = attrs.field(default=0.0, validator=ge(0.0))
    """Real seconds between the two."""


@attrs.frozen
class Edit:
    """Change keys of the true JSON answer; in a list, of each row. What is no JSON stays as it is."""

    changes: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    raw_json: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    """Keys and the JSON text of their values, for what no encoder writes."""
    time_offset: float = attrs.field(default=0.0, kw_only=True)
    """Seconds added to every time that is told, as if the service's clock had jumped."""
    without: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    """Keys to leave out."""


@attrs.frozen
class Flood:
    """Answer with this many bytes of nothing, for as long as they are read."""

    size_bytes: int = attrs.field(validator=ge(0))
    is_compressed: bool = attrs.field(default=False, kw_only=True)
    """True: a gzip bomb, a thousandth of the size on its way."""
    accepted: bool = attrs.field(default=True, kw_only=True)
    """True: the call takes effect first."""


@attrs.frozen
class Redirect:
    """Send the caller to the same path of another host."""

    to: str
    """Scheme, host and port of the other one."""
    status: int = 302


@attrs.frozen
class Raw:
    """Write these bytes to the socket in place of an HTTP answer, then hang up."""

    data: bytes
    accepted: bool = attrs.field(default=True, kw_only=True)
    """True: the call takes effect first."""


@attrs.frozen
class Outage:
    """Hang up, drop every connection, and refuse new ones for some time; jobs go on."""

    duration: float = attrs.field(validator=ge(0.0))
    """Real seconds, whatever the time scale."""
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
"""What can befall a call."""

NOT_FOUND = Reply(404, {"error": "Request not found"})
"""The answer about a job that the service has lost."""

BACKEND_ERROR = Reply(500, {"error": "Backend error (400). Please try again."})
"""The service's wrapper around a refusal from behind it."""

BAD_GATEWAY = Reply(502, "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>")
"""A proxy's page where JSON was promised."""

STORAGE_BUSY = Reply(
    503,
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>",
    "application/xml",
)
"""A refusal of the storage host, which words them in XML."""


@attrs.frozen
class Fault:
    """One action and the calls it hits: number `nth`, then every `every`-th, `times` in all.

    Calls are numbered from 1, per fault, from the moment it is set. With `probability`, each of the calls that would
    be hit is hit only with that probability.
    """

    on: Operation = attrs.field(validator=in_(get_args(Operation)))
    do: Action
    nth: int = attrs.field(default=1, validator=ge(1), kw_only=True)
    times: int | None = attrs.field(default=1, validator=_one_or_more, kw_only=True)
    """None: for ever."""
    every: int = attrs.field(default=1, validator=ge(1), kw_only=True)
    probability: float = attrs.field(default=1.0, validator=_share, kw_only=True)
    job: int | None = attrs.field(default=None, validator=_one_or_more, kw_only=True)
    """Only calls about the job with this submit number, from 1. None: all calls."""

    def concerns(self, operation: Operation, job: int | None) -> bool:
        """True if a call of this kind, about this job, is one to count."""
        return self.on == operation and self.job in (None, job)

    def hits(self, call: int, *, seed: str = "") -> bool:
        """True if call number `call` of those it concerns is hit; the same seed gives the same answer."""
        turn, beside = divmod(call - self.nth, self.every)
        if turn < 0 or beside or (self.times is not None and turn >= self.times):
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
    """The faults that are set, each with the number of calls it has seen."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._seed = seed
        self._faults: list[_CountedFault] = []
        self.add(*faults)

    def __repr__(self) -> str:
        return f"Faults({[counted.fault for counted in self._faults]!r})"

    def add(self, *faults: Fault) -> None:
        """Set more faults; their counting starts now."""
        for fault in faults:
            self._faults.append(_CountedFault(fault, f"{self._seed}/{len(self._faults)}"))

    def clear(self) -> None:
        """Take all faults away."""
        self._faults = []

    def next_action(self, operation: Operation, *, job: int | None = None) -> Action | None:
        """What befalls the next call: the action of the first fault that hits it, or None.

        Every fault that the call concerns counts it, also those behind the one that hits.
        """
        concerned = [counted for counted in self._faults if counted.fault.concerns(operation, job)]
        hits = [counted.fault.do for counted in concerned if counted.hits_next_call()]
        return hits[0] if hits else None
