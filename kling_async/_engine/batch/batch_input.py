"""A batch's input: any iterable, read one item at a time, checked before anything is sent where that is possible."""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

import attrs

from kling_async._journal.entry import Entry
from kling_async.catalog import is_local_picture
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.requests import RequestLike, VideoRequest, request_from
from kling_async.types import Requests

_MOST_SHOWN = 10


@attrs.frozen
class InputItem:
    """One item of the input."""

    index: int
    request: VideoRequest | None
    """None where the item is no valid request."""
    error: InvalidRequestError | None = None
    entry: Entry | None = None
    """The entry of the journal that the item is."""


class InputReader:
    """Gives one item after the other.

    A collection is checked whole before its first item is handed out.

    Args:
        requests: The input.
        options: Fill what the items leave open.
        skip_invalid: Hand out invalid items with their error, instead of raising it.
        check: Called with each request before it is handed out; what it raises is raised.

    Raises:
        InvalidRequestError: A collection holds an invalid item and `skip_invalid` is False, or the input
            is a single request where many are wanted.
    """

    def __init__(
        self,
        requests: Requests,
        options: Mapping[str, Any],
        skip_invalid: bool,  # noqa: FBT001 - internal
        *,
        check: Callable[[VideoRequest], object] | None = None,
    ) -> None:
        if isinstance(requests, str | bytes | Mapping | VideoRequest):
            raise InvalidRequestError(
                f"Many requests are wanted, not one {type(requests).__name__}; put it into a list, "
                "or use generate() for a single video."
            )
        if not isinstance(requests, AsyncIterable | Iterable):
            raise InvalidRequestError(
                f"The requests must be an iterable or an async iterable, not {type(requests).__name__}."
            )
        self.is_over = False
        """Whether nothing more will be handed out."""
        self._options = options
        self._skip_invalid = skip_invalid
        self._check = check
        self._index = 0
        self._slow: AsyncIterator[RequestLike | Entry] | None = None
        self._quick: Iterator[RequestLike | Entry | InputItem] = iter(())
        if isinstance(requests, AsyncIterable):
            self._slow = aiter(requests)
        elif isinstance(requests, Collection) and not skip_invalid:
            self._quick = iter(self._check_all(requests))
        else:
            self._quick = iter(requests)

    async def next_item(self) -> InputItem | None:
        """The next item, or None when there is none.

        Raises:
            InvalidRequestError: An item is invalid and `skip_invalid` is False.
            Exception: Whatever the caller's iterator raises; after that nothing more is handed out.
        """
        if self.is_over:
            return None
        try:
            item = next(self._quick) if self._slow is None else await anext(self._slow)
        except (StopIteration, StopAsyncIteration):
            self.is_over = True
            return None
        except BaseException:
            self.is_over = True
            raise
        if isinstance(item, InputItem):
            return item
        index, self._index = self._index, self._index + 1
        try:
            return self._input_item(index, item)
        except ConfigurationError:
            self.is_over = True
            raise
        except InvalidRequestError as error:
            if self._skip_invalid:
                return InputItem(index, None, error)
            self.is_over = True
            raise InvalidRequestError(f"Item {index}: {error.message}") from error

    async def close(self) -> None:
        """Hand out nothing more, and let a generator run its cleanup."""
        self.is_over = True
        if isinstance(self._slow, AsyncGenerator):
            await self._slow.aclose()
        if isinstance(self._quick, Generator):
            self._quick.close()

    def _input_item(self, index: int, item: RequestLike | Entry) -> InputItem:
        if not isinstance(item, Entry):
            return InputItem(index, self._request(item))
        # It is what it was: no option fills it, and a picture that was uploaded long ago may be gone from here.
        request = item.request
        if self._check is not None and request is not None:
            self._check(request)
        return InputItem(index, request, entry=item)

    def _request(self, item: RequestLike) -> VideoRequest:
        request = request_from(item, self._options)
        for picture in (request.image, request.image_tail):
            if picture is not None and is_local_picture(picture) and not os.path.isfile(picture):  # noqa: PTH113 - never raises
                raise InvalidRequestError(f"There is no file {os.fspath(picture)!r} to upload.")
        if self._check is not None:
            self._check(request)
        return request

    def _check_all(self, items: Collection[RequestLike | Entry]) -> list[InputItem]:
        checked = []
        broken = []
        for index, item in enumerate(items):
            try:
                checked.append(self._input_item(index, item))
            except InvalidRequestError as error:
                broken.append(f"item {index}: {error.message}")
        if broken:
            more = f" and {len(broken) - _MOST_SHOWN:,} more" if len(broken) > _MOST_SHOWN else ""
            raise InvalidRequestError(
                f"{len(broken):,} of {len(items):,} requests are invalid, so none was sent "
                f"(skip_invalid=True leaves them out): {' '.join(broken[:_MOST_SHOWN])}{more}"
            )
        return checked
