"""What a batch would cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Unpack

import attrs

from kling_async._calls import public_call
from kling_async._field_docs import describe_fields
from kling_async._policy.budget import Budget, Prices
from kling_async._policy.list_prices import LIST_PRICES
from kling_async.errors import InvalidRequestError
from kling_async.items import Table, read_many, request_from
from kling_async.requests import (
    RequestLike,
    VideoOptions,
    VideoRequest,
    model_of,
)


@attrs.frozen(kw_only=True)
class ItemEstimate:
    """What one request would cost."""

    index: int
    """The request's place in the input, from 0."""
    request: VideoRequest
    """The request, filled with the options of the call."""
    cost_usd: Decimal | None
    """US dollars for the video; None is unknown, not free."""
    source: str | None
    """Where the price is from; None if the price is unknown."""


@attrs.frozen
class Estimate:
    """What a batch would cost: each request, all known prices together, and the requests without a known price."""

    items: tuple[ItemEstimate, ...]
    """One for each request, in input order."""

    @property
    def cost_usd(self) -> Decimal | None:
        """The sum of the known prices; None if no price is known. `unknown` are not in it."""
        known = [item.cost_usd for item in self.items if item.cost_usd is not None]
        return sum(known, Decimal(0)) if known else None

    @property
    def unknown(self) -> tuple[ItemEstimate, ...]:
        """The requests whose price is unknown."""
        return tuple(item for item in self.items if item.cost_usd is None)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the prices are from, each source once, in the order of the items."""
        return tuple(dict.fromkeys(item.source for item in self.items if item.source is not None))


@public_call(options=lambda: VideoOptions.__annotations__)
def estimate(
    requests: RequestLike | Iterable[RequestLike] | Table,
    *,
    prices: Prices = "catalog",
    keep_labels: bool = False,
    **options: Unpack[VideoOptions],
) -> Estimate:
    """What some requests would cost as a batch. Nothing is sent.

    Args:
        requests: A prompt, a `VideoRequest` or a mapping, an iterable of these, or a table of them.
        prices: `"catalog"` for the list prices that this release knows, each with its source; some are estimates. Or
            your own prices, as for `generate_many`.
        keep_labels: As for `generate_many`.
        **options: Fill the fields that the requests leave open, as for `generate_many`.

    Raises:
        InvalidRequestError: A request breaks its model's rules.
        ConfigurationError: A price makes no sense.
        TypeError: There is no such option.
    """
    budget = Budget(prices)
    if isinstance(requests, str | VideoRequest | Mapping):
        requests = [requests]
    items = read_many(requests)
    if not isinstance(items, Iterable):
        raise InvalidRequestError("estimate() reads no async iterable: give a list of the requests.")
    return Estimate(
        tuple(
            _estimate_item(index, item, options, budget, keep_labels=keep_labels)
            for index, item in enumerate(items)
        )
    )


def _estimate_item(
    index: int, item: RequestLike, options: VideoOptions, budget: Budget, *, keep_labels: bool
) -> ItemEstimate:
    try:
        request = request_from(item, options, keep_labels=keep_labels)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"item {index}: {error.message}", advice=error.advice) from error
    cost = budget.price(request)
    source = None if cost is None else _source_of(request, budget)
    return ItemEstimate(index=index, request=request, cost_usd=cost, source=source)


def _source_of(request: VideoRequest, budget: Budget) -> str:
    model = model_of(request)
    if budget.prices == "catalog":
        return LIST_PRICES[model].source
    return f"prices[{model!r}]" if isinstance(budget.prices, Mapping) else "prices()"


describe_fields(__name__)
