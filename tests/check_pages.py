"""Checks the types of the Python blocks of the pages: each page is one function that has `client`.

`nox -s types` runs it as a program.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
HEAD = ["from kling_async import KlingClient", "async def page(client: KlingClient) -> None:"]
PLACE = re.compile(r"^(\w+)\.py:", re.MULTILINE)
OPTIONS = [
    "--config-file=",
    "--check-untyped-defs",
    "--ignore-missing-imports",
    "--disable-error-code=no-redef",
    "--no-error-summary",
]
MEANT = ['docs/how-to/bad-input.md: error: Unexpected keyword argument "durations"']
"""The beginnings of the errors that a page makes to show them, without their lines."""


def program_of(page: str) -> str:
    """The blocks of a page as a function, each line at its place; empty if there is none."""
    lines, is_code, has_code = [], False, False
    for line in page.splitlines():
        is_end = is_code and line == "```"
        is_code = not is_end and (is_code or line == "```python")
        is_fence = line == "```python"
        has_code |= is_fence
        lines.append(f"    {line}" if is_code and not is_fence else "")
    return "\n".join([*HEAD, *lines[len(HEAD) :], ""]) if has_code else ""


def main() -> int:
    """The exit status: 1 if a block has an error of its types, which is printed, or lacks one that is meant."""
    names: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
            if "_build" not in page.parts and (program := program_of(page.read_text())):
                name = f"page_{len(names)}"
                names[name] = page.relative_to(ROOT).as_posix()
                (Path(folder) / f"{name}.py").write_text(program)
        command = [sys.executable, "-m", "mypy", *OPTIONS, "."]
        checked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own pages
    text = PLACE.sub(lambda match: f"{names[match[1]]}:", checked.stdout) + checked.stderr
    errors = [line for line in text.splitlines() if ": note: " not in line]
    found = [re.sub(r":\d+: ", ": ", line) for line in errors]
    unexpected = [
        line for line, plain in zip(errors, found, strict=True) if not any(map(plain.startswith, MEANT))
    ]
    missing = [meant for meant in MEANT if not any(line.startswith(meant) for line in found)]
    sys.stdout.writelines(f"{line}\n" for line in unexpected)
    sys.stdout.writelines(f"There is no longer: {meant}\n" for meant in missing)
    return 1 if unexpected or missing else 0


if __name__ == "__main__":
    sys.exit(main())
