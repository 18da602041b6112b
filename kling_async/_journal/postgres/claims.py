"""Claims: makes this process the holder of entries in the tables of a journal."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from kling_async._journal.entry import Identity
from kling_async._journal.postgres import statements as sql
from kling_async._journal.postgres.connection import Connection, execute
from kling_async._journal.postgres.held_entries import HeldEntries
from kling_async._journal.postgres.rows import build_entry, columns_of_items, identity_digest
from kling_async._journal.shared_store import Claim, WantedItem


def are_lost(work: Connection, held: HeldEntries, items: Sequence[WantedItem]) -> bool:
    """Whether the database has lost an entry that this process has held, or what this process knows of it.

    The item of such an entry would look as if it had never been bought.
    """
    known = [one for item in items if (one := held.find(item.identity)) is not None]
    if not known:
        return False
    epochs: dict[int, int] = dict(execute(work, sql.EPOCHS, [[one.entry.number for one in known]]).fetchall())
    return any(epochs.get(one.entry.number, -1) < one.epoch for one in known)


def claim(work: Connection, held: HeldEntries, items: Sequence[WantedItem], *, opened_no: int) -> list[Claim]:
    """Hold each item that no other live process holds; the answers are in the order of the items.

    Args:
        work: The connection.
        held: What this process holds; gets the claimed entries.
        items: The items.
        opened_no: The number that a write would have had when this process opened the store.
    """
    wanted = {identity_digest(item.identity): item for item in items}
    rows = execute(work, sql.CLAIM, {"identities": list(wanted), "holder": held.holder}).fetchall()
    new = [item for item in wanted.values() if not item.is_known]
    if len(rows) < len(wanted) and new:
        rows += execute(work, sql.MAKE, [held.holder, *columns_of_items(new)]).fetchall()
    claimed: dict[Identity, Claim] = {}
    for epoch, writer, written_no, *row in rows:
        entry = build_entry(row)
        held.keep(entry, epoch)
        is_changed = written_no is not None and written_no > opened_no and writer not in held.holders
        claimed[entry.identity] = Claim(entry=entry, is_changed_elsewhere=is_changed)
    _add_unknown_attempts(work, claimed)
    left = [text for text, item in wanted.items() if item.identity not in claimed]
    existing = set()
    if left:
        existing = {build_entry(row).identity for row in execute(work, sql.FIND, [left]).fetchall()}
    return [
        claimed.get(item.identity) or Claim(is_held_elsewhere=item.identity in existing) for item in items
    ]


def _add_unknown_attempts(work: Connection, claimed: dict[Identity, Claim]) -> None:
    numbers = [
        claim.entry.number for claim in claimed.values() if claim.entry is not None and claim.entry.attempts
    ]
    if not numbers:
        return
    for row in execute(work, sql.UNKNOWN_ATTEMPTS_OF_ENTRIES, [numbers]).fetchall():
        attempt = build_entry(row)
        claim = claimed[attempt.identity]
        claimed[attempt.identity] = attrs.evolve(claim, unknown_attempts=[*claim.unknown_attempts, attempt])
