"""Code of the caller that runs within our work can raise and cancel anything, and hurts no call."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
from pathlib import Path

import pytest
from errors_of_the_caller import FINAL, HARMLESS, raiser

import kling_async
from kling_async._callbacks import SafeLogger, call_safely


@pytest.mark.parametrize("kind", HARMLESS)
async def test_an_error_of_the_caller_is_returned(kind):
    assert type(call_safely(raiser(kind))) is kind
    assert call_safely(lambda: None) is None


async def test_the_caller_sees_no_task_of_ours_to_cancel():
    seen = []
    mine = asyncio.current_task()
    call_safely(lambda: seen.append(asyncio.current_task()))
    call_safely(lambda: call_safely(lambda: seen.append(asyncio.current_task())))
    error = call_safely(lambda: asyncio.current_task().cancel())
    assert seen == [None, None]
    assert isinstance(error, AttributeError)
    assert asyncio.current_task() is mine
    assert mine.cancelling() == 0


@pytest.mark.parametrize("kind", FINAL)
def test_an_error_that_ends_the_program_is_raised_outside_all_tasks(kind):
    steps = []

    async def main():
        try:
            steps.append(call_safely(raiser(kind)))
            await asyncio.sleep(0)
            steps.append("unreachable")
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise

    with pytest.raises(kind):
        asyncio.run(main())
    assert steps == [None, "cancelled"]


@pytest.mark.parametrize("kind", FINAL)
def test_outside_an_event_loop_it_is_raised_at_once(kind):
    with pytest.raises(kind):
        call_safely(raiser(kind))
    assert type(call_safely(raiser(ValueError))) is ValueError


class Raising(logging.Handler):
    """Raises where a filter or a handler may raise."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def handle(self, record):
        raise self.kind("of a handler")


@pytest.fixture
def attach():
    """Adds a handler to the logger `kling_async`."""
    log, added = logging.getLogger("kling_async"), []

    def add(handler):
        log.addHandler(handler)
        added.append(handler)

    yield add
    for handler in added:
        log.removeHandler(handler)


@pytest.mark.parametrize("kind", HARMLESS)
async def test_a_handler_of_the_log_that_raises_goes_to_stderr_and_hurts_nothing(kind, attach, capsys):
    attach(Raising(kind))
    SafeLogger("kling_async").error("a text")
    assert f"{kind.__name__}: of a handler" in capsys.readouterr().err


def test_what_cannot_be_written_is_left_out(attach, monkeypatch, capsys):
    attach(Raising(ValueError))
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", closed)
        SafeLogger("kling_async").error("a text")
    monkeypatch.setattr(logging, "raiseExceptions", False)
    SafeLogger("kling_async").error("a text")
    assert capsys.readouterr().err == ""


def test_every_logger_of_the_client_is_safe():
    package = Path(kling_async.__file__).parent
    apart = {"_callbacks.py", "terminal.py"}  # the latter redirects handlers, and logs nothing
    named = [
        path.relative_to(package)
        for path in package.rglob("*.py")
        # Those of the driver of databases and of the shard queue get a filter.
        if re.search(
            r"getLogger\((?!\"psycopg|log\) for log in \(\"procrastinate)", path.read_text(encoding="utf-8")
        )
        and path.name not in apart
    ]
    assert {path.parts[0] for path in named} <= {"cli", "emulator"}


async def test_a_record_names_the_function_that_logs(caplog):
    SafeLogger("kling_async").warning("%s of %s", 1, 2)
    (record,) = caplog.records
    assert (record.funcName, record.getMessage()) == (
        "test_a_record_names_the_function_that_logs",
        "1 of 2",
    )
