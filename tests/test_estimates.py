from __future__ import annotations

import re
from decimal import Decimal

import pytest

from kling_async import ConfigurationError, InvalidRequestError, VideoRequest, estimate
from kling_async._policy.list_prices import LIST_PRICES


def test_each_request_is_priced_and_unknown_ones_stand_apart():
    items = ["a", VideoRequest("b", duration=10), {"prompt": "c", "model": "kling-o1-image-to-video"}]
    made = estimate(items, sound=True)
    assert [item.cost_usd for item in made.items] == [Decimal("0.70"), Decimal("1.40"), None]
    assert [item.index for item in made.unknown] == [2]
    assert [item.source is None for item in made.items] == [False, False, True]
    assert made.cost_usd == Decimal("2.10")
    assert made.sources == (LIST_PRICES["kling-v2-6"].source,)
    assert [item.request.sound for item in made.items] == [True] * 3


def test_a_cost_of_which_nothing_is_known_is_none_and_not_free():
    made = estimate(["a", "b"], model="a-model-of-tomorrow")
    assert (made.cost_usd, len(made.unknown), made.sources) == (None, 2, ())
    assert estimate([]).cost_usd is None


@pytest.mark.parametrize("one", ["a", VideoRequest("a"), {"prompt": "a"}])
def test_one_request_can_be_estimated_alone(one):
    assert estimate(one, duration=10).cost_usd == Decimal("0.70")


def test_own_prices_name_themselves_as_the_source():
    assert estimate("a", prices={"kling-v2-6": Decimal(1)}).items[0].source == "prices['kling-v2-6']"
    assert estimate("a", prices=lambda request: Decimal(len(request.prompt))).items[0].source == "prices()"


def test_an_invalid_request_is_named_by_its_place():
    with pytest.raises(
        InvalidRequestError, match=r"^estimate\(\): item 1: kling-v2-6: duration must be 5 or 10"
    ):
        estimate(["a", {"prompt": "b", "duration": 7}])


def test_wrong_prices_and_options_are_refused():
    with pytest.raises(ConfigurationError, match="or 'catalog', not 'list'"):
        estimate("a", prices="list")
    with pytest.raises(
        TypeError, match=re.escape("estimate() has no option 'price'; did you mean 'prices'?")
    ):
        estimate("a", price="catalog")
