"""Every Python block of the pages runs as it stands, from the top of its page to the end."""

from __future__ import annotations

import ast
import asyncio
import codeop
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from sybil import Document, Example, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.myst import CodeBlockParser

from kling_async import KlingClient

pytestmark = pytest.mark.unmeasured

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
PROGRAMS = [page for page in PAGES if "```python" in page.read_text()]
WORKERS = ROOT / "docs" / "how-to" / "workers.md"
NOTEBOOKS = sorted((ROOT / "docs" / "examples").glob("*.ipynb"))
FENCE = re.compile(r"^```(.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@attrs.frozen
class Notebook:
    """Runs blocks as a notebook runs cells: `await` stands alone, and all cells share one event loop."""

    loop: asyncio.Runner

    def __call__(self, example: Example) -> None:
        source = pad(example.parsed, example.line + example.parsed.line_offset)
        self.run(source, example.path, example.namespace)

    def run(self, source: str, path: str, namespace: dict[str, object]) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        cell = compile(source, path, "exec", flags=flags, dont_inherit=True)
        running = eval(cell, namespace)  # noqa: S307 - our own pages
        if inspect.iscoroutine(running):
            self.loop.run(running)


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of code, each source as one text."""
    cells = json.loads(path.read_text())["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


def blocks_of(page: Path, notebook: Notebook) -> Document:
    blocks = CodeBlockParser(language="python", evaluator=notebook)
    return Sybil(parsers=[blocks], path=str(page.parent)).parse(page)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    with asyncio.Runner() as loop:
        yield Notebook(loop)


def run_blocks(page: Path, notebook: Notebook) -> None:
    document = blocks_of(page, notebook)
    client = KlingClient()
    document.namespace |= {"client": client, "__name__": "__main__"}

    for example in document.examples():
        example.evaluate()

    notebook.loop.run(client.aclose())


@pytest.mark.parametrize("page", [page for page in PROGRAMS if page != WORKERS], ids=name_of)
def test_every_python_block_runs(page, notebook, reader, request, monkeypatch):
    if "VIDEOS_JOURNAL" in page.read_text():
        monkeypatch.setenv("VIDEOS_JOURNAL", request.getfixturevalue("database"))
    run_blocks(page, notebook)


def test_every_python_block_about_workers_runs(notebook, machines):
    run_blocks(WORKERS, notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_every_cell_of_a_notebook_runs(path, notebook, reader):
    namespace = {"__name__": "__main__"}
    for cell in cells_of(path):
        notebook.run(cell["source"], str(path), namespace)

    assert len(list((reader / "videos").glob("*.mp4"))) == 5
    assert (reader / "videos" / "report.html").stat().st_size > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_kept_without_what_it_put_out(path):
    assert [cell for cell in cells_of(path) if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_python_hides_behind_another_label(page):
    labels = {label.split()[0] for label in FENCE.findall(page.read_text()) if label}

    assert labels <= {"python", "console", "text", "json", "{eval-rst}", "{toctree}"}


def test_the_quick_start_can_be_pasted_at_a_prompt(notebook):
    """A prompt takes line by line, and ends a block of a loop only at an empty line."""
    page = ROOT / "docs" / "tutorial" / "quick-start.md"
    commands = codeop.CommandCompiler()
    commands.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for block in blocks_of(page, notebook).examples():
        if "async with" in block.parsed:  # a program
            continue
        waiting: list[str] = []
        for line in [*block.parsed.splitlines(), ""]:
            waiting.append(line)
            if commands("\n".join(waiting)) is not None:
                waiting = []
        assert waiting == []


def test_no_page_that_the_readme_links_shows_directives_where_the_repository_is_read():
    readme = ROOT / "README.md"
    linked = {readme.parent / target for target in LINK.findall(readme.read_text()) if target.endswith(".md")}
    shown = {
        page: re.findall(r"^(?:```\{.*|% .*|:::.*)$", page.read_text(), re.MULTILINE)
        for page in linked | {readme}
    }
    assert {page: lines for page, lines in shown.items() if lines} == {}
    assert len(shown) > 10


@pytest.mark.parametrize(
    "page, example", [("testing", "test_with_the_emulator"), ("web-service", "web_handler")]
)
def test_an_example_on_a_page_is_the_file(page, example, notebook):
    blocks = blocks_of(ROOT / "docs" / "how-to" / f"{page}.md", notebook).examples()
    file = (ROOT / "docs" / "examples" / f"{example}.py").read_text()
    assert [block for block in blocks if len(block.parsed) > 1000 and file.startswith(block.parsed)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_file_leads_to_one(page):
    targets = LINK.findall(page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []
