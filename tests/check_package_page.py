"""Checks the page that a package index makes of the README: it renders, and every link on it leads somewhere.

`nox -s lint` runs it as a program.
"""

from __future__ import annotations

import re
import subprocess
import sys

from readme_renderer import markdown

LINK = re.compile(r'(?:href|src)="(?!https:|#)([^"]*)"')


def main() -> int:
    """The exit status: 1 if the page has a fault, which is printed."""
    command = [sys.executable, "-m", "hatchling", "metadata", "readme"]
    readme = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own build
    page = markdown.render(readme, variant="GFM")
    faults = (
        ["The README does not render."]
        if page is None
        else [
            f"The link {target!r} leads nowhere on the page of the package." for target in LINK.findall(page)
        ]
    )
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
