"""Events with the time at which they happen, for the listeners of one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec

import attrs

from kling_async._engine.clock import Clock
from kling_async.events import Event, Notifier

P = ParamSpec("P")


@attrs.frozen
class Emitter:
    """Makes events and tells them: `emit(Retrying, call="status", ...)`."""

    clock: Clock
    notify: Notifier

    def __bool__(self) -> bool:
        """Whether there is a listener."""
        return bool(self.notify)

    def __call__(
        self, event: Callable[Concatenate[float, P], Event], *args: P.args, **fields: P.kwargs
    ) -> None:
        """Tell every listener of an event that happens now; does nothing where there is no listener."""
        if self.notify.listeners:
            self.notify(event(self.clock.wall(), *args, **fields))
