"""The commands put together, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from kling_async.cli.demo import demo
from kling_async.cli.download import download
from kling_async.cli.emulator import emulator
from kling_async.cli.generate import generate
from kling_async.cli.jobs import list_jobs, models, status
from kling_async.cli.screen import complain
from kling_async.config import __version__
from kling_async.errors import ConfigurationError, InvalidRequestError, KlingError

FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130

_COMMANDS: Mapping[str, Callable[..., Coroutine[Any, Any, int]]] = {
    "demo": demo,
    "generate": generate,
    "download": download,
    "status": status,
    "list": list_jobs,
    "models": models,
    "emulator": emulator,
}
_HELP = """
Make Kling videos through GMI Cloud's request queue, one or thousands at a time. Try it without a key: kling-async demo
"""
_EPILOGUE = """
The API key comes from the environment alone (GMI_API_KEY): as an option it would stay in the shell's history.

Exit status: 0 everything asked for was done, 1 some of it was not, 2 nothing was begun (wrong usage, input or settings), 130 interrupted.
"""


def _app() -> App:
    def shown(default: object) -> str | None:
        return None if default is False else str(default)

    app = App(
        "kling-async",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=__version__,
        default_parameter=Parameter(negative=(), show_default=shown),
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for place, (name, command) in enumerate(_COMMANDS.items()):
        app.command(command, name=name, sort_key=place)
    return app


def run(tokens: Sequence[str]) -> int:
    """The exit status of one command line, whose errors become one sentence each.

    Args:
        tokens: What follows the command's name.
    """
    try:
        return _app()(list(tokens)) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except CycloptsError as error:
        complain(f"{error} `kling-async --help` lists everything.")
    except (ConfigurationError, InvalidRequestError, ModuleNotFoundError) as error:
        complain(str(error))
    except (KlingError, OSError) as error:
        if not isinstance(error, BrokenPipeError):
            complain(str(error))
        _let_go_of_stdout()
        return FAILED
    return UNUSABLE


def _let_go_of_stdout() -> None:
    """Where nobody can take the output any more, keep Python from complaining of that again at its own end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
