"""A JupyterLab on this machine, and a notebook in it as its reader sees it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import attrs
from playwright.sync_api import Locator, Page, expect

START = 60.0
"""Seconds that the server may take to start."""
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false"},
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/themes": {"adaptive-theme": True},
}


@attrs.frozen(kw_only=True)
class Lab:
    """A server that is running."""

    url: str
    token: str
    folder: Path
    """What it serves."""

    def open(self, page: Page, name: str) -> Notebook:
        """A notebook of the folder, its kernel ready."""
        page.goto(f"{self.url}lab/tree/{name}?reset&token={self.token}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        return Notebook(page)

    def end_kernels(self) -> None:
        """Stop what the notebooks of the folder run in."""
        for kernel in json.loads(self._ask("GET", "api/kernels")):
            self._ask("DELETE", f"api/kernels/{kernel['id']}")

    def _ask(self, method: str, path: str) -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        with urlopen(Request(self.url + path, headers=headers, method=method), timeout=START) as answer:  # noqa: S310
            return answer.read()

    def write(self, name: str, *cells: str) -> str:
        """A notebook with these cells of code."""
        listed = [
            {
                "cell_type": "code",
                "id": f"cell-{at}",
                "source": cell,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for at, cell in enumerate(cells)
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content = {"cells": listed, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / name).write_text(json.dumps(content))
        return name


@attrs.frozen
class Notebook:
    """An open notebook."""

    page: Page

    def cell(self, at: int) -> Locator:
        """A cell of code."""
        return self.page.locator(".jp-CodeCell").nth(at)

    def output(self, at: int) -> Locator:
        """All that a cell has put out."""
        return self.cell(at).locator(".jp-OutputArea-output")

    def start(self, at: int) -> None:
        """Run a cell, and wait for nothing."""
        self.cell(at).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def run(self, *cells: int) -> None:
        """Run cells, each to its end."""
        for at in cells:
            self.start(at)
            self.wait(at)

    @property
    def cells(self) -> int:
        """How many cells of code there are."""
        return self.page.locator(".jp-CodeCell").count()

    def run_all(self) -> None:
        """Run all cells, and wait for none."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()

    def wait(self, at: int) -> None:
        """Wait until a cell has ended."""
        expect(self.cell(at).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=60_000)

    def write(self, at: int, text: str) -> None:
        """Replace what stands in a cell."""
        self.cell(at).locator(".cm-content").fill(text)

    def save(self, folder: Path) -> Path:
        """The notebook's file, with all that is shown."""
        self.page.keyboard.press("Control+s")
        self.page.wait_for_function("!document.querySelector('.lm-TabBar .jp-mod-dirty')")
        return folder / self.page.url.rpartition("/")[2]

    def interrupt(self) -> None:
        """What the button with the square does."""
        self.page.locator(
            '[data-jp-item-name="interrupt"] button, [data-jp-item-name="interrupt"]'
        ).first.click()


@contextmanager
def start_lab(folder: Path) -> Iterator[Lab]:
    """A JupyterLab in the colours of the page, which keeps everything in a folder and fetches no news."""
    home, work = folder / "home", folder / "work"
    work.mkdir(parents=True)
    for name, values in SETTINGS.items():
        room, _, plugin = name.partition("/")
        file = (
            home / "config" / "lab" / "user-settings" / "@jupyterlab" / room / f"{plugin}.jupyterlab-settings"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    rooms = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"),
        f"--ServerApp.root_dir={work}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(  # noqa: S603
            command,
            env=os.environ | {name: str(room) for name, room in rooms.items()},
            stdout=log,
            stderr=log,
        ) as server,
    ):
        try:
            said = _said(rooms["JUPYTER_RUNTIME_DIR"], server, log=folder / "log")
            yield Lab(url=said["url"], token=said["token"], folder=work)
        finally:
            server.terminate()


def _said(runtime: Path, server: subprocess.Popen[bytes], *, log: Path) -> dict[str, str]:
    """What the server says of itself once it listens."""
    deadline = time.monotonic() + START
    while server.poll() is None and time.monotonic() < deadline:
        for file in runtime.glob(f"jpserver-{server.pid}.json"):
            try:
                return json.loads(file.read_text())
            except json.JSONDecodeError:  # it is being written
                pass
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")
