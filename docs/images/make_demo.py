"""Draw `demo.svg`: the last screen of `kling-async demo`, as a terminal shows it.

Run it from anywhere with the extras `cli` and `emulator` installed: `python docs/images/make_demo.py`.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from kling_async.cli.demo import run_demo

PICTURE = Path(__file__).with_name("demo.svg")
WEB_FONTS = re.compile(r"\s*@font-face \{\{.*?\}\}\n", re.DOTALL)


def draw() -> None:
    """Make the videos in a folder that is thrown away, and keep what was printed."""
    console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "dim"), "kling-async demo\n"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        asyncio.run(run_demo("kling-demo", console))
        console.print()
        os.chdir(PICTURE.parent)
    picture = console.export_svg(
        title="kling-async demo",
        theme=SVG_EXPORT_THEME,
        # A page that shows it may load nothing: the reader's own fixed-width font will do.
        code_format=WEB_FONTS.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code, monospace", "monospace"),
        unique_id="demo",
    )
    PICTURE.write_text(f"{picture.rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    draw()
