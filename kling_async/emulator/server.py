"""`Emulator`: starts and stops the service."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from kling_async.emulator.call_counter import CallCounter, Stats
from kling_async.emulator.faults import Faults
from kling_async.emulator.service_queue import ServiceQueue
from kling_async.emulator.settings import EmulatorSettings
from kling_async.emulator.tls import make_certificate

if TYPE_CHECKING:
    from aiohttp import web

_SHUTDOWN_TIMEOUT = 0.1
"""Real seconds that open calls have to end when the emulator stops."""
_BACKLOG = 4096


class Emulator:
    """A service on this machine with the API of the real one, without a key and without cost.

    Use it with `async with`, or with `start()` and `aclose()` in a notebook. `faults` accepts more faults while the
    emulator runs, and `stats` counts calls and jobs; both may be used from another thread.

    Args:
        settings: the settings; None means the defaults.
        clock: returns the time in Unix seconds and never goes back. None means the clock of the machine.
    """

    def __init__(
        self, settings: EmulatorSettings | None = None, *, clock: Callable[[], float] | None = None
    ) -> None:
        self.settings: EmulatorSettings = settings or EmulatorSettings()
        self.faults: Faults = Faults(self.settings.faults, seed=self.settings.seed)
        self._clock = clock or _make_steady_clock()
        self._queue = ServiceQueue(self.settings)
        self._calls = CallCounter()
        self._port = self.settings.port
        self._tls: tuple[ssl.SSLContext, str] | None = None
        self._app: Callable[[], web.Application] | None = None
        self._runner: web.AppRunner | None = None
        self._outage: asyncio.Task[None] | None = None
        self._outage_over: anyio.Event

    def __repr__(self) -> str:
        state = f"at {self.url}" if self._runner else "not running"
        return f"<Emulator {state}, {len(self._queue.jobs)} jobs, {self._queue.count_in_flight(now=self._clock())} in flight>"

    @property
    def url(self) -> str:
        """The base URL for a client, such as `http://127.0.0.1:8000`, or `https://127.0.0.1:8000` with `tls`.

        Raises:
            RuntimeError: the emulator was never started, so its port is unknown.
        """
        if not self._port:
            raise RuntimeError(
                "The emulator has no URL before it starts: open it with `async with Emulator() as emulator`."
            )
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104
        scheme = "https" if self.settings.tls else "http"
        return f"{scheme}://[{host}]:{self._port}" if ":" in host else f"{scheme}://{host}:{self._port}"

    @property
    def certificate(self) -> str:
        """The root certificate of an emulator with `tls`, as PEM: the text of a file for `SSL_CERT_FILE`.

        Raises:
            RuntimeError: the emulator was never started, or its settings have no `tls`.
        """
        if self._tls is None:
            raise RuntimeError(
                "The emulator has no certificate: start it with `EmulatorSettings(tls=True)` before you read this."
            )
        return self._tls[1]

    @property
    def stats(self) -> Stats:
        """The counts of calls and jobs until now, as a copy that does not change later."""
        return Stats(
            requests=self._calls.requests.copy(),
            max_concurrent_calls=self._calls.max_concurrent_calls.copy(),
            accepted=tuple(self._queue.jobs),
            jobs_in_flight=self._queue.count_in_flight(now=self._clock()),
            max_jobs_in_flight=self._queue.max_jobs_in_flight,
            credentials_at_storage=self._calls.credentials_at_storage,
        )

    async def start(self) -> None:
        """Listen for calls. After `aclose()`, the emulator listens at the same address again and has the same jobs.

        Raises:
            ModuleNotFoundError: the extra `emulator` is not installed, whole or in part.
            OSError: the port is in use.
            RuntimeError: the emulator is already running.
        """
        if self._runner is not None:
            raise RuntimeError(
                f"The emulator is already running at {self.url}: call `aclose()` before `start()`."
            )
        from aiohttp import web

        with _name_missing_extra():
            if self.settings.tls and self._tls is None:
                self._tls = make_certificate(self._certified_names())
            application = self._application()
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            context = self._tls[0] if self._tls else None
            await web.TCPSite(
                runner, self.settings.host, self._port, backlog=_BACKLOG, ssl_context=context
            ).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner

    async def aclose(self) -> None:
        """Stop listening and close every connection. A second call does nothing."""
        if self._outage is not None:
            self._outage_over.set()
            await self._outage
        await self._stop()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Refuse connections until the block ends; jobs continue. Only in the event loop that started the emulator."""
        await self._stop()
        try:
            yield
        finally:
            await self.start()

    def _start_outage(self, duration: float) -> None:
        """Start an outage of this many real seconds, unless one is already running."""

        async def wait_and_restart() -> None:
            async with self.outage():
                with anyio.move_on_after(duration):
                    await self._outage_over.wait()

        if self._outage is None or self._outage.done():
            self._outage_over = anyio.Event()
            self._outage = asyncio.create_task(wait_and_restart())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _application(self) -> web.Application:
        """A new application of the service. The first call makes the service and imports its libraries."""
        if self._app is None:
            from kling_async.emulator.app import Service

            self._app = Service(
                self.settings,
                queue=self._queue,
                faults=self.faults,
                calls=self._calls,
                clock=self._clock,
                start_outage=self._start_outage,
            ).application
        return self._app()

    def _certified_names(self) -> list[str]:
        return sorted({"localhost", "127.0.0.1", "::1"} | self.settings.host_names)


@contextmanager
def _name_missing_extra() -> Iterator[None]:
    """Let the error of a missing library name the extra that has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The emulator needs {error.name}: python -m pip install '.[emulator]' in a checkout",
            name=error.name,
        ) from error


async def serve(
    settings: EmulatorSettings | None = None, *, on_start: Callable[[Emulator], None] | None = None
) -> None:
    """Run an emulator until it is cancelled. `on_start` is called with the emulator once it listens."""
    async with Emulator(settings) as emulator:
        if on_start is not None:
            on_start(emulator)
        await anyio.sleep_forever()


def _make_steady_clock() -> Callable[[], float]:
    """A clock of Unix time that never jumps, even if the clock of the machine is set.

    A test that freezes the time leaves the clock of event loops alone, because nothing could sleep without that clock.
    So jobs progress in such a test too.
    """
    loop = asyncio.SelectorEventLoop()
    loop.close()  # a closed loop still tells the time
    offset = time.time() - loop.time()
    return lambda: offset + loop.time()
