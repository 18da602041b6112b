"""An item that another process has taken over, and that this process claims again."""

from __future__ import annotations

from decimal import Decimal

import anyio
from simulation.shared_database import SharedDatabase
from simulation.shared_store import SharedMemoryStore
from virtual_service import Service, run

from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.shared_store import WantedItem
from kling_async._policy.budget import Budget

PRICE = Decimal("0.35")


async def test_an_item_that_was_taken_over_before_its_post_is_claimed_again_as_the_store_has_it():
    database = SharedDatabase(anyio.current_time)
    store = SharedMemoryStore(
        database=database,
        wake=lambda _: None,
        before_commit=lambda: None,
        after_commit=lambda: None,
    )
    taken_over = []

    def take_over():
        """End the session; another process takes the item and ends, and the session is opened again."""
        database.end_session(store.holder)
        other = database.open_session(lambda: None)
        taken_over.append(database.claim(other, WantedItem(identity=database.kept[1].identity)))
        database.end_session(other)
        store.open_session()

    async def run_sync(function, *arguments):
        is_intent = function == store.commit and any(
            "identity" in one for one in arguments[0].fields.values()
        )
        if is_intent and not taken_over:
            take_over()
        await anyio.sleep(0.05)
        return function(*arguments)

    journal = WriteAheadJournal(store, run_sync=run_sync)
    journal.sharing._clock = anyio.current_time
    service = Service(run_time=10.0)
    budget = Budget({"kling-v2-6": PRICE})

    [result] = await run(service, ["rain"], journal=journal, budget=budget)
    journal.close()

    assert (result.ok, service.posts) == (True, 1)
    assert len(taken_over) == 1
    assert database.kept[1].attempts == 1
    assert database.spent_usd() == budget.spent == PRICE
