"""A paid POST whose answer never came: its payload, and the times between which its job was created."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from kling_async._policy.service_clock import Instant

CLOCK_SKEW = 60.0
"""Seconds by which a recorded time can be wrong, also by the service's clock: a service can have several clocks."""
MAX_INTENT_AGE = 5.0
"""Seconds after its recorded time in which a POST can begin; connecting is a part of its timeout.

A process can stand still, and a disk or a database can be slow. A later run searches for the job around this time, and
takes an empty list for the proof that there is none.
"""
_ANSWER_DELAY = 6.0
"""Seconds for the record of an answer that comes at the last moment."""


@attrs.frozen(kw_only=True)
class LostSubmit:
    """A paid POST whose answer never came, described by the facts that identify its job."""

    payload: Mapping[str, Any]
    """The payload that was sent."""
    since: float
    """Unix seconds; a job that was created earlier belongs to another submit."""
    until: float
    """Unix seconds; a job that was created later belongs to another submit."""
    has_present_key: bool = True
    """Whether it was sent with the key of this client, and not by an earlier run, which can have had another one."""
    is_service_time: bool = True
    """Whether both times are by the service's clock; else they are by the clock of a machine."""
    may_have_other_clock: bool = False
    """Whether that clock may have been another one, or another process may have found it set: the times prove nothing then."""
    clock_changes: int = 0
    """`Instant.clock_changes` before the POST, or when a recorded POST was read."""
    payload_json: str = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(lambda self: json.dumps(self.payload, sort_keys=True), takes_self=True),
    )
    """The payload as JSON with sorted keys: equal payloads have equal texts."""

    def by_service_clock(self, offset: float | None) -> LostSubmit:
        """This submit with its times by the service's clock.

        Args:
            offset: Seconds that the service's clock is ahead of the clock of this machine; None is unknown.
        """
        if self.is_service_time or not offset:
            return self
        return attrs.evolve(self, since=self.since + offset, until=self.until + offset, is_service_time=True)

    @property
    def max_answer_age(self) -> float:
        """The age of a recorded POST from which on no process waits for its answer any more."""
        return self.until - self.since - 2 * CLOCK_SKEW + _ANSWER_DELAY

    def is_comparable(self, now: Instant) -> bool:
        """Whether its times prove anything now: its clock is no other one, and no clock was set since."""
        return now.clock_changes == self.clock_changes and not self.may_have_other_clock

    def age(self, now: Instant) -> float | None:
        """Seconds since the POST; None if the time of the POST and the present time are by two clocks.

        A fresh submit that is taken for an old one is searched for too briefly.
        """
        is_known = now.offset is not None if self.is_service_time else self.is_comparable(now)
        sent_at = self.by_service_clock(now.offset).since + CLOCK_SKEW
        return max(0.0, now.time - sent_at) if is_known else None


def is_fresh_intent(intended: Instant, *, now: Instant) -> bool:
    """Whether a POST may begin now whose intent was recorded at an instant: a later run searches around the recorded time."""
    return abs(now.wall - intended.wall) <= MAX_INTENT_AGE


def lost_submit(payload: Mapping[str, Any], *, sent: Instant, given_up: Instant) -> LostSubmit:
    """A POST of this process whose answer was given up.

    Where the clock of this machine was set meanwhile, or the machine slept, the times are found from what was known before
    and from the monotonic clock. The search for the job needs them; a proof of absence needs a clock that was not set.

    Args:
        payload: The payload that was sent.
        sent: Just before the POST.
        given_up: When its answer was given up.
    """
    elapsed = given_up.monotonic - sent.monotonic
    if sent.clock_changes == given_up.clock_changes:
        sent_at, given_up_at = sent.wall + (given_up.offset or 0.0), given_up.time
    elif sent.offset is not None:
        sent_at = sent.time
        given_up_at = sent_at + elapsed
        if given_up.offset is not None:  # it was learned after the clock was set
            given_up_at = max(given_up_at, given_up.time)
    else:
        given_up_at = given_up.time
        sent_at = min(sent.wall + (given_up.offset or 0.0), given_up_at - elapsed)
    return LostSubmit(
        payload=payload,
        since=sent_at - CLOCK_SKEW,
        until=given_up_at + CLOCK_SKEW,
        is_service_time=sent.offset is not None or given_up.offset is not None,
        clock_changes=sent.clock_changes,
    )


def recorded_submit(
    payload: Mapping[str, Any],
    *,
    sent_at: float,
    timeout: float,
    is_service_time: bool,
    clock_changes: int,
) -> LostSubmit:
    """A POST of which an earlier process has recorded the intent and no answer.

    Args:
        payload: The payload that was sent.
        sent_at: Unix seconds; the POST began at most `MAX_INTENT_AGE` later.
        timeout: Seconds after which its sender gave the answer up.
        is_service_time: Whether `sent_at` is by the service's clock; else by that of a machine, which can have been set since
            then, or be another machine's.
        clock_changes: `Instant.clock_changes` at present.
    """
    return LostSubmit(
        payload=payload,
        since=sent_at - CLOCK_SKEW,
        until=sent_at + MAX_INTENT_AGE + timeout + CLOCK_SKEW,
        has_present_key=False,
        is_service_time=is_service_time,
        may_have_other_clock=not is_service_time,
        clock_changes=clock_changes,
    )
