"""The list prices of the Kling family: data with their sources, and the price of one request by them.

A price is known only for parameters whose effect on it is known. Everything else is None: unknown, not free.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import attrs

from kling_async.catalog import PICTURES
from kling_async.requests import VideoRequest, model_of, parameters_of

_DEFAULT_SECONDS = 5
"""The duration of a request that names none, for every model below. Source: the vendor's page of each model."""
_FREE_OF_CHARGE = frozenset(
    {
        *("prompt", "negative_prompt", "cfg_scale", "aspect_ratio"),
        *(*PICTURES, "first_frame"),
    }
)
"""Parameters that change no price below."""
_SOUND = {"on": True, "yes": True, True: True, "off": False, "no": False, False: False}


@attrs.frozen(kw_only=True)
class ListPrice:
    """The list price of one model."""

    unit: Literal["second", "video"]
    """The thing that a rate is the price of."""
    defaults: Mapping[str, object] = attrs.field(factory=dict)
    """The parameters that select the rate, each with the value that the service takes if the request names none."""
    rates: Mapping[tuple[object, ...], Decimal]
    """US dollars per unit, by the values of these parameters in the same order."""
    source: str
    """The origin of the rates, and how certain they are."""


_OMNI_RATES: Mapping[tuple[object, ...], Decimal] = {
    ("std", False): Decimal("0.084"),
    ("std", True): Decimal("0.112"),
    ("pro", False): Decimal("0.112"),
    ("pro", True): Decimal("0.14"),
}
_V3 = ListPrice(
    unit="second",
    defaults={"sound": False},
    rates={(False,): Decimal("0.168"), (True,): Decimal("0.252")},
    source="list price, docs.gmicloud.ai/model-quickstarts/video/kling-v3-image-to-video",
)
_V3_TURBO = ListPrice(
    unit="second",
    defaults={"resolution": "720p"},
    rates={("720p",): Decimal("0.112"), ("1080p",): Decimal("0.14")},
    source="list price, docs.gmicloud.ai/model-quickstarts/video/kling-3.0-turbo-t2v and -i2v",
)
_V2_1_MASTER = ListPrice(
    unit="video",
    rates={(): Decimal("0.28")},
    source="estimate: the rates of the genblaze connector, from the vendor's blog of April 2026; another client lists "
    "$0.09 per second",
)
LIST_PRICES: Mapping[str, ListPrice] = {
    "kling-v2-6": ListPrice(
        unit="second",
        defaults={"mode": "pro", "sound": False},
        rates={("pro", False): Decimal("0.07"), ("pro", True): Decimal("0.14")},
        source="estimate: Kling's own list price at 1080p; GMI Cloud publishes none for this model",
    ),
    "kling-v3-text-to-video": _V3,
    "kling-v3-image-to-video": _V3,
    "kling-3.0-turbo-t2v": _V3_TURBO,
    "kling-3.0-turbo-i2v": _V3_TURBO,
    "kling-v3-omni": ListPrice(
        unit="second",
        defaults={"mode": "pro", "sound": False},
        rates=_OMNI_RATES,
        source="list price, as a client of the service reads the vendor's guide to kling-v3-omni; equal to Kling's own",
    ),
    "Kling-Text2Video-V2.1-Master": _V2_1_MASTER,
    "Kling-Image2Video-V2.1-Master": _V2_1_MASTER,
    "Kling-Image2Video-V1.6-Pro": ListPrice(
        unit="video",
        rates={(): Decimal("0.098")},
        source="estimate: the rates of the genblaze connector",
    ),
}
"""By the model's case-sensitive id. Prices of models that are not here are unknown."""


def list_price(request: VideoRequest) -> Decimal | None:
    """US dollars for one video by its list price; None if the model's price or a parameter's effect is unknown."""
    price = LIST_PRICES.get(model_of(request))
    values: dict[str, Any] = {**parameters_of(request), **request.extra}
    if price is None or not values.keys() <= {*_FREE_OF_CHARGE, *price.defaults, "duration"}:
        return None
    rate = price.rates.get(
        tuple(_normalize(name, values.get(name), default) for name, default in price.defaults.items())
    )
    seconds = _whole_seconds(values.get("duration", _DEFAULT_SECONDS))
    # For a duration of 0 the service takes its default, and does not make it free.
    if rate is None or not seconds:
        return None
    return rate if price.unit == "video" else rate * seconds


def _normalize(name: str, value: object, default: object) -> object:
    """The value in the form of the keys of `rates`; a text without a rate for any other value."""
    if value is None:
        return default
    if name == "sound" and isinstance(value, str | bool):
        return _SOUND.get(value, value)
    return value if isinstance(value, str) else repr(value)


def _whole_seconds(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None  # noqa: PLR2004 - no huge ints
