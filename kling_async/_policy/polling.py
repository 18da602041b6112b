"""How often jobs are polled, and how long a wait can last.

This module is apart from the schedule, so that a program that only makes a client does not import the schedule.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import attrs

from kling_async._calls import public_class
from kling_async._field_docs import describe_fields
from kling_async._policy.validators import at_least, check_choice

UseLists: TypeAlias = Literal["auto", "never", "always"]
"""Replace status calls by list calls if that saves calls, never, or always."""


def _check_use_lists(_: object, attribute: attrs.Attribute[UseLists], value: object) -> None:
    check_choice(attribute.name, value, get_args(UseLists))


@public_class
@attrs.frozen(kw_only=True)
class PollingPolicy:
    """How often jobs are polled, and how long a wait for one can last.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    wait_timeout: float | None = attrs.field(default=3600.0, validator=at_least(0, optional=True))
    """Seconds after which the wait for one job ends with `WaitTimeoutError`; None is no limit."""
    stall_timeout: float | None = attrs.field(default=None, validator=at_least(0, optional=True))
    """Seconds without a change of the job's status after which the wait ends the same way; None is no limit."""
    poll_interval: float | None = attrs.field(default=None, validator=at_least(0, optional=True))
    """Seconds between two polls of one job; 0 polls as often as `Limits.max_polls_per_second` allows.

    None adapts the interval to the run times of the jobs that the client has seen.
    """
    max_poll_interval: float = attrs.field(default=30.0, validator=at_least(0, above=True))
    """The longest time between two polls of one job, in seconds, if the interval adapts and `Limits` allow it."""
    use_lists: UseLists = attrs.field(default="auto", validator=_check_use_lists)
    """Whether one list call can replace many status calls: `"auto"` if that saves calls, `"never"`, or `"always"`."""


describe_fields(__name__)
