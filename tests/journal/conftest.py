from __future__ import annotations

from decimal import Decimal

import anyio
import attrs
import pytest
from virtual_service import VirtualLoop
from virtual_store import MemoryStore

from kling_async._journal.entry import EntryState, Identity, fingerprint
from kling_async._journal.journal import WriteAheadJournal

MODEL = "kling-v2-6"
PRICE = Decimal("0.35")


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@attrs.frozen
class Pen:
    """Writes the usual things of the usual items."""

    journal: WriteAheadJournal

    def identity(self, prompt: str, occurrence: int = 0, key: str | None = None) -> Identity:
        return Identity(key, fingerprint(MODEL, {"prompt": prompt}), occurrence)

    def record_intent(self, prompt: str, *, at: float = 1.0, cost_usd: Decimal | None = PRICE) -> int:
        identity = self.identity(prompt)
        return self.journal.record_intent(
            identity, model=MODEL, payload={"prompt": prompt}, at=at, cost_usd=cost_usd
        )

    def record_job(self, number: int, request_id: str) -> None:
        record = {"request_id": request_id, "status": "queued", "payload": {"prompt": "echo"}}
        self.journal.record_job(number, request_id=request_id, record=record)

    def fail(self, number: int, error: str = "no") -> None:
        self.record_job(number, f"failed-{number}")
        self.journal.record_end(number, state=EntryState.FAILED, record=None, error=error)

    def find(self, prompt: str):
        return self.journal.find(self.identity(prompt))

    def sum_costs(self) -> Decimal:
        return sum((entry.cost_usd or Decimal(0) for entry in self.journal.entries()), Decimal(0))


@pytest.fixture
def pen_for():
    return Pen


SLOW_DISK = 1.0
"""Seconds of the virtual clock that a commit takes: longer than any wait for others."""


async def commit_slowly(function, *arguments):
    await anyio.sleep(SLOW_DISK)
    function(*arguments)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def journal(store):
    """A journal in memory whose commits take `SLOW_DISK` seconds."""
    return WriteAheadJournal(store, run_sync=commit_slowly)


@pytest.fixture
def pen(pen_for, journal):
    return pen_for(journal)


@pytest.fixture
def slow_disk():
    return SLOW_DISK
