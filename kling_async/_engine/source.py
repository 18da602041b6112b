"""A batch's input: any iterable, read one item at a time, checked before anything is sent where that is possible."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import attrs

from kling_async.errors import InvalidRequestError
from kling_async.models import VideoRequest, request_from

Item: TypeAlias = VideoRequest | str | Mapping[str, Any]
"""What stands for one video: a prompt, a request, or a mapping of a request's fields."""
Requests: TypeAlias = Iterable[Item] | AsyncIterable[Item]
"""What `generate_many` and `batch` take."""

_MOST_SHOWN = 10


@attrs.frozen
class Taken:
    """One item of the input."""

    index: int
    request: VideoRequest | None
    """None where the item is no valid request."""
    error: InvalidRequestError | None = None


@attrs.define(eq=False)
class Source:
    """Hands out one item after the other, to several takers if need be.

    Raises:
        InvalidRequestError: A collection holds an invalid item and `skip_invalid` is False, or the input
            is a single request where many are wanted.
    """

    requests: Requests
    options: Mapping[str, Any]
    skip_invalid: bool
    _iterator: Iterator[Item] | AsyncIterator[Item] = attrs.field(init=False)
    _index: int = attrs.field(init=False, default=0)
    _turn: anyio.Lock = attrs.field(init=False, factory=lambda: anyio.Lock(fast_acquire=True))
    is_over: bool = attrs.field(init=False, default=False)
    """Whether nothing more will be handed out."""

    def __attrs_post_init__(self) -> None:
        if isinstance(self.requests, str | bytes | Mapping | VideoRequest):
            raise InvalidRequestError(
                f"Many requests are wanted, not one {type(self.requests).__name__}; put it into a list, "
                "or use generate() for a single video."
            )
        if not self.skip_invalid and isinstance(self.requests, Collection):
            self._check_all(self.requests)
        if isinstance(self.requests, AsyncIterable):
            self._iterator = aiter(self.requests)
        elif isinstance(self.requests, Iterable):
            self._iterator = iter(self.requests)
        else:
            raise InvalidRequestError(
                f"The requests must be an iterable or an async iterable, not {type(self.requests).__name__}."
            )

    async def take(self) -> Taken | None:
        """The next item, or None when there is none.

        Raises:
            InvalidRequestError: An item is invalid and `skip_invalid` is False.
            Exception: Whatever the caller's iterator raises; after that nothing more is handed out.
        """
        async with self._turn:
            if self.is_over:
                return None
            try:
                if isinstance(self._iterator, AsyncIterator):
                    item = await anext(self._iterator)
                else:
                    item = next(self._iterator)
            except (StopIteration, StopAsyncIteration):
                self.is_over = True
                return None
            except BaseException:
                self.is_over = True
                raise
            index, self._index = self._index, self._index + 1
        try:
            return Taken(index, self._request(item))
        except InvalidRequestError as error:
            if self.skip_invalid:
                return Taken(index, None, error)
            self.is_over = True
            raise InvalidRequestError(f"Item {index}: {error.message}") from error

    async def close(self) -> None:
        """Hand out nothing more, and let a generator run its cleanup."""
        self.is_over = True
        if isinstance(self._iterator, AsyncIterator):
            if hasattr(self._iterator, "aclose"):
                await self._iterator.aclose()
        elif hasattr(self._iterator, "close") and not hasattr(self._iterator, "read"):
            self._iterator.close()

    def _request(self, item: Item) -> VideoRequest:
        request = request_from(item, self.options)
        for name in ("image", "image_tail"):
            picture = getattr(request, name)
            if is_local(picture) and not Path(picture).is_file():
                raise InvalidRequestError(f"{name}: there is no file {os.fspath(picture)!r}.")
        return request

    def _check_all(self, items: Collection[Item]) -> None:
        broken = []
        for index, item in enumerate(items):
            try:
                self._request(item)
            except InvalidRequestError as error:
                broken.append(f"item {index}: {error.message}")
        if broken:
            more = f" and {len(broken) - _MOST_SHOWN:,} more" if len(broken) > _MOST_SHOWN else ""
            raise InvalidRequestError(
                f"{len(broken):,} of {len(items):,} requests are invalid, so none was sent "
                f"(skip_invalid=True leaves them out): {' '.join(broken[:_MOST_SHOWN])}{more}"
            )


def is_local(picture: object) -> bool:
    """Whether a picture is a path on this machine, to be uploaded before the service can read it."""
    if isinstance(picture, os.PathLike):
        return True
    return isinstance(picture, str) and "://" not in picture and picture[:5].lower() != "data:"
