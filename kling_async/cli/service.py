"""The service that a command talks to: the real one, or an emulator of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
from cyclopts import Group, Parameter

from kling_async import KlingClient, Limits, PollingPolicy
from kling_async.cli.output import one_line, print_text, stderr
from kling_async.errors import ConfigurationError
from kling_async.events import Event, Listener
from kling_async.progress import ProgressCounts

_LOCAL_LIMITS = Limits(max_polls_per_second=100.0)
_LOCAL_POLLING = PollingPolicy(poll_interval=0.1)
"""Polls within one process cost the service nothing."""
_TIME_SCALE = 120.0
"""A video takes some two seconds: enough to see it queue and run."""


@Parameter(name="*", group=Group("Service", sort_key=2))
@attrs.frozen(kw_only=True)
class Service:
    """Where the service is. Its key has no option, for the shell would remember it."""

    base_url: str | None = None
    """Another address of the service, such as that of an emulator [default: GMI_BASE_URL, else the vendor's]."""

    def arguments(self) -> list[str]:
        """The options that lead another command to the same service."""
        return ["--base-url", self.base_url] if self.base_url else []


@asynccontextmanager
async def open_client(service: Service, *, on_event: Listener | None = None) -> AsyncIterator[KlingClient]:
    """A client of the service; without a listener, trouble is printed on stderr.

    Raises:
        ConfigurationError: The environment holds no key, or the address makes no sense.
    """
    try:
        client = KlingClient(base_url=service.base_url, on_event=on_event or TroublePrinter())
    except ConfigurationError as error:
        if error.missing != "api_key":
            raise
        raise ConfigurationError(
            "No API key: set the environment variable GMI_API_KEY; "
            "`kling-async demo` and `kling-async generate --emulate` work without one."
        ) from error
    async with client:
        yield client


@asynccontextmanager
async def open_emulated_client(
    *, on_event: Listener, time_scale: float = _TIME_SCALE, workers: int = 20
) -> AsyncIterator[KlingClient]:
    """A client of an emulator that lives as long as the block.

    Raises:
        ModuleNotFoundError: The extra `emulator` is not installed.
    """
    from kling_async.emulator import Emulator, EmulatorSettings

    async with (
        Emulator(EmulatorSettings(time_scale=time_scale, workers=workers)) as emulator,
        KlingClient(
            "any-key",
            base_url=emulator.url,
            proxy="",  # the emulator is on this machine
            on_event=on_event,
            limits=_LOCAL_LIMITS,
            polling=_LOCAL_POLLING,
        ) as client,
    ):
        yield client


@attrs.define(eq=False)
class TroublePrinter:
    """Prints trouble on stderr, so that a silence is explained; pass it as `on_event`."""

    _counts: ProgressCounts = attrs.field(init=False, factory=ProgressCounts)

    def __call__(self, event: Event) -> None:
        """Print the event if it is trouble."""
        self._counts.note = None
        self._counts(event)
        if self._counts.note is not None:
            print_text(one_line(self._counts.note), stderr())
