"""A process that can open no more files waits until it can."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import sqlite3
import sys
from contextlib import contextmanager, nullcontext, suppress

import pytest

from kling_async import APIConnectionError, JournalError, KlingClient, Limits, RetryPolicy
from kling_async._engine import descriptors
from kling_async._engine.descriptors import fit_to_process, retry_for_descriptor
from kling_async._journal.sqlite.opening import journal_errors
from kling_async._policy.descriptors import lacks_descriptors
from kling_async._transport.base import Request
from kling_async._transport.over_aiohttp import AiohttpTransport
from kling_async.emulator import EmulatorSettings
from kling_async.events import Retrying, Submitted
from kling_async.journal import Journal

RELEASE_AFTER = 0.3
ONCE = RetryPolicy(max_retries=0)
TWO_PIXELS = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.usefixtures("tiny_films")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(instant_rate=1.0)


@pytest.fixture(autouse=True)
def first_warning():
    """The warning comes once in a process; here each test is a process of its own."""
    descriptors.warn_of_descriptors.cache_clear()
    yield
    descriptors.warn_of_descriptors.cache_clear()


@contextmanager
def files_of_the_process(at_most):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (at_most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def descriptors_used_up(number=32):
    """All descriptors of a process that has so many more are in use; the block gets a function that releases them."""
    held = []

    def release():
        while held:
            os.close(held.pop())

    free = os.dup(0)
    os.close(free)
    with files_of_the_process(free + number):
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        try:
            yield release
        finally:
            release()


def client_of(emulator, **settings):
    return KlingClient("any-key", base_url=emulator.url, **{"retry": ONCE, **settings})


async def test_a_batch_waits_for_descriptors_and_fails_nothing(kling_emulator, tmp_path, caplog):
    picture = tmp_path / "start.png"
    picture.write_bytes(TWO_PIXELS)
    items = [{"prompt": "a", "image": picture}, "b", "c"]
    async with client_of(kling_emulator) as client:
        await client.generate_many(["first"], output=tmp_path)  # imports of modules need descriptors too
        with descriptors_used_up() as release:
            asyncio.get_running_loop().call_later(RELEASE_AFTER, release)
            batch = await client.generate_many(items, output=tmp_path / "videos", journal=tmp_path / "run.db")
    assert [result.error for result in batch] == [None] * 3
    assert all(path.stat().st_size for path in batch.paths)
    assert kling_emulator.stats.requests["submit"] == 4
    assert len([record for record in caplog.records if "file descriptor" in record.message]) == 1


async def test_descriptors_that_run_out_between_submit_and_download_fail_nothing(kling_emulator, tmp_path):
    events = []
    async with client_of(kling_emulator) as client:
        with descriptors_used_up() as release:
            release()
            held = []

            def use_up(event):
                events.append(event)
                if isinstance(event, Submitted) and not held:
                    try:
                        while True:
                            held.append(os.dup(0))
                    except OSError:
                        asyncio.get_running_loop().call_later(RELEASE_AFTER, release_all)

            def release_all():
                while held[1:]:
                    os.close(held.pop())

            batch = await client.generate_many(
                ["a", "b", "c"], output=tmp_path, journal=tmp_path / "run.db", on_event=use_up
            )
            os.close(held.pop())
    assert [result.error for result in batch] == [None] * 3
    assert len(batch.paths) == 3
    assert kling_emulator.stats.requests["submit"] == 3


async def test_a_pause_is_no_retry(kling_emulator):
    events = []
    async with client_of(kling_emulator, on_event=events.append) as client:
        with descriptors_used_up() as release:
            asyncio.get_running_loop().call_later(RELEASE_AFTER, release)
            assert await client.list_models()
    pauses = [event for event in events if isinstance(event, Retrying)]
    assert [event.attempt for event in pauses] == list(range(1, len(pauses) + 1))
    assert pauses


async def test_another_error_of_the_work_is_raised_at_once():
    tries = []

    async def work():
        tries.append(None)
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        await retry_for_descriptor(work)
    assert len(tries) == 1


async def test_register_and_preview_wait_for_descriptors(tmp_path, caplog):
    journal = Journal(tmp_path / "run.db")
    with descriptors_used_up() as release:
        asyncio.get_running_loop().call_later(RELEASE_AFTER, release)
        registered = await journal.register(["a cat"])
    descriptors.warn_of_descriptors.cache_clear()
    with descriptors_used_up() as release:
        asyncio.get_running_loop().call_later(RELEASE_AFTER, release)
        [entry] = await journal.preview(["a cat"])
    assert [entry] == [*registered.entries]
    assert caplog.text.count("has no free file descriptor") == 2


def test_a_journal_says_that_there_is_no_free_descriptor(tmp_path):
    def open_it():
        with journal_errors(tmp_path / "run.db", "opened", "wait"):
            sqlite3.connect(tmp_path / "missing" / "run.db")

    with descriptors_used_up(), pytest.raises(JournalError, match="Too many open files") as caught:
        open_it()
    assert caught.value.__cause__.errno == errno.EMFILE
    with pytest.raises(JournalError, match="unable to open") as caught:
        open_it()
    assert isinstance(caught.value.__cause__, sqlite3.Error)


def test_limits_that_the_process_cannot_keep_are_lowered_with_a_warning(caplog):
    wide = Limits(max_concurrent_submits=1000, max_concurrent_downloads=1000)
    with files_of_the_process(512):
        assert fit_to_process(Limits()) == Limits()
        assert not caplog.records
        fitted = fit_to_process(wide)
    assert (fitted.max_concurrent_submits, fitted.max_concurrent_downloads) == (192, 17)
    assert "can have 512 files open, so at most 192 submits and 17 downloads" in caplog.text


def test_a_system_without_such_a_limit_keeps_the_limits(monkeypatch):
    wide = Limits(max_concurrent_downloads=10**6)
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert fit_to_process(wide) == wide
    monkeypatch.setitem(sys.modules, "resource", None)
    assert fit_to_process(wide) == wide


@pytest.mark.unmeasured
async def test_a_batch_with_wide_limits_fits_into_a_process_with_few_files(kling_emulator, tmp_path):
    wide = Limits(max_concurrent_submits=500, max_concurrent_downloads=500, max_polls_per_second=100)
    with descriptors_used_up(number=128) as release:
        release()
        async with client_of(kling_emulator, limits=wide) as client:
            batch = await client.generate_many(
                ["rain"] * 100, output=tmp_path, journal=tmp_path / "run.db", max_concurrency=100
            )
    assert [result.error for result in batch] == [None] * 100
    assert len(set(batch.paths)) == 100
    assert kling_emulator.stats.requests["submit"] == 100


async def test_a_host_that_cannot_be_looked_up_for_lack_of_descriptors_is_not_an_unknown_host(monkeypatch):
    def refuse(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    transport = AiohttpTransport()
    request = Request("GET", "http://service.example/", {})
    for context, is_lack in ((descriptors_used_up(), True), (nullcontext(), False)):
        with context, pytest.raises(APIConnectionError, match="no connection") as caught:
            await transport.send(request)
        assert lacks_descriptors(caught.value) is is_lack
        assert not caught.value.was_sent
    await transport.aclose()
