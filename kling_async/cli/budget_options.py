"""The options about money: prices, the cap, and what may be bought again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Annotated

import attrs
from cyclopts import Group, Parameter

from kling_async.errors import ConfigurationError
from kling_async.lines import quote_value, read_dollars
from kling_async.types import OnAmbiguous


@Parameter(name="*", group=Group("Money", sort_key=2))
@attrs.frozen(kw_only=True)
class BudgetOptions:
    """How much a batch may spend, and what it may buy again."""

    price: Annotated[tuple[str, ...], Parameter(metavar="[MODEL=]USD", allow_leading_hyphen=True)] = ()
    """The price of one video in US dollars; with several models, give it once for each."""
    max_cost: Annotated[str | None, Parameter(metavar="USD", allow_leading_hyphen=True)] = None
    """Send nothing that would bring the spend above this, earlier runs of the journal included; needs --price."""
    retry_failed: bool = False
    """Submit again, and pay again for, what an earlier run saw fail."""
    on_ambiguous: OnAmbiguous = "report"
    """A submit whose reply was lost and whose job the service does not show: report it, send it again if the service's list proves that it is absent, or send it again in any case at the risk of paying twice."""

    @property
    def cap(self) -> Decimal | None:
        """The most that may be spent; None for no cap.

        Raises:
            ConfigurationError: `--max-cost` is no amount of money.
        """
        return None if self.max_cost is None else _parse_dollars(self.max_cost, "--max-cost")

    def prices(self, models: Collection[str]) -> dict[str, Decimal] | None:
        """The given price of each model; None without any.

        Args:
            models: The models of the batch.

        Raises:
            ConfigurationError: A price is no amount of money or names no model where there are several, or a model
                has two; or one has none under a cap.
        """
        prices: dict[str, Decimal] = {}
        for text in self.price:
            name, _, amount = text.rpartition("=")
            for model in [name] if name else models:
                if model in prices:
                    raise ConfigurationError(f"--price gives {model} two prices: give it one.")
                prices[model] = _parse_dollars(amount, "--price")
            if not name and len(models) > 1:
                raise ConfigurationError(
                    f"--price {text} names no model, and there are {len(models)}: give {_price_arguments(models, amount)}."
                )
        if self.cap is not None and (unknown := [model for model in models if model not in prices]):
            raise ConfigurationError(
                f"--max-cost needs to know what a video costs: add {_price_arguments(unknown)}."
            )
        return prices or None

    def arguments(self, prices: Mapping[str, Decimal] | None) -> list[str]:
        """The options that give another command the same prices and cap; --retry-failed is left out."""
        words = [word for model, usd in (prices or {}).items() for word in ("--price", f"{model}={usd}")]
        if self.max_cost is not None:
            words += ["--max-cost", self.max_cost]
        return words if self.on_ambiguous == "report" else [*words, "--on-ambiguous", self.on_ambiguous]


def _parse_dollars(text: str, option: str) -> Decimal:
    amount = read_dollars(text)
    if amount is None:
        raise ConfigurationError(f"{option} takes US dollars, such as 0.35 or 20, not {quote_value(text)}.")
    return amount


def _price_arguments(models: Collection[str], amount: str = "USD") -> str:
    return " ".join(f"--price {model}={amount}" for model in models)
