"""The journal of a batch: read its entries, register a batch in it, and see what a run would do next."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Unpack

import anyio.to_thread
import attrs

from kling_async._calls import public_call
from kling_async._engine.batch.batch_input import InputReader
from kling_async._engine.batch.resume import NextStep, next_step
from kling_async._engine.download.output_folder import saved_file
from kling_async._engine.submit.item_identifier import ItemIdentifier, wanted_item
from kling_async._engine.submit.uploader import payload_with_absolute_paths
from kling_async._engine.threads import open_in_thread, run_in_thread
from kling_async._field_docs import describe_fields
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.location import DatabaseUrl, JournalReference, journal_location
from kling_async._journal.open_journal import journal_exists, open_journal, read_journal
from kling_async._journal.sharing import Sharing
from kling_async._wire.payloads import payload_of
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.items import Table
from kling_async.lines import quote_value
from kling_async.paths import ObjectUrl, output_path
from kling_async.requests import RequestLike, VideoOptions, VideoRequest, model_of

__all__ = ["Entries", "Entry", "EntryState", "Identity", "Journal", "NextStep", "RegisteredBatch"]

_ENTRIES_AT_ONCE = 500
"""So many entries are read in one call of a thread."""


@attrs.frozen(kw_only=True)
class RegisteredBatch:
    """The entries of a batch that a journal holds, all written before anything is sent."""

    entries: tuple[Entry, ...]
    """The entry of each item, in input order; an item of an earlier run keeps the state that run left."""
    dropped: int
    """How many entries of earlier batches were never sent, are not in this batch, and were dropped."""


class Entries(Iterator[Entry], AsyncIterator[Entry]):
    """The entries of a journal, once: with `for`, or with `async for`, which reads them in a thread.

    Raises:
        JournalError: The journal cannot be read any more.
    """

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._read: deque[Entry] = deque()

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> Entry:
        return self._read.popleft() if self._read else next(self._entries)

    def __aiter__(self) -> Entries:
        return self

    async def __anext__(self) -> Entry:
        if not self._read:
            # Not repeated after an error: an iterator that has raised is at its end, which would hide the rest.
            self._read.extend(await anyio.to_thread.run_sync(self._take))
        if not self._read:
            raise StopAsyncIteration
        return self._read.popleft()

    def _take(self) -> tuple[Entry, ...]:
        return tuple(islice(self._entries, _ENTRIES_AT_ONCE))


class Journal(JournalReference):
    """The journal at a path or in a database: it names the place, and opens it only for the time of each call.

    Give it, or its path or URL alone, as `journal=` to `generate_many` and `stream_many`. The batch makes what is missing.
    It locks a file until the batch ends; a database is shared with the batches of other processes.

    Args:
        path: The file, in which `~` is the home folder; or the URL of a PostgreSQL database, such as
            `postgresql://user:password@host/database`.

    Raises:
        ConfigurationError: It is neither the path of a file on this machine nor the URL of such a database.
    """

    @public_call
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location: str | DatabaseUrl = journal_location(path, name="path")
        self.path: str = str(self.location)
        """The file; or the URL of the database, without its password."""

    def __fspath__(self) -> str:
        if self.is_database:
            raise ConfigurationError(f"The journal {self.path!r} is a database, and no file.")
        return self.path

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"<Journal {self.path!r}>"

    @property
    def is_database(self) -> bool:
        """Whether the journal is in a database, which several processes can share."""
        return isinstance(self.location, DatabaseUrl)

    @public_call
    def exists(self) -> bool:
        """Whether there is a journal, or another file in its place.

        Raises:
            JournalError: The database cannot be read.
        """
        return journal_exists(self.location)

    @public_call
    def entries(self) -> Entries:
        """All entries in the order in which they were first written, also while a batch writes the journal.

        Take them with `for`; or with `async for`, which lets other tasks of the event loop run. The file is not locked. Only a journal of an older version is changed: it is brought up to date.

        Raises:
            JournalError: There is no journal at the path, or it cannot be read.
        """
        return Entries(read_journal(self.location))

    @public_call(options=lambda: VideoOptions.__annotations__)
    async def register(
        self,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike] | Table,
        *,
        skip_invalid: bool = False,
        allow_suspicious: bool = False,
        keep_labels: bool = False,
        **options: Unpack[VideoOptions],
    ) -> RegisteredBatch:
        """Write down a whole batch before anything is sent, so that `entries()` alone can finish the batch later.

        A new item becomes an entry in the state `NOT_SUBMITTED`. An entry of an earlier batch that is still
        `NOT_SUBMITTED` and not in this batch becomes `DROPPED`: it may have been a mistake, and would cost money. In a
        database no entry is dropped, because it can be of a batch of another process.
        Nothing is sent and nothing is paid for. Give the same options as to `generate_many`.

        Args:
            requests: The items of the batch, as `generate_many` takes them.
            skip_invalid: Leave out invalid requests, and those whose local picture cannot be read.
            allow_suspicious: Register prompts that look like a mistake, as for `generate_many`.
            keep_labels: Take rows with further values, as for `generate_many`; the journal does not keep these.
            **options: The fields that all requests share.

        Raises:
            InvalidRequestError: A request is invalid, or its local picture cannot be read; nothing was written.
            JournalError: The journal is in use, is no journal, or cannot be written.
        """
        items = await _identify(
            requests,
            options,
            skip_invalid=skip_invalid,
            allow_suspicious=allow_suspicious,
            keep_labels=keep_labels,
        )
        async with open_in_thread(partial(open_journal, self.location), WriteAheadJournal.close) as log:
            # In a thread: 50,000 items take some seconds, and nothing else writes this journal.
            registered = await run_in_thread(partial(_register, log, items, at=time.time()))
            await log.flush()
        return registered

    @public_call(options=lambda: VideoOptions.__annotations__)
    async def preview(
        self,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike] | Table,
        *,
        skip_invalid: bool = False,
        allow_suspicious: bool = False,
        keep_labels: bool = False,
        **options: Unpack[VideoOptions],
    ) -> tuple[Entry, ...]:
        """The entry that each request has, or would get, in input order; nothing is written or sent.

        A request that the journal does not have gets an entry with the number 0, in the state `NOT_SUBMITTED`. A
        missing file is a journal without entries. The arguments are those of `register`.

        Raises:
            InvalidRequestError: A request is invalid, or its local picture cannot be read.
            JournalError: The journal cannot be read.
        """
        items = await _identify(
            requests,
            options,
            skip_invalid=skip_invalid,
            allow_suspicious=allow_suspicious,
            keep_labels=keep_labels,
        )
        return await run_in_thread(partial(self._preview, items))

    def _preview(self, items: Sequence[tuple[int, Identity, VideoRequest]]) -> tuple[Entry, ...]:
        known = self._entries_by_identity()
        entries = []
        for index, identity, request in items:
            entry = known.get(identity) or known.get(identity.former)
            if entry is None:
                entry = Entry(
                    number=0,
                    identity=identity,
                    model=model_of(request),
                    payload=payload_of(request),
                    state=EntryState.NOT_SUBMITTED,
                )
            entries.append(attrs.evolve(entry, index=index))
        return tuple(entries)

    def _entries_by_identity(self) -> dict[Identity | None, Entry]:
        if not self.exists():
            return {}
        return {entry.identity: entry for entry in self.entries()}

    @staticmethod
    @public_call
    def next_step(
        entry: Entry, *, retry_failed: bool = False, output: str | os.PathLike[str] | None = None
    ) -> NextStep:
        """What a batch with these options does first with an entry; it looks at the saved file, and changes nothing.

        About a video in an object store it takes the entry's word; a batch itself asks the store.

        Args:
            entry: From `entries`, `preview` or `register`.
            retry_failed: As for `generate_many`.
            output: The folder or the prefix for the videos, as for `generate_many`.

        Raises:
            InvalidRequestError: `entry` is none.
        """
        if not isinstance(entry, Entry):
            raise InvalidRequestError(f"An entry of a journal is wanted, not {quote_value(entry)}.")
        step = next_step(entry, retry_failed=retry_failed)
        place = None if output is None else output_path(output, name="output")
        if place is None or step is not NextStep.REPORT or entry.state is not EntryState.SUCCEEDED:
            return step
        if isinstance(place, ObjectUrl):
            is_saved = entry.path is not None and entry.path == place.child(PurePath(entry.path).name)
        else:
            is_saved = saved_file(entry, Path(place)) is not None
        return step if is_saved else NextStep.DOWNLOAD


async def _identify(
    requests: Iterable[RequestLike] | AsyncIterable[RequestLike] | Table,
    options: Mapping[str, Any],
    *,
    skip_invalid: bool,
    allow_suspicious: bool,
    keep_labels: bool,
) -> list[tuple[int, Identity, VideoRequest]]:
    """Each request with its index and its identity, in input order."""
    reader = InputReader(
        requests,
        options,
        skip_invalid=skip_invalid,
        allow_suspicious=allow_suspicious,
        keep_labels=keep_labels,
    )
    identifier = ItemIdentifier()
    items = []
    while (item := await reader.next_item()) is not None:
        if item.error is not None and not skip_invalid:
            raise item.error
        if item.request is not None and item.error is None:
            identity = identifier.identify_request(item.request, item.digests)
            items.append((item.index, identity, item.request))
    return items


def _register(
    log: WriteAheadJournal, items: Sequence[tuple[int, Identity, VideoRequest]], *, at: float
) -> RegisteredBatch:
    """Write the entries of a batch and drop those of earlier batches, all in the journal's next group of writes."""
    if isinstance(log.sharing, Sharing):
        shared = [wanted_item(request, identity, index=index) for index, identity, request in items]
        return RegisteredBatch(entries=tuple(log.sharing.register(shared)), dropped=0)
    numbers = []
    for index, identity, request in items:
        known = log.find(identity)
        if known is None:
            payload = payload_with_absolute_paths(request)
            number = log.record_intent(
                identity, model=model_of(request), payload=payload, at=at, cost_usd=None, index=index
            )
        else:
            number = known.number
            if known.index != index:
                log.record_index(number, index)
        if known is None or known.state is EntryState.DROPPED:
            log.record_not_accepted(number, error="")
        numbers.append(number)
    dropped, wanted = 0, set(numbers)
    entries = {}
    for entry in log.entries():
        if entry.number in wanted:
            entries[entry.number] = entry
        elif entry.state is EntryState.NOT_SUBMITTED:
            log.record_end(entry.number, state=EntryState.DROPPED, record=None, error=entry.error)
            dropped += 1
    return RegisteredBatch(entries=tuple(entries[number] for number in numbers), dropped=dropped)


describe_fields(__name__)
