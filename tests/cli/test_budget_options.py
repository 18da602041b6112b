from __future__ import annotations

from decimal import Decimal

import pytest

from kling_async.cli.budget_options import BudgetOptions
from kling_async.errors import ConfigurationError

ONE, TWO = ("kling-v2-6",), ("kling-v2-6", "kling-v3")


@pytest.mark.parametrize(
    "price, models, expected",
    [
        ((), ONE, None),
        (("0.35",), ONE, {"kling-v2-6": Decimal("0.35")}),
        (("0",), ONE, {"kling-v2-6": Decimal(0)}),
        (("0.35",), (), None),
        (("kling-v3=1",), ONE, {"kling-v3": Decimal(1)}),
        (("kling-v2-6=0.35", "kling-v3=1"), TWO, {"kling-v2-6": Decimal("0.35"), "kling-v3": Decimal(1)}),
        (("a=b=1",), ONE, {"a=b": Decimal(1)}),
    ],
)
def test_a_price_without_a_name_is_that_of_the_only_model(price, models, expected):
    assert BudgetOptions(price=price).prices(models) == expected


@pytest.mark.parametrize(
    "budget, models, sentence",
    [
        (BudgetOptions(price=("cheap",)), ONE, "--price takes US dollars, such as 0.35 or 20, not 'cheap'."),
        (BudgetOptions(price=("-1",)), ONE, "--price takes US dollars, such as 0.35 or 20, not '-1'."),
        (BudgetOptions(price=("kling-v2-6=",)), ONE, "--price takes US dollars, such as 0.35 or 20, not ''."),
        (BudgetOptions(price=("nan",)), ONE, "--price takes US dollars, such as 0.35 or 20, not 'nan'."),
        (BudgetOptions(price=("1e308",)), ONE, "--price takes US dollars, such as 0.35 or 20, not '1e308'."),
        (
            BudgetOptions(max_cost="1e400"),
            ONE,
            "--max-cost takes US dollars, such as 0.35 or 20, not '1e400'.",
        ),
        (BudgetOptions(max_cost="-1"), ONE, "--max-cost takes US dollars, such as 0.35 or 20, not '-1'."),
        (BudgetOptions(max_cost="all"), ONE, "--max-cost takes US dollars, such as 0.35 or 20, not 'all'."),
        (
            BudgetOptions(price=("1", "kling-v2-6=2")),
            ONE,
            "--price gives kling-v2-6 two prices: give it one.",
        ),
        (
            BudgetOptions(price=("0.35",)),
            TWO,
            "--price 0.35 names no model, and there are 2: give --price kling-v2-6=0.35 --price kling-v3=0.35.",
        ),
        (
            BudgetOptions(max_cost="20"),
            ONE,
            "--max-cost needs to know what a video costs: add --price kling-v2-6=USD.",
        ),
        (
            BudgetOptions(max_cost="20", price=("kling-v2-6=1",)),
            TWO,
            "--max-cost needs to know what a video costs: add --price kling-v3=USD.",
        ),
    ],
)
def test_wrong_prices_and_caps_are_one_sentence_with_the_next_step(budget, models, sentence):
    with pytest.raises(ConfigurationError) as caught:
        budget.prices(models)
    assert str(caught.value) == sentence


def test_a_cap_is_the_amount_that_was_given():
    assert BudgetOptions().cap is None
    assert BudgetOptions(max_cost="0.70").cap == Decimal("0.70")


def test_another_command_gets_the_same_prices_and_cap_but_buys_nothing_again():
    assert BudgetOptions(retry_failed=True).arguments(None) == []
    budget = BudgetOptions(price=("0.35",), max_cost="20", on_ambiguous="resend")
    assert budget.arguments(budget.prices(ONE)) == [
        "--price",
        "kling-v2-6=0.35",
        "--max-cost",
        "20",
        "--on-ambiguous",
        "resend",
    ]
