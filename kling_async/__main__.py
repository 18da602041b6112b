"""`python -m kling_async`, and what the command `kling-async` runs."""

from __future__ import annotations

import io
import sys

_INTERRUPTED = 130
_UNUSABLE = 2


def main() -> int:
    """The exit status of the command line that this process was started with."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A prompt may hold what the terminal's encoding does not: show an escape instead of failing.
            stream.reconfigure(errors="backslashreplace")
    try:
        from kling_async.cli.app import run
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in {"cyclopts", "rich"}:
            raise
        sys.stderr.write(
            f'kling-async: the command line needs {package}: python -m pip install ".[cli]" in a checkout\n'
        )
        return _UNUSABLE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
