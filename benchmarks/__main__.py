"""`python -m benchmarks NAME…`: measure, print tables, write JSON."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import clients, figures, machine

MEASURES = (
    "imports",
    "pace",
    "lists",
    "faults",
    "overhead",
    "loop",
    "downloads",
    "scale",
    "workers",
    "sixty",
)
"""Every measure, the quickest first."""
RESULTS = machine.HERE / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names; all of it by default."""
    parser = _parser()
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.names) - set(MEASURES):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    options = {
        key: value for key in ("subjects", "seeds", "full", "folder") if (value := getattr(wanted, key))
    }
    results = []
    for name in wanted.names or MEASURES:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n{name}: {(module.__doc__ or '').partition(chr(10))[0]}\n", flush=True)
        try:
            result = module.measure(wanted.quick, **_accepted_by(name, options))
        except clients.UnknownClientError as error:
            parser.error(str(error))
        print(module.table(result), flush=True)
        results.append(result)
        _write(wanted.json or RESULTS / f"{name}.json", results if wanted.json else result)
    print(f"\n{figures.describe(machine.environment())}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="a small run, to see that all works")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all results here, not to benchmarks/results/"
    )
    parser.add_argument(
        "--subjects", type=_names, metavar="A,B", help="faults, overhead, sixty: only these clients"
    )
    parser.add_argument(
        "--seeds", type=_number, metavar="N", help="sixty: so many draws of the run times at once"
    )
    parser.add_argument("--full", action="store_true", help="scale: a million lazy prompts")
    parser.add_argument("--folder", help="downloads: where to put the files")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def _accepted_by(name: str, options: dict[str, Any]) -> dict[str, Any]:
    takes = {
        "faults": {"subjects"},
        "overhead": {"subjects"},
        "sixty": {"subjects", "seeds"},
        "scale": {"full"},
        "downloads": {"folder"},
    }
    return {key: value for key, value in options.items() if key in takes.get(name, set())}


def _write(file: Path, result: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
