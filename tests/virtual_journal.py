"""A journal on the disk for tests on the virtual clock."""

from __future__ import annotations

from contextlib import contextmanager

import anyio

from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.sqlite.store import SqliteStore


@contextmanager
def journal_at(path):
    """A journal whose commits take no real time from the virtual clock."""

    async def at_once(function, *arguments):
        await anyio.sleep(0.001)
        return function(*arguments)

    journal = WriteAheadJournal(SqliteStore(path), run_sync=at_once)
    try:
        yield journal
    finally:
        journal.close()
