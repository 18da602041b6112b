from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from kling_async.emulator import EmulatorSettings


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(instant_rate=1.0)


@pytest.fixture(autouse=True)
def same_log():
    """What a page sets up for the log ends with the page."""
    loggers = [logging.getLogger(), logging.getLogger("kling_async")]
    before = [(logger.level, [*logger.handlers]) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        for handler in [one for one in logger.handlers if one not in handlers]:
            logger.removeHandler(handler)
            handler.close()


@pytest.fixture
def reader(kling_emulator, store, tiny_films, monkeypatch, tmp_path):
    """The folder of someone who follows the documentation: their environment leads to an emulator and a store."""
    monkeypatch.setenv("GMI_API_KEY", "any-key")
    monkeypatch.setenv("GMI_BASE_URL", kling_emulator.url)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def machines(reader, postgres_server, monkeypatch):
    """The database of the page about many machines, at the address of the page, and a worker over it."""
    for statement in ("CREATE ROLE kling LOGIN PASSWORD 'kling'", "CREATE DATABASE kling OWNER kling"):
        postgres_server.execute(statement)
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(postgres_server.port))
    monkeypatch.setenv("PGPASSWORD", "kling")
    command = ["-m", "kling_async", "worker", "--journal", "postgresql://kling@db.example/kling", "--quiet"]
    worker = subprocess.Popen([sys.executable, *command])  # noqa: S603 - our own program
    yield
    worker.kill()
    worker.wait()
    for statement in ("DROP DATABASE kling WITH (FORCE)", "DROP ROLE kling"):
        postgres_server.execute(statement)
