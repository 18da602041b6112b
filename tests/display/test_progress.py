from __future__ import annotations

import io
import sys

import pytest
from virtual_service import Service, VirtualLoop

from kling_async import ConfigurationError, KlingClient
from kling_async._display import progress as room
from kling_async._display.progress import make_display
from kling_async.errors import APIConnectionError
from kling_async.events import Finished
from kling_async.results import ResultState


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal_of(monkeypatch):
    """Called by the test itself: between a fixture and its test, pytest puts its own stderr back."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


class GoneTerminal(Terminal):
    """A terminal that goes away after so many writes, as with a closed session."""

    def __init__(self, writes, error):
        super().__init__()
        self.left, self.error = writes, error

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return len(text)


@pytest.mark.parametrize("error", [OSError("gone"), KeyError("of the caller"), SystemExit(1)], ids=repr)
@pytest.mark.parametrize("writes", [0, 1, 2])
async def test_a_terminal_that_goes_away_loses_no_result(writes, error, monkeypatch, caplog):
    service = Service()
    terminal_of(monkeypatch)
    monkeypatch.setattr(sys, "stderr", GoneTerminal(writes, error))
    batch = await KlingClient("any-key", transport=service).generate_many(["a", "b"], progress=True)
    assert [result.ok for result in batch] == [True, True]
    assert "the progress cannot be drawn, and the work goes on: " in caplog.text


@pytest.mark.parametrize("progress", [True, "auto"])
def test_a_terminal_shows_the_events_of_its_listener(monkeypatch, progress):
    terminal = terminal_of(monkeypatch)
    listener, drawing = make_display(progress, total=3, saves=True)
    assert listener is not None
    error = APIConnectionError("lost")
    with drawing:
        listener(Finished(at=0.0, index=0, state=ResultState.NOT_SUBMITTED, error=error))
    assert "0 of 3" in terminal.getvalue()
    assert "1 of 3" in terminal.getvalue()


@pytest.mark.parametrize("progress", [True, "auto"])
def test_there_is_no_listener_where_nothing_can_be_drawn(progress):
    assert make_display(progress, total=3, saves=True)[0] is None


def test_nothing_is_drawn_where_it_is_not_wanted():
    listener, drawing = make_display(False, total=None, saves=False)
    assert listener is None
    with drawing:
        pass


def test_without_rich_only_progress_true_is_an_error(monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    assert make_display("auto", total=None, saves=False)[0] is None
    with pytest.raises(ConfigurationError, match=r"\.\[cli\]. in a checkout"):
        make_display(True, total=None, saves=False)


@pytest.mark.parametrize("progress", ["yes", 7, None])
async def test_another_value_of_progress_is_refused_before_anything_is_sent(progress):
    service = Service()
    client = KlingClient("key", transport=service)
    with pytest.raises(ConfigurationError, match="progress must be"):
        await client.generate_many(["x"], progress=progress)
    assert service.calls == {}


@pytest.mark.parametrize("progress", [True, False, "auto"])
async def test_a_stream_that_is_no_terminal_gets_no_display(progress, capsys):
    batch = await KlingClient("key", transport=Service(run_time=5.0)).generate_many(
        ["a", "b"], progress=progress
    )
    assert len(batch.succeeded) == 2
    assert capsys.readouterr().err == ""


async def test_a_terminal_sees_the_counts(monkeypatch):
    terminal = terminal_of(monkeypatch)
    await KlingClient("key", transport=Service(run_time=5.0)).generate_many(["a", "b"])
    assert "of 2" in terminal.getvalue()
