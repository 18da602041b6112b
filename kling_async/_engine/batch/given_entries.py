"""Entries that a caller gives as items: they are of the batch's journal, and are submitted as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kling_async import catalog
from kling_async._cells import is_missing, to_plain
from kling_async._engine.submit.item_identifier import foreign_entry, repeated_entry
from kling_async._engine.threads import run_in_thread
from kling_async._journal.entry import Entry, Identity
from kling_async._journal.location import DatabaseUrl
from kling_async._journal.open_journal import journal_exists, read_journal
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.lines import quote_value
from kling_async.requests import VideoRequest


def entry_without_journal(index: int) -> ConfigurationError:
    """The error of an entry in a batch that has no journal."""
    return ConfigurationError(
        f"Item {index} is an entry of a journal, and the batch has no journal.",
        advice="Give journal= the journal that the entry is from.",
    )


def check_not_changed(index: int, entry: Entry, options: Mapping[str, Any]) -> None:
    """Refuse options that an entry does not have: they would change a request that is recorded.

    Args:
        index: The index of the item.
        entry: The entry.
        options: The fields that the call gives for all requests.

    Raises:
        ConfigurationError: The entry has another value, or none; or the options make no valid request.
    """
    given = {name: value for name, value in options.items() if not is_missing(to_plain(value))}
    request = entry.request if given else None
    if request is None:
        return
    try:
        wanted = VideoRequest("as recorded", **given)
    except InvalidRequestError as error:  # of the call, so no item is left out for it
        raise ConfigurationError(
            f"The options cannot change item {index}, an entry of the journal: {error.message} Leave them out."
        ) from error
    pairs = {name: (getattr(wanted, name), getattr(request, name)) for name in given if name != "extra"}
    pairs |= {key: (value, entry.payload.get(key)) for key, value in wanted.extra.items()}
    for name, (value, recorded) in pairs.items():
        is_upload = name in catalog.PICTURE_KEYS and recorded is not None  # recorded by its URL
        if value != recorded and not (is_upload and catalog.is_local_picture(value)):
            recorded_text = "without one" if recorded is None else f"with {quote_value(recorded)}"
            raise ConfigurationError(
                f"{name}={quote_value(value)} cannot change item {index}: an entry of the journal is submitted as "
                f"it was, {recorded_text}. Leave the option out, or give a new request."
            )


async def require_entries(entries: Sequence[Entry], location: str | DatabaseUrl) -> dict[int, Entry]:
    """The entries as the journal has them now, by number, if it has all of them and each is given once.

    A missing journal is not made.

    Raises:
        ConfigurationError: The journal does not have an entry, or an entry is given twice.
        JournalError: The journal cannot be read.
    """
    by_identity = {}
    for entry in entries:
        if entry.identity in by_identity:
            raise repeated_entry(entry)
        by_identity[entry.identity] = entry
    return await run_in_thread(lambda: _read_known(by_identity, location)) if by_identity else {}


def _read_known(entries: Mapping[Identity, Entry], location: str | DatabaseUrl) -> dict[int, Entry]:
    missing, known = {**entries}, {}
    for entry in read_journal(location) if journal_exists(location) else ():
        if entry.identity in missing and missing[entry.identity].number == entry.number:
            known[entry.number] = entry
            del missing[entry.identity]
            if not missing:
                break
    if missing:
        raise foreign_entry(next(iter(missing.values())))
    return known
