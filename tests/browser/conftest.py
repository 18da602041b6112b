"""Pages in a real Chromium; `nox -s browser` brings what is needed.

No request leaves this machine: names of other hosts lead nowhere, and a page that asked for one fails its test.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

if find_spec("playwright") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
LOCAL_SCHEMES = {"file", "data", "blob", "about"}
LOCAL_HOSTS = {"127.0.0.1", "localhost"}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser that all tests share."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        pytest.skip(f"there is no Chromium on this machine (looked for {', '.join(CHROMIUMS)})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser) -> Iterator[Callable[..., Page]]:
    """Makes pages of a size and a scheme of colours; afterwards none may have asked another host or met an error."""
    contexts, asked, errors = [], [], []

    def new_page(scheme: str = "light", width: int = 1280, height: int = 900, **options: object) -> Page:
        size = {"width": width, "height": height}
        context = browser.new_context(color_scheme=scheme, viewport=size, **options)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        context.on("weberror", lambda error: errors.append(str(error.error)))
        context.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        return context.new_page()

    yield new_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not is_local(url)] == []
    assert errors == []


@pytest.fixture
def page(new_page) -> Page:
    """A page in light colours."""
    return new_page()


@pytest.fixture
def keep_picture(request) -> Callable[[Page, str], bytes]:
    """Takes a picture of what is in view, and keeps it for people in the folder that `PICTURES` names."""

    def keep_picture(page: Page, name: str) -> bytes:
        picture = page.screenshot()
        if folder := os.environ.get("PICTURES"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, f"{name}.png").write_bytes(picture)
        return picture

    return keep_picture


def until(page: Page, condition: str) -> None:
    """Wait for an expression of JavaScript to be true; Playwright's own way is not open where a policy forbids `eval`."""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"this never came true: {condition}"
        page.wait_for_timeout(20)


def is_local(url: str) -> bool:
    """Whether nothing leaves the machine for it."""
    parts = urlsplit(url)
    return parts.scheme in LOCAL_SCHEMES or parts.hostname in LOCAL_HOSTS
