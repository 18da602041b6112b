from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import BudgetExceededError, ConfigurationError, VideoRequest
from kling_async._policy.budget import Budget
from kling_async.lines import quote_value

PRICES = {"kling-v2-6": Decimal("0.35")}
REQUEST = VideoRequest("x")


def test_without_prices_no_price_is_known_and_no_post_is_refused():
    budget = Budget()
    assert budget.price(REQUEST) is None
    budget.reserve(None)
    budget.spend(None)
    budget.release(None)
    assert budget.spent == 0


def test_a_price_is_looked_up_by_model_or_computed():
    assert Budget(PRICES).price(REQUEST) == Decimal("0.35")
    assert Budget(PRICES).price(VideoRequest("x", model="other")) is None
    by_second = Budget(lambda request: Decimal("0.07") * (request.duration or 5))
    assert by_second.price(VideoRequest("x", duration=10)) == Decimal("0.70")
    assert Budget(lambda _: None).price(REQUEST) is None


def test_prices_from_the_catalog_are_the_list_prices():
    budget = Budget("catalog", Decimal(1))
    assert budget.price(VideoRequest("x", duration=10)) == Decimal("0.70")
    with pytest.raises(ConfigurationError, match="'other'"):
        budget.price(VideoRequest("x", model="other"))


@pytest.mark.parametrize("price", [0.35, "0.35", Decimal("0.35")], ids=["float", "text", "decimal"])
def test_a_price_is_exact_however_it_is_written(price):
    assert Budget({"kling-v2-6": price}).price(REQUEST) == Decimal("0.35")


@pytest.mark.parametrize("prices, cap", [(PRICES, Decimal(1)), (lambda _: None, Decimal(1))])
def test_an_unknown_price_under_a_cap_is_an_error(prices, cap):
    with pytest.raises(ConfigurationError, match="'other'"):
        Budget(prices, cap).price(VideoRequest("x", model="other"))


def test_a_cap_without_prices_is_an_error():
    with pytest.raises(ConfigurationError, match="prices"):
        Budget(None, Decimal(1))


@pytest.mark.parametrize(
    "amount",
    [
        -1,
        float("nan"),
        float("inf"),
        "much",
        True,
        b"1",
        [],
        Decimal("-0.01"),
        1e308,
        Decimal("1E+400"),
        10**5000,
    ],
    ids=quote_value,
)
def test_the_error_about_a_wrong_amount_names_the_setting(amount):
    with pytest.raises(ConfigurationError, match="max_cost_usd"):
        Budget(PRICES, amount)
    with pytest.raises(ConfigurationError, match="'kling-v2-6'"):
        Budget({"kling-v2-6": amount})
    with pytest.raises(ConfigurationError, match="returned"):
        Budget(lambda _: amount).price(REQUEST)


@pytest.mark.parametrize(
    "prices",
    [0.35, "catalogue", np.array([]), pd.Series({"kling-v2-6": 0.35})],
    ids=lambda prices: type(prices).__name__,
)
def test_prices_of_another_type_are_refused(prices):
    with pytest.raises(ConfigurationError, match="mapping"):
        Budget(prices)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_price_function_can_end_the_program(kind):
    def leave(request):
        raise kind

    with pytest.raises(kind):
        Budget(leave).price(VideoRequest("x"))


def test_the_error_of_a_price_function_names_its_request():
    def fail(request):
        raise LookupError("no tariff")

    with pytest.raises(ConfigurationError, match=r"error for 'x': LookupError: no tariff\."):
        Budget(fail).price(REQUEST)


def test_amounts_of_money_have_cents_in_the_error_of_a_cap():
    with pytest.raises(BudgetExceededError, match=r"to \$0\.70, above the cap of \$0\.50; nothing"):
        Budget({"kling-v2-6": Decimal("0.7")}, 0.5).reserve(Decimal("0.7"))


def test_the_spend_can_reach_the_cap_and_not_pass_it():
    budget = Budget(PRICES, Decimal("0.70"))
    for _ in range(2):
        budget.reserve(Decimal("0.35"))
    with pytest.raises(
        BudgetExceededError, match=r"\$1\.05, above the cap of \$0\.70; .* Raise max_cost_usd"
    ):
        budget.reserve(Decimal("0.35"))
    budget.release(Decimal("0.35"))
    budget.reserve(Decimal("0.35"))
    budget.spend(Decimal("0.35"))
    assert budget.spent == Decimal("0.35")


@given(st.lists(st.sampled_from(["reserve", "spend", "release"]), max_size=60))
def test_spent_and_reserved_money_together_never_pass_the_cap(steps):
    price, cap = Decimal("0.30"), Decimal(1)
    budget, reserved = Budget({"m": price}, cap), 0
    for step in steps:
        if step == "reserve":
            try:
                budget.reserve(price)
            except BudgetExceededError:
                assert budget.spent + (reserved + 1) * price > cap
            else:
                reserved += 1
        elif reserved:
            reserved -= 1
            budget.spend(price) if step == "spend" else budget.release(price)
        assert budget.spent + reserved * price <= cap


def test_what_earlier_runs_have_spent_counts_for_the_cap():
    budget = Budget(PRICES, Decimal("1.00"))
    budget.count_earlier(Decimal("0.70"))
    with pytest.raises(BudgetExceededError, match=r"\$1\.05"):
        budget.reserve(Decimal("0.35"))
    assert budget.spent == Decimal("0.70")


def test_posts_of_earlier_runs_without_a_price_count_at_the_price_of_this_batch():
    budget = Budget(PRICES, Decimal("1.50"))
    unrecorded = budget.price_unpriced(VideoRequest("an eagle"), model="kling-v2-6", posts=2)
    unrecorded += budget.price_unpriced(None, model="kling-v2-6", posts=1)
    budget.count_earlier(Decimal("0.10"), unrecorded=unrecorded)
    assert budget.spent == Decimal("1.15")
    assert budget.cap_of_recorded == Decimal("0.45")
    budget.reserve(Decimal("0.35"))
    with pytest.raises(BudgetExceededError, match=r"\$1\.85"):
        budget.reserve(Decimal("0.35"))
    assert "$1.20" in str(budget.refuse_recorded(Decimal("0.15")))


def test_a_cap_over_posts_whose_price_is_not_known_is_an_error():
    budget = Budget(PRICES, Decimal("1.50"))
    with pytest.raises(ConfigurationError, match="the price of 'other' is not known"):
        budget.price_unpriced(VideoRequest("an eagle", model="other"), model="other", posts=1)


def test_what_the_journal_has_is_not_limited_without_a_cap():
    assert Budget(PRICES).cap_of_recorded is None
