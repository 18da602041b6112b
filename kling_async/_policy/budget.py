"""The budget of a batch: a price for each request, and a cap that is checked before each POST."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

import attrs

from kling_async._policy.list_prices import list_price
from kling_async.errors import BudgetExceededError, ConfigurationError
from kling_async.lines import error_text, money_text, quote_value, read_dollars
from kling_async.requests import VideoRequest, model_of

Prices: TypeAlias = Mapping[str, Decimal] | Callable[[VideoRequest], Decimal | None] | Literal["catalog"]
"""US dollars for one video: by model id, as a function of the request, or the list prices that this release knows.

An unknown price is None or absent.
"""


def dollars(value: object, *, name: str) -> Decimal:
    """An amount of money from a number or its text.

    Args:
        value: The amount.
        name: The name of the setting in the error.

    Raises:
        ConfigurationError: The value is not a finite number of at least 0.
    """
    amount = read_dollars(value)
    if amount is None:
        raise ConfigurationError(
            f"{name} must be an amount of US dollars of at least 0, such as Decimal('0.35'), not {quote_value(value)}."
        )
    return amount


def _is_catalog(prices: object) -> bool:
    return isinstance(prices, str) and prices == "catalog"  # a comparison with a column of a table raises


def _cap(value: object) -> Decimal | None:
    return None if value is None else dollars(value, name="max_cost_usd")


@attrs.define
class Budget:
    """Counts the money that is spent, and the money that is reserved for POSTs in flight.

    An ambiguous POST and a failed job count as spent: the service does not promise the money back.
    """

    prices: Prices | None = None
    cap: Decimal | None = attrs.field(default=None, converter=_cap)
    spent: Decimal = Decimal(0)
    """US dollars for the POSTs that were accepted, or may have been."""
    unrecorded: Decimal = Decimal(0)
    """US dollars for what the journal has no price for: POSTs of earlier runs that knew none, at the price of this batch."""
    _reserved: Decimal = Decimal(0)

    def __attrs_post_init__(self) -> None:
        if self.cap is not None and self.prices is None:
            raise ConfigurationError(
                "max_cost_usd needs the price of a video: give prices={'kling-v2-6': Decimal('0.35')}, "
                "a function of the request, or 'catalog'."
            )
        if isinstance(self.prices, Mapping):
            self.prices = {
                model: dollars(price, name=f"prices[{model!r}]") for model, price in self.prices.items()
            }
        elif self.prices is not None and not callable(self.prices) and not _is_catalog(self.prices):
            raise ConfigurationError(
                f"prices must be a mapping of model ids to US dollars, a function of the request, or 'catalog', "
                f"not {quote_value(self.prices)}."
            )

    def count_earlier(self, spent: Decimal, *, unrecorded: Decimal = Decimal(0)) -> None:
        """Count what earlier runs have spent.

        Args:
            spent: US dollars, by the journal.
            unrecorded: See `Budget.unrecorded`.
        """
        self.unrecorded = unrecorded
        self.spent += spent + unrecorded

    def price_unpriced(self, request: VideoRequest | None, *, model: str, posts: int) -> Decimal:
        """US dollars for POSTs of earlier runs that knew no price, at the price of this batch, which has a cap.

        Args:
            request: What was submitted; None if it cannot be read any more.
            model: The id of its model.
            posts: How many POSTs were, or may have been, accepted.

        Raises:
            ConfigurationError: The price is not known, so that the cap cannot be kept.
        """
        price = self.price(request or VideoRequest(prompt="not known", model=model))
        assert price is not None, "with a cap, a price that is not known is an error"
        return price * posts

    @property
    def cap_of_recorded(self) -> Decimal | None:
        """The cap for what the journal has; None is no limit."""
        return None if self.cap is None else self.cap - self.unrecorded

    def price(self, request: VideoRequest) -> Decimal | None:
        """US dollars for one video; None if the price is unknown, which does not mean free.

        Raises:
            ConfigurationError: A cap is set and the price is unknown, or the price is not an amount of money.
        """
        if self.prices is None:
            return None
        if isinstance(self.prices, Mapping):
            price = self.prices.get(model_of(request))
        elif self.prices == "catalog":
            price = list_price(request)
        else:
            try:
                price = self.prices(request)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # a CancelledError would end the item without a result
                raise ConfigurationError(
                    f"prices() raised an error for {quote_value(request.prompt)}: {error_text(error)}."
                ) from error
            price = None if price is None else dollars(price, name="the price that prices() returned")
        if price is None and self.cap is not None:
            raise ConfigurationError(
                f"max_cost_usd is set and the price of {model_of(request)!r} is not known: add it to prices."
            )
        return price

    def reserve(self, price: Decimal | None, *, is_allowed: bool = False) -> None:
        """Reserve the money for one POST.

        Args:
            price: US dollars; None is unknown.
            is_allowed: Whether the cap is checked already, over the spend of all processes of a shared journal.

        Raises:
            BudgetExceededError: The spend would pass the cap; nothing was reserved.
        """
        if price is None:
            return
        if (
            not is_allowed
            and self.cap is not None
            and (total := self.spent + self._reserved + price) > self.cap
        ):
            raise self.refuse(total)
        self._reserved += price

    def refuse_recorded(self, total: Decimal) -> BudgetExceededError:
        """The error for one more video that would bring what the journal has to this total."""
        return self.refuse(total + self.unrecorded)

    def refuse(self, total: Decimal) -> BudgetExceededError:
        """The error for one more video that would bring the spend to this total, and for all videos after it."""
        assert self.cap is not None, "without a cap nothing is refused"
        return BudgetExceededError(
            f"One more video would bring the spend to {money_text(total)}, above the cap of {money_text(self.cap)}; "
            "nothing more was sent.",
            advice="Raise max_cost_usd to submit more.",
        )

    def release(self, price: Decimal | None) -> None:
        """Free the money of a POST that provably was not accepted."""
        if price is not None:
            self._reserved -= price

    def spend(self, price: Decimal | None) -> None:
        """Count the money of a POST as spent: the POST was accepted, or may have been."""
        if price is not None:
            self._reserved -= price
            self.spent += price
