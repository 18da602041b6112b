"""Claims: makes this process the holder of entries in the tables of a journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from kling_async._journal.postgres import statements as sql
from kling_async._journal.postgres.connection import Connection, execute
from kling_async._journal.postgres.held_entries import HeldEntries
from kling_async._journal.postgres.rows import build_entry, columns_of, columns_of_items, identity_digest
from kling_async._journal.shared_store import Claim, WantedItem
from kling_async.errors import JournalError


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
    digests = [identity_digest(item.identity) for item in items]
    wanted = dict(zip(digests, items, strict=True))
    rows = execute(work, sql.CLAIM, {"identities": list(wanted), "holder": held.holder}).fetchall()
    new = [item for item in wanted.values() if not item.is_known]
    if len(rows) < len(wanted) and new:
        rows += execute(work, sql.MAKE, [held.holder, *columns_of_items(new)]).fetchall()
    claims: dict[int, Claim] = {}
    for digest, _, writer, written_no, *row in rows:
        is_changed = written_no is not None and written_no > opened_no and writer not in held.holders
        try:
            claims[row[0]] = Claim(entry=build_entry(row, digest), is_changed_elsewhere=is_changed)
        except JournalError as error:
            claims[row[0]] = Claim(error=error)
    _add_unknown_attempts(work, claims)
    _keep_or_release(work, held, claims, {row[0]: epoch for _, epoch, _, _, *row in rows})
    claimed = {digest: claims[row[0]] for digest, _, _, _, *row in rows}
    left = list(wanted.keys() - claimed.keys())
    existing = {digest for digest, *_ in execute(work, sql.FIND, [left]).fetchall()} if left else set()
    return [claimed.get(digest) or Claim(is_held_elsewhere=digest in existing) for digest in digests]


def _add_unknown_attempts(work: Connection, claims: dict[int, Claim]) -> None:
    numbers = [number for number, claim in claims.items() if claim.entry is not None and claim.entry.attempts]
    if not numbers:
        return
    for row in execute(work, sql.UNKNOWN_ATTEMPTS_OF_ENTRIES, [numbers]).fetchall():
        claim = claims[row[0]]
        try:
            unknown_attempts = [*claim.unknown_attempts, build_entry(row)]
        except JournalError as error:
            claims[row[0]] = Claim(error=error)
        else:
            claims[row[0]] = attrs.evolve(claim, unknown_attempts=unknown_attempts)


def _keep_or_release(
    work: Connection, held: HeldEntries, claims: Mapping[int, Claim], epochs: Mapping[int, int]
) -> None:
    """Remember the claimed entries; hold those no longer that cannot be read."""
    unreadable = []
    for number, claim in claims.items():
        if claim.entry is not None:
            held.keep(claim.entry, epochs[number])
        else:
            held.mark_lost(number)
            unreadable.append([number, epochs[number]])
    if unreadable:
        execute(work, sql.RELEASE, [*columns_of(unreadable, width=2), held.holder])
