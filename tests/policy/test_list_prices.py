from __future__ import annotations

from decimal import Decimal

import pytest

from kling_async import VideoRequest
from kling_async._policy.list_prices import LIST_PRICES, list_price


@pytest.mark.parametrize(
    "model, fields, usd",
    [
        (None, {}, "0.35"),
        ("kling-v2-6", {"duration": 10}, "0.70"),
        ("kling-v2-6", {"sound": False, "mode": "pro", "cfg_scale": 0.5}, "0.35"),
        ("kling-v2-6", {"sound": True, "image": "https://host/a.png"}, "0.70"),
        ("kling-v2-6", {"sound": False, "extra": {"sound": "on", "duration": "10"}}, "1.40"),
        ("kling-v3-text-to-video", {"duration": 7, "aspect_ratio": "9:16"}, "1.176"),
        ("kling-v3-image-to-video", {"sound": True}, "1.26"),
        ("kling-3.0-turbo-t2v", {}, "0.56"),
        (
            "kling-3.0-turbo-i2v",
            {"resolution": "1080p", "extra": {"first_frame": "https://host/a.png"}},
            "0.70",
        ),
        ("kling-v3-omni", {"mode": "std"}, "0.42"),
        ("kling-v3-omni", {"sound": True}, "0.70"),
        ("Kling-Text2Video-V2.1-Master", {"duration": 10}, "0.28"),
        ("Kling-Image2Video-V1.6-Pro", {}, "0.098"),
    ],
)
def test_a_list_price_follows_the_model_and_its_parameters(model, fields, usd):
    assert list_price(VideoRequest("x", model=model, **fields)) == Decimal(usd)


@pytest.mark.parametrize(
    "model, fields",
    [
        ("a-model-of-tomorrow", {}),
        ("kling-v2-5-turbo", {}),
        ("KLING-V2-7", {}),
        ("kling-v2-6", {"extra": {"voice_list": []}}),
        ("kling-v2-6", {"extra": {"mode": "std"}}),
        ("kling-v2-6", {"extra": {"sound": [True]}}),
        ("kling-v2-6", {"extra": {"sound": "perhaps"}}),
        ("kling-v2-6", {"extra": {"duration": "soon"}}),
        ("kling-v2-6", {"extra": {"duration": "9" * 5000}}),
        ("kling-v3-text-to-video", {"duration": 0}),
        ("kling-v3-text-to-video", {"mode": "std"}),
        ("kling-3.0-turbo-t2v", {"resolution": "4k"}),
    ],
)
def test_the_price_of_a_model_or_parameter_that_is_not_listed_is_unknown(model, fields):
    assert list_price(VideoRequest("x", model=model, **fields)) is None


def test_a_parameter_that_is_explicitly_none_takes_the_default():
    assert list_price(VideoRequest("x", extra={"sound": None})) == Decimal("0.35")


def test_every_price_is_positive_and_names_its_source():
    for price in LIST_PRICES.values():
        assert price.source.startswith(("list price", "estimate"))
        assert all(rate > 0 for rate in price.rates.values())
        assert all(len(values) == len(price.defaults) for values in price.rates)
        assert tuple(price.defaults.values()) in price.rates


def test_the_price_of_the_default_model_says_that_it_is_an_estimate():
    assert "estimate" in LIST_PRICES["kling-v2-6"].source
