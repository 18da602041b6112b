from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from independent_store import IndependentStore, run_store

SECRET = "secret-of-the-store"


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """An empty folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def store(monkeypatch, temporary) -> Iterator[IndependentStore]:
    """A store on this machine, which the environment names."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    with run_store(IndependentStore()) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-store")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        yield store
