"""Who works on an item: claims the entry of the item in the journal, and releases the entry."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import attrs

from kling_async._engine.submit.batch_item import BatchItem
from kling_async._engine.submit.item_identifier import ItemIdentifier, foreign_entry, wanted_item
from kling_async._journal.entry import Identity
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.shared_store import Claim, WantedItem
from kling_async._journal.transitions import price_posts
from kling_async.errors import JournalError


@attrs.frozen(eq=False)
class ItemClaims:
    """The claims of one batch on the entries of its items, in its journal if it has one."""

    _journal: WriteAheadJournal | None
    _identifier: ItemIdentifier = attrs.field(init=False, factory=ItemIdentifier)

    async def claim_entry(self, item: BatchItem) -> Claim:
        """The claim of an item, with its entry in the journal.

        In a shared journal this process holds the item from now on, and the entry is made if it is missing, unless another
        live process holds the item. In a journal of one process this only looks for the entry. It sets the item's identity,
        number, cost, earlier POSTs and `is_changed_elsewhere`, and a price that only an earlier run knew. It writes the item's
        index into an entry that has another.

        Raises:
            ConfigurationError: The journal does not have the entry that the input gives, or the batch has it twice.
            InvalidRequestError: A local picture is another than that of the entry that the input gives.
            JournalError: A shared journal cannot be reached, or another program has changed the entry.
        """
        if self._journal is None:
            claim = Claim()
        else:
            identity = item.identity = item.identity or self._identify(item)
            claim = await self._journal.sharing.claim(identity, partial(_describe_item, item))
        entry = claim.entry
        if entry is not None:
            item.entry_number, item.input_entry = entry.number, None
            item.cost, item.earlier_posts = entry.cost_usd, entry.attempts
            _, item.price = price_posts(item.earlier_posts, item.cost, item.price)
            if self._journal is not None and item.index is not None and entry.index != item.index:
                self._journal.record_index(entry.number, item.index)
        elif item.input_entry is not None and not claim.is_held_elsewhere:
            raise foreign_entry(item.input_entry)
        item.is_changed_elsewhere = claim.is_changed_elsewhere
        return claim

    def _identify(self, item: BatchItem) -> Identity:
        """The identity of an item that is claimed for the first time."""
        if item.input_entry is not None:
            return self._identifier.identify_entry(item.input_entry, item.digests)
        assert item.request is not None
        return self._identifier.identify_request(item.request, item.digests)

    async def wait_claimable(self, item: BatchItem) -> None:
        """Return when no live process holds an item that another process held."""
        assert item.identity is not None
        assert self._journal is not None, "without a journal, no other process holds an item"
        await self._journal.sharing.wait_claimable(item.identity)

    async def is_job_taken(self, item: BatchItem) -> bool:
        """Whether another process of a shared journal has matched the item's job to its own lost submit."""
        if self._journal is not None and item.entry_number is not None:
            with suppress(JournalError):  # the batch ends with it; what is paid for is delivered
                return await self._journal.sharing.is_job_taken(item.entry_number)
        return False

    def release(self, item: BatchItem) -> None:
        """Let other processes hold the item, as soon as its writes are in a shared journal."""
        if self._journal is not None and item.entry_number is not None:
            self._journal.sharing.release(item.entry_number)


def _describe_item(item: BatchItem) -> WantedItem:
    """The item as a shared journal has to know it; no entry is made where the journal had one before."""
    assert item.identity is not None
    if item.input_entry is not None or item.entry_number is not None or item.request is None:
        return WantedItem(identity=item.identity, is_known=True)
    return wanted_item(item.request, item.identity, index=item.index or 0)
