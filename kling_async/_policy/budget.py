"""What a batch may spend: a price for each request, and a cap that is asked before each POST."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Literal, TypeAlias

import attrs

from kling_async._policy.list_prices import list_price
from kling_async.catalog import quote_value
from kling_async.errors import BudgetExceededError, ConfigurationError
from kling_async.requests import VideoRequest, model_of

Prices: TypeAlias = Mapping[str, Decimal] | Callable[[VideoRequest], Decimal | None] | Literal["catalog"]
"""US dollars for one video: by model id, as a function of the request, or the list prices that this release knows.

An unknown price is None or absent.
"""


def dollars(value: object, *, name: str) -> Decimal:
    """An amount of money that makes sense.

    Raises:
        ConfigurationError: It is no finite number of at least 0.
    """
    if isinstance(value, Decimal | int | float | str) and not isinstance(value, bool):
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = Decimal("NaN")
        if amount.is_finite() and amount >= 0:
            return amount
    raise ConfigurationError(
        f"{name} must be an amount of US dollars of at least 0, such as Decimal('0.35'), not {quote_value(value)}."
    )


def _cap(value: object) -> Decimal | None:
    return None if value is None else dollars(value, name="max_cost_usd")


@attrs.define
class Budget:
    """Counts what is spent and what POSTs in flight may spend.

    A POST whose fate is unknown, and a job that failed, count as spent: nobody promises the money back.
    """

    prices: Prices | None = None
    cap: Decimal | None = attrs.field(default=None, converter=_cap)
    spent: Decimal = Decimal(0)
    """US dollars for what was accepted, or may have been."""
    _reserved: Decimal = Decimal(0)

    def __attrs_post_init__(self) -> None:
        if self.cap is not None and self.prices is None:
            raise ConfigurationError(
                "max_cost_usd needs to know what a video costs: give prices={'kling-v2-6': Decimal('0.35')}, "
                "a function of the request, or 'catalog'."
            )
        if isinstance(self.prices, Mapping):
            self.prices = {
                model: dollars(price, name=f"prices[{model!r}]") for model, price in self.prices.items()
            }
        elif self.prices is not None and self.prices != "catalog" and not callable(self.prices):
            raise ConfigurationError(
                f"prices must be a mapping of model ids to US dollars, a function of the request, or 'catalog', "
                f"not {quote_value(self.prices)}."
            )

    def price(self, request: VideoRequest) -> Decimal | None:
        """US dollars for one video; None where nobody knows, which is not free.

        Raises:
            ConfigurationError: A cap is set and the price is not known, or the price is no amount of money.
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
            except Exception as error:
                raise ConfigurationError(
                    f"prices() raised {type(error).__name__} for {quote_value(request.prompt)}: {error}."
                ) from error
            price = None if price is None else dollars(price, name="the price that prices() gave")
        if price is None and self.cap is not None:
            raise ConfigurationError(
                f"max_cost_usd is set and the price of {model_of(request)!r} is not known: add it to prices."
            )
        return price

    def reserve(self, price: Decimal | None) -> None:
        """Set money aside for one POST.

        Raises:
            BudgetExceededError: It would pass the cap; nothing was set aside.
        """
        if price is None:
            return
        if self.cap is not None and (total := self.spent + self._reserved + price) > self.cap:
            raise BudgetExceededError(
                f"A further video would bring the spend to ${total}, above max_cost_usd=${self.cap}; it was not "
                "sent. Raise the cap to go on."
            )
        self._reserved += price

    def release(self, price: Decimal | None) -> None:
        """The POST was provably not accepted: its money is free again."""
        if price is not None:
            self._reserved -= price

    def spend(self, price: Decimal | None) -> None:
        """The POST was accepted, or may have been: its money counts as spent."""
        if price is not None:
            self._reserved -= price
            self.spent += price
