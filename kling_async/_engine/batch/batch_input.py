"""The input of a batch: any iterable, read one item at a time, and checked before the first POST if that is possible."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any

import attrs

from kling_async._engine.batch.given_entries import check_not_changed, entry_without_journal
from kling_async._engine.batch.resume import Plan
from kling_async._engine.batch.settings import BatchSettings
from kling_async._engine.submit.picture_digests import NO_DIGESTS, PictureDigests
from kling_async._journal.entry import Entry
from kling_async._policy.budget import Budget
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.items import check_meant, find_picture_problem, read_many, request_from
from kling_async.requests import RequestLike, VideoRequest
from kling_async.types import Requests

_MAX_ERRORS_SHOWN = 10
_READ_IN_A_ROW = 32
"""So many items are read before other tasks run: to read a list never waits."""


@attrs.frozen
class InputItem:
    """One item of the input."""

    index: int
    request: VideoRequest | None
    """None if the item is not a valid request."""
    error: InvalidRequestError | None = None
    """Why it is not to be sent."""
    digests: Mapping[str, str] = NO_DIGESTS
    """The SHA-256 of each local picture of the request, by its path, as the files are when the item is read."""
    entry: Entry | None = None
    """The journal entry, if the input gives an entry instead of a request."""
    plan: Plan | None = None
    """What the call wants of the item, if this is one of several runs for it; None if this run is the call."""


class InputReader:
    """Reads the input of a batch item by item.

    All items of a collection are checked before the first one is returned.

    Args:
        requests: The input.
        options: Fill the fields that the items leave open.
        skip_invalid: Return invalid items with their error, instead of raising the error.
        allow_suspicious: Return requests whose prompt looks like a mistake.
        keep_labels: Keep further values of a row as the labels of its request.
        has_journal: Whether the batch has a journal, of which items can be entries.
        check: Called with each request before its item is returned; its errors are raised.

    Raises:
        InvalidRequestError: The input is a single request, or iterating over it does not give requests.
    """

    def __init__(
        self,
        requests: Requests,
        options: Mapping[str, Any],
        *,
        skip_invalid: bool,
        allow_suspicious: bool = False,
        keep_labels: bool = False,
        has_journal: bool = True,
        check: Callable[[VideoRequest], object] | None = None,
    ) -> None:
        items = read_many(requests)
        self.is_over = False
        """Whether no further item will be returned."""
        self._options = options
        self._skip_invalid = skip_invalid
        self._allow_suspicious = allow_suspicious
        self._keep_labels = keep_labels
        self._has_journal = has_journal
        self._check = check
        self._digests = PictureDigests()
        self._index = self._turns = 0
        self._async_items: AsyncIterator[RequestLike | Entry] | None = None
        self._items: Iterator[RequestLike | Entry | InputItem] = iter(())
        self._unchecked: Collection[RequestLike | Entry] | None = None
        if isinstance(items, AsyncIterable):
            self._async_items = aiter(items)
        elif isinstance(items, Collection):
            self._unchecked = items
        else:
            self._items = iter(items)

    async def check(self) -> Sequence[Entry]:
        """Check all items of a collection before the first one is returned; other tasks run meanwhile.

        A second call does nothing.

        Returns:
            The items that are entries of a journal, which can be another one than that of the batch.

        Raises:
            InvalidRequestError: An item is invalid and `skip_invalid` is False.
            ConfigurationError: An item has no price, and there is a cap; or it is an entry that the batch cannot continue.
        """
        if self._unchecked is None:
            return ()
        items, self._unchecked = tuple(self._unchecked), None
        checked = []
        broken: dict[str, list[int]] = {}
        advice: str | None = None
        for place, item in enumerate(items, start=1):
            index = self._take_index(item)
            try:
                checked.append(self._make_item(index, item))
            except InvalidRequestError as error:
                checked.append(InputItem(index, None, error))
                broken.setdefault(error.message, []).append(index)
                advice = advice or error.advice
            if place % _READ_IN_A_ROW == 0:
                await asyncio.sleep(0)
        if broken and not self._skip_invalid:
            raise _describe_broken(broken, total=len(items), advice=advice)
        self._items = iter(checked)
        return [item for item in items if isinstance(item, Entry)]

    async def next_item(self) -> InputItem | None:
        """The next item; None at the end of the input.

        Raises:
            InvalidRequestError: An item is invalid and `skip_invalid` is False.
            Exception: An error of the caller's iterator; no further item is returned after it.
        """
        if self.is_over:
            return None
        await self.check()
        self._turns += 1
        if self._turns % _READ_IN_A_ROW == 0:
            await asyncio.sleep(0)
        try:
            item = next(self._items) if self._async_items is None else await anext(self._async_items)
        except (StopIteration, StopAsyncIteration):
            self.is_over = True
            return None
        except BaseException:
            self.is_over = True
            raise
        if isinstance(item, InputItem):
            return await self._read_pictures(item)
        index = self._take_index(item)
        try:
            return await self._read_pictures(self._make_item(index, item))
        except ConfigurationError:
            self.is_over = True
            raise
        except InvalidRequestError as error:
            if self._skip_invalid:
                return InputItem(index, None, error)
            self.is_over = True
            raise InvalidRequestError(f"Item {index}: {error.message}", advice=error.advice) from error

    async def close(self) -> None:
        """Return no further item, and let a generator run its cleanup."""
        self.is_over = True
        if isinstance(self._async_items, AsyncGenerator):
            await self._async_items.aclose()
        if isinstance(self._items, Generator):
            self._items.close()

    async def _read_pictures(self, item: InputItem) -> InputItem:
        """The item with the digests of its local pictures, or with the error if one cannot be read.

        The caller's generator goes on only after that, and can then write its next picture to the same file.
        """
        if item.request is None:
            return item
        try:
            digests = await self._digests.read(item.request)
        except InvalidRequestError as error:
            return attrs.evolve(item, error=error)
        return attrs.evolve(item, digests=digests) if digests else item

    def _take_index(self, item: RequestLike | Entry) -> int:
        """The index of the next item: the next free one. An entry keeps the index that it has, if that is higher."""
        index = max(self._index, item.index) if isinstance(item, Entry) else self._index
        self._index = index + 1
        return index

    def _make_item(self, index: int, item: RequestLike | Entry) -> InputItem:
        if not isinstance(item, Entry):
            return InputItem(index, self._make_request(item))
        # An entry is sent as it was: no option fills it, and a picture that was uploaded before need not be here.
        if not self._has_journal:
            raise entry_without_journal(index)
        check_not_changed(index, item, self._options)
        request = item.request
        if self._check is not None and request is not None:
            self._check(request)
        return InputItem(index, request, entry=item)

    def _make_request(self, item: RequestLike) -> VideoRequest:
        request = request_from(item, self._options, keep_labels=self._keep_labels)
        if not self._allow_suspicious:
            check_meant(request)
        problem = find_picture_problem(request)
        if problem is not None:
            raise InvalidRequestError(f"{problem[0].upper()}{problem[1:]}, so it cannot be uploaded.")
        if self._check is not None:
            self._check(request)
        return request


def _describe_broken(
    broken: Mapping[str, Sequence[int]], *, total: int, advice: str | None
) -> InvalidRequestError:
    """The error of a collection with invalid items: each reason once, with the indices of its items."""
    reasons = [
        f"{'item' if len(indices) == 1 else 'items'} {_list_some([str(index) for index in indices], ', ')}: {reason}"
        for reason, indices in broken.items()
    ]
    return InvalidRequestError(
        f"{sum(map(len, broken.values())):,} of {total:,} requests are invalid, so none was sent: "
        f"{_list_some(reasons, ' ')}",
        advice=" ".join(filter(None, [advice, "skip_invalid=True leaves them out."])),
    )


def _list_some(parts: Sequence[str], separator: str) -> str:
    more = f" and {len(parts) - _MAX_ERRORS_SHOWN:,} more" if len(parts) > _MAX_ERRORS_SHOWN else ""
    return f"{separator.join(parts[:_MAX_ERRORS_SHOWN])}{more}"


def open_input(
    requests: Requests,
    options: Mapping[str, Any],
    settings: BatchSettings,
    budget: Budget,
    *,
    has_journal: bool,
) -> InputReader:
    """The reader of a batch's input; under a cap it refuses an item without a price.

    Raises:
        InvalidRequestError: See `InputReader`.
    """
    return InputReader(
        requests,
        options,
        skip_invalid=settings.skip_invalid,
        allow_suspicious=settings.allow_suspicious,
        keep_labels=settings.keep_labels,
        has_journal=has_journal,
        check=budget.price if budget.cap is not None else None,
    )
