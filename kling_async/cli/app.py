"""The command line: its commands, and the exit status and message of each error."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Literal

from cyclopts import App, CycloptsError, Parameter

from kling_async.cli.demo import demo
from kling_async.cli.download import download
from kling_async.cli.emulator import emulator
from kling_async.cli.exit_status import FAILED, UNUSABLE
from kling_async.cli.generate import generate, spell_out_sound
from kling_async.cli.jobs import list_jobs, models
from kling_async.cli.output import name_command, print_error, print_line, stdout
from kling_async.cli.resume import resume
from kling_async.cli.status import status
from kling_async.cli.summary import CONNECTION_STEP, has_no_way
from kling_async.cli.worker import worker
from kling_async.config import __version__
from kling_async.errors import ConfigurationError, InvalidRequestError, KlingError
from kling_async.paths import is_database_url

INTERRUPTED = 130
TERMINATED = 143
_ONE_STOP = 0.5
"""Seconds after a SIGTERM in which further ones are the same one."""

_COMMANDS: Mapping[str, Callable[..., Coroutine[Any, Any, int]]] = {
    "demo": demo,
    "generate": generate,
    "resume": resume,
    "status": status,
    "download": download,
    "list": list_jobs,
    "models": models,
    "emulator": emulator,
    "worker": worker,
}
_HELP = """
Make Kling videos through GMI Cloud's request queue, one or thousands at a time. Try it without a key: kling-async demo
"""
_NEED_NO_KEY = ("demo", "emulator", "completion")
_KEY = """
The API key comes from the environment alone (GMI_API_KEY): as an option it would stay in the shell's history.
"""
_STATUSES = """
Exit status: 0 all done, 1 some of it not done, 2 nothing started (wrong usage, input or settings), 130 interrupted, 143 terminated.
"""
_OTHER_STATUSES = {
    "worker": """
Exit status: 0 stopped by Ctrl-C or SIGTERM, or nothing left to do with --until-idle; 1 ended by itself, because the service refuses its
key or, with --until-idle, it cannot obey the options of the batches that are left; 2 nothing started; 130 a second Ctrl-C, 143 a second
SIGTERM.
"""
}
"""Of commands whose exit status means something else."""


@cache
def _app() -> App:
    def format_default(default: object) -> str | None:
        return None if default is None or default is False or default == () else str(default)

    app = App(
        "kling-async",
        help=_HELP,
        help_epilogue=_KEY + _STATUSES,
        help_format="markdown",
        version=__version__,
        default_parameter=Parameter(negative=(), show_default=format_default),
        print_error=False,
        exit_on_error=False,
    )
    for position, (name, command) in enumerate({**_COMMANDS, "completion": completion}.items()):
        statuses = _OTHER_STATUSES.get(name, _STATUSES)
        epilogue = statuses if name in _NEED_NO_KEY else _KEY + statuses
        app.command(command, name=name, sort_key=position, help_epilogue=epilogue)
    return app


async def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the script that lets a shell complete commands and options.

    For bash, put this into ~/.bashrc: source <(kling-async completion bash)

    Args:
        shell: Which shell.
    """
    print_line(_app().generate_completion(prog_name="kling-async", shell=shell).rstrip())
    return 0


def run(tokens: Sequence[str]) -> int:
    """The exit status of one command line; an error is printed as one sentence.

    Args:
        tokens: The arguments after `kling-async`.
    """
    is_command = bool(tokens) and tokens[0] in {*_COMMANDS, "completion"}
    with name_command(tokens[0] if is_command else None) as program:
        try:
            command, bound, _ = _app().parse_args(spell_out_sound(tokens), console=stdout())
            work = command(*bound.args, **bound.kwargs)
            return asyncio.run(run_until_terminated(work)) if inspect.iscoroutine(work) else 0
        except KeyboardInterrupt:
            return INTERRUPTED
        except asyncio.CancelledError:
            return TERMINATED
        except CycloptsError as error:
            hint = _hint(tokens)
            print_error(
                f"{error} {hint}`{program} --help` lists all {'options' if is_command else 'commands'}."
            )
        except (ConfigurationError, InvalidRequestError) as error:
            print_error(error.message)
        except ModuleNotFoundError as error:
            print_error(str(error))
        except (KlingError, OSError) as error:
            if not isinstance(error, BrokenPipeError):
                print_error(describe_failure(error))
            _discard_stdout()
            return FAILED
        return UNUSABLE


def describe_failure(error: KlingError | OSError) -> str:
    """Why a command failed, and what to check if the service cannot be reached; other errors say that themselves."""
    if not isinstance(error, KlingError):
        return str(error)
    return f"{error.message} {CONNECTION_STEP}" if has_no_way(error) else error.message


def _hint(tokens: Sequence[str]) -> str:
    """How a journal is given to a command that takes it in another way; empty if that is not the mistake."""
    match tokens:
        case ["worker", *rest] if "--journal" not in rest and any(map(is_database_url, rest)):
            return "Write `kling-async worker --journal URL`. "
        case ["resume" | "status" as command, *rest] if "--journal" in rest:
            return f"Write `kling-async {command} JOURNAL`, without --journal. "
    return ""


async def run_until_terminated(work: Coroutine[Any, Any, int]) -> int:
    """The exit status of a command, which SIGTERM cancels as Ctrl-C does; a second SIGTERM ends the process.

    GNU `timeout`, as in a crontab, sends one SIGTERM twice: to the command, and to its process group.
    Source: https://git.savannah.gnu.org/cgit/coreutils.git/tree/src/timeout.c (`cleanup`).
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        loop.call_later(_ONE_STOP, loop.remove_signal_handler, signal.SIGTERM)
        task.cancel()

    with suppress(NotImplementedError):  # Windows sends none
        loop.add_signal_handler(signal.SIGTERM, stop)
    return await work


def _discard_stdout() -> None:
    """Send further output nowhere if stdout is closed, so that Python does not report that again at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
