"""How, and how long, a caller wants jobs to be waited for.

It is apart from the schedule that obeys it, so that a program that only says so imports nothing else.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import attrs

from kling_async._policy.validators import at_least
from kling_async.errors import ConfigurationError

UseLists: TypeAlias = Literal["auto", "never", "always"]


def _known_word(instance: object, attribute: attrs.Attribute[UseLists], value: object) -> None:
    words = get_args(UseLists)
    if value not in words:
        raise ConfigurationError(
            f"{type(instance).__name__}.{attribute.name} must be one of {', '.join(words)}, not {value!r}."
        )


@attrs.frozen(kw_only=True)
class PollingPolicy:
    """How, and how long, jobs are waited for.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    wait_timeout: float | None = attrs.field(default=3600.0, validator=at_least(0, optional=True))
    """Seconds after which a wait for one job ends with `WaitTimeoutError`; None waits for ever."""
    stall_timeout: float | None = attrs.field(default=None, validator=at_least(0, optional=True))
    """The same if its status has not changed for so many seconds; None for no such limit."""
    poll_interval: float | None = attrs.field(default=None, validator=at_least(0, optional=True))
    """Seconds between two questions about one job; 0 asks as fast as `Limits` allow. None adapts: the pace
    follows what is learned of run times."""
    max_poll_interval: float = attrs.field(default=30.0, validator=at_least(0, above=True))
    """Where the pace adapts: seconds after which a job is asked about at the latest, if `Limits` allow."""
    use_lists: UseLists = attrs.field(default="auto", validator=_known_word)
    """Whether one list call may stand for many status calls: `"auto"` where it pays, `"never"`, or `"always"`."""
