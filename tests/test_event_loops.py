"""A client in the loops that people have: one that ends without `aclose`, a terminal, another library."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio

from kling_async import ConfigurationError, KlingClient

LOOP_THAT_IS_CLOSED = """
    for _ in range(2):
        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(client.list_models())[:1])
        loop.close()
        gc.collect()
"""
LOOP_THAT_ONLY_STOPS = """
    loop = asyncio.new_event_loop()
    for _ in range(2):
        print(loop.run_until_complete(client.list_models())[:1])
"""
TERMINAL = """
    for _ in range(2):
        print((await client.list_models())[:1])
"""
PROGRAMS = {
    "a loop that is closed": ([], LOOP_THAT_IS_CLOSED),
    "a loop that only stops": ([], LOOP_THAT_ONLY_STOPS),
    "a terminal of IPython": (["-m", "IPython", "--no-banner"], TERMINAL),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("path", ["public", "fast"])
@pytest.mark.parametrize("tokens, program", PROGRAMS.values(), ids=list(PROGRAMS))
def test_a_program_that_ends_without_aclose_leaves_no_complaint(
    kling_emulator, tmp_path, tokens, program, path
):
    start = "import asyncio, gc\nfrom kling_async import KlingClient\nclient = KlingClient()\n"
    done = subprocess.run(  # noqa: S603 - a program of our own
        [sys.executable, *tokens, "-c", start + textwrap.dedent(program)],
        env={
            **{
                name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"
            },  # of which IPython warns
            "GMI_API_KEY": "any-key",
            "GMI_BASE_URL": kling_emulator.url,
            "NO_PROXY": "*",
            "KLING_ASYNC_TRANSPORT": path,
            "IPYTHONDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.count("['kling-") == 2


def calls_of(client, folder):
    """Each call of a client that needs an event loop, by its name."""

    async def consume(context):
        async with context as results:
            async for _ in results or ():
                raise NotImplementedError

    async def read(jobs):
        async for _ in jobs:
            raise NotImplementedError

    return {
        "async with": lambda: consume(client),
        "aclose": client.aclose,
        "submit": lambda: client.submit("A comet"),
        "get_job": lambda: client.get_job("r1"),
        "list_jobs": lambda: read(client.list_jobs()),
        "wait": lambda: client.wait("r1"),
        "generate": lambda: client.generate("A comet"),
        "generate_many": lambda: client.generate_many(["A comet"], journal=folder / "run.db", output=folder),
        "stream_many": lambda: consume(client.stream_many(["A comet"])),
        "download": lambda: client.download("r1", folder),
        "check_output": lambda: client.check_output(folder / "v"),
        "upload": lambda: client.upload(folder / "a.png"),
        "list_models": client.list_models,
        "get_model": lambda: client.get_model("kling-v2-6"),
        "a view": lambda: client.with_options(timeout=3).list_models(),
    }


@pytest.mark.parametrize("name", calls_of(KlingClient("any-key"), Path()))
def test_under_trio_each_call_is_one_clear_error(name, tmp_path):
    client = KlingClient("any-key", base_url="http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match=r"event loop of asyncio, .* asyncio\.run.* trio"):
        trio.run(calls_of(client, tmp_path)[name])
    assert list(tmp_path.iterdir()) == []


class LoopThatIsClosed(asyncio.SelectorEventLoop):
    """A closed loop that, like another thread, brings a further one in while the closed ones are looked for."""

    def __init__(self, sessions):
        super().__init__()
        self.sessions = sessions

    def is_closed(self):
        if self.sessions is not None:
            sessions, self.sessions = self.sessions, None
            sessions.opened[asyncio.new_event_loop()] = None
            sessions.opened.pop(self)
        return super().is_closed()


def test_loops_of_other_threads_come_and_go_while_a_session_is_opened():
    client = KlingClient("any-key")
    sessions = client._sessions
    closed = LoopThatIsClosed(None)
    closed.close()
    closed.sessions = sessions
    sessions.opened[closed] = None

    async def open_session():
        return sessions.open()

    assert asyncio.run(open_session()) is not None
    [other] = sessions.opened
    other.close()
