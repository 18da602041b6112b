from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from kling_async.cli.app import run
from kling_async.emulator import Edit, Emulator, EmulatorSettings

FAILING = Edit({"status": "failed", "outcome": {"error": "policy"}})
"""Makes the answer to a submit final, so that no poll is needed."""


@attrs.frozen
class CommandResult:
    """What a command line left behind."""

    status: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one sentence on stderr."""
        (line,) = self.err.splitlines()
        assert re.match("kling-async( [a-z]+)?: ", line)
        return line

    @property
    def records(self) -> list[dict[str, object]]:
        """The JSON objects on stdout, of which nothing else may be there."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def home(tmp_path, monkeypatch, interruptible, tiny_films) -> Path:
    """An empty working folder, in an environment that says nothing of any service."""
    for name in [name for name in os.environ if name.startswith("GMI_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(home, capfd) -> Callable[..., CommandResult]:
    """Runs a command line in this process."""

    def cli(*tokens: str) -> CommandResult:
        status = run(tokens)
        told = capfd.readouterr()
        return CommandResult(status, told.out, told.err)

    return cli


@pytest.fixture
def interrupt(cli) -> Callable[..., CommandResult]:
    """Runs a command line in this process, and presses Ctrl-C when a condition holds."""

    def interrupt(condition: Callable[[], object], *tokens: str) -> CommandResult:
        ended = Event()

        def press() -> None:
            wait_until(lambda: condition() or ended.is_set())
            if not ended.is_set():  # else Ctrl-C would end pytest
                os.kill(os.getpid(), signal.SIGINT)

        with ThreadPoolExecutor(1) as thread:
            pressed = thread.submit(press)
            done = cli(*tokens)
            ended.set()
        pressed.result()
        return done

    return interrupt


@pytest.fixture
def serve(home, monkeypatch) -> Iterator[Callable[..., Emulator]]:
    """Starts the emulator that the environment then names as the service; its jobs are done at once unless told."""
    with ExitStack() as stack, start_blocking_portal("asyncio") as portal:

        def serve(**settings: object) -> Emulator:
            emulator = Emulator(EmulatorSettings(**{"time_scale": 1000.0, "instant_rate": 1.0, **settings}))
            stack.enter_context(portal.wrap_async_context_manager(emulator))
            monkeypatch.setenv("GMI_BASE_URL", emulator.url)
            monkeypatch.setenv("GMI_API_KEY", "any-key")
            return emulator

        with stack:
            yield serve


@pytest.fixture
def start_process(home) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command line in a process of its own."""
    processes = []

    def start_process(*tokens: str, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "kling_async", *tokens], text=True, **pipes
        )
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
