"""The sessions of a client: one for each event loop, opened at the first call there and closed with the loop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import attrs

from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy
from kling_async.batch_result import BatchResult
from kling_async.config import Settings, __version__
from kling_async.errors import ConfigurationError

if TYPE_CHECKING:
    from kling_async._engine.session import LoopSession
    from kling_async._engine.shared_state import SharedState
    from kling_async.types import Transport


class _Opened(NamedTuple):
    """The session of one event loop, and the generator that closes its connections."""

    session: LoopSession
    lifetime: AsyncGenerator[None, None]


@attrs.define(eq=False, repr=False)
class LoopSessions:
    """The sessions of one client, and what else its views share."""

    settings: Settings
    limits: Limits = attrs.field(kw_only=True)
    polling: PollingPolicy = attrs.field(kw_only=True)
    retry: RetryPolicy = attrs.field(kw_only=True)
    transport: Transport | None = attrs.field(kw_only=True)
    """The caller's own, which no session closes; None for the default one."""
    last_batch: BatchResult | None = attrs.field(init=False, default=None)
    """See `KlingClient.last_batch`."""
    opened: dict[asyncio.AbstractEventLoop, _Opened] = attrs.field(init=False, factory=dict)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    _shared: SharedState | None = attrs.field(init=False, default=None)
    """What the sessions of all event loops share."""

    def open(self) -> LoopSession:
        """The session of the running event loop, made when it is first needed there."""
        loop = running_loop()
        opened = self.opened.get(loop)
        if opened is None:
            for closed in [other for other in list(self.opened) if other.is_closed()]:
                self.opened.pop(closed, None)  # the loop of another thread may have come here too
            transport = _open_transport(self.settings, self.transport)
            opened = _Opened(session=self._make_session(transport), lifetime=self._lifetime(loop, transport))
            self.opened[loop] = opened
            _start(opened.lifetime)
        return opened.session

    async def close(self) -> None:
        """Close the session of the running event loop, if there is one."""
        opened = self.opened.pop(running_loop(), None)
        if opened is not None:
            await opened.lifetime.aclose()

    async def _lifetime(
        self, loop: asyncio.AbstractEventLoop, transport: Transport
    ) -> AsyncGenerator[None, None]:
        """Closes the transport when this generator is closed: by `close`, or by the event loop at its end."""
        try:
            yield
        finally:
            self.opened.pop(loop, None)
            if self.transport is None:
                await transport.aclose()

    def _make_session(self, transport: Transport) -> LoopSession:
        from kling_async._engine.api import ApiCaller
        from kling_async._engine.clock import Clock
        from kling_async._engine.descriptors import fit_to_process
        from kling_async._engine.session import LoopSession
        from kling_async._engine.shared_state import SharedState
        from kling_async._wire.endpoints import headers_for

        settings = self.settings
        api = ApiCaller(
            transport=transport,
            clock=Clock(),
            rng=random.Random(),  # noqa: S311 - spreads retries, keeps no secret
            queue=settings.queue,
            headers=headers_for(
                api_key=settings.api_key,
                organization_id=settings.organization_id,
                user_agent=f"kling_async/{__version__}",
            ),
            secret=settings.api_key,
            timeout=settings.timeout,
            retry=self.retry,
            allow_private=settings.allow_private,
        )
        with self._lock:  # the loops of other threads have the same limits
            if self._shared is None:
                self._shared = SharedState(fit_to_process(self.limits), self.polling)
        return LoopSession.open(api, self._shared)


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that the call runs in.

    Raises:
        ConfigurationError: It runs in none, or in one that is not asyncio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "KlingClient works in an event loop of asyncio, and none runs here: start the program with "
            "asyncio.run(...). Under trio the client does not work."
        ) from None


def _start(lifetime: AsyncGenerator[None, None]) -> None:
    """Run the generator to its `yield`, which awaits nothing, so that its `finally` is sure to run."""
    with suppress(StopIteration):
        lifetime.asend(None).send(None)


def _open_transport(settings: Settings, given: Transport | None) -> Transport:
    """The caller's transport, or the default one: aiohttp takes longer to import than all other modules together."""
    if given is not None:
        from kling_async._transport.caller_transport import CallerTransport

        return CallerTransport(given)
    from kling_async._transport.open_transport import open_transport

    return open_transport(settings.network, settings.transport_path)
