"""The Kling models: the parameters and rules of each, as data with its source.

Requests for a model that is not listed here are not checked: the service may have models that this release does not
know.

Source: the vendor's page of each model, named beside its entry. Where that page contradicts itself,
`docs/explanation/wire.md` gives the reasons for the choice made here.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import PurePath, PurePosixPath
from typing import Any, TypeGuard

import attrs

from kling_async._field_docs import describe_fields
from kling_async._urls import parse_url
from kling_async.lines import quote_value

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_IMAGE_DATA = re.compile(r"data:image/(png|jpe?g);base64,[A-Z0-9+/=\s]+\Z", re.IGNORECASE | re.ASCII)
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Me"})
"""The Unicode categories of controls, separators, and marks that need a letter to stand on."""
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and a symbol without ink: the fillers of Hangul, and the empty pattern of Braille."""
_NUMBERS = frozenset({"duration", "cfg_scale"})
_TEXTS = frozenset({"negative_prompt", "mode", "aspect_ratio", "resolution"})
PICTURES = ("image", "image_tail")
"""The fields of a request that hold a picture: a URL, a data URI or a local path, which is uploaded."""
_FIRST_PICTURE: Mapping[str, str] = {
    "kling-3.0-turbo-i2v": "first_frame",
    "kling-2.6-motion-control": "image_url",
    "kling-3-motion-control": "image_url",
}
"""By model, the key in the payload for `image`, where that is another word. They refuse a request without it.

Source: the pages of these models below docs.gmicloud.ai/model-quickstarts/video/.
"""
PICTURE_KEYS = frozenset({*PICTURES, *_FIRST_PICTURE.values()})
"""The keys under which any model of the family takes a picture."""
_FILE_OF_PICTURE = re.compile(r".+\.(png|jpe?g)\Z", re.IGNORECASE | re.DOTALL)
"""The name of a file. Base64 of a picture has no dot."""


@attrs.frozen(kw_only=True)
class Parameter:
    """The rules of one model for one parameter."""

    wire_name: str
    """The key in the payload."""
    required: bool = False
    """Whether the service refuses a request without it."""
    max_length: int | None = None
    """The longest text, in characters (Unicode code points)."""
    choices: Sequence[object] | None = None
    """The only allowed values."""
    minimum: float | None = None
    """The smallest allowed number."""
    maximum: float | None = None
    """The largest allowed number."""
    image_suffixes: Sequence[str] | None = None
    """The allowed suffixes of an image; None if the parameter is not an image."""


@attrs.frozen(kw_only=True)
class ModelRules:
    """The parameters of one model, by the names of the fields of `VideoRequest`."""

    parameters: Mapping[str, Parameter]
    source: str
    """The page that states the rules."""
    required: tuple[str, ...] = attrs.field(
        init=False, default=attrs.Factory(lambda self: _find_required(self.parameters), takes_self=True)
    )
    """The fields without which the service refuses a request."""


def _find_required(parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    return tuple(field for field, parameter in parameters.items() if parameter.required)


KLING_V2_6 = ModelRules(
    source="docs.gmicloud.ai/model-quickstarts/video/kling-v2-6",
    parameters={
        "prompt": Parameter(wire_name="prompt", required=True, max_length=2500),
        "sound": Parameter(wire_name="sound", choices=(True, False)),
        "image": Parameter(wire_name="image", image_suffixes=(".jpg", ".jpeg", ".png")),
        "duration": Parameter(wire_name="duration", choices=(5, 10)),
        "mode": Parameter(wire_name="mode", choices=("pro",)),
        "cfg_scale": Parameter(wire_name="cfg_scale", minimum=0.0, maximum=1.0),
    },
)

DEFAULT_MODEL = "kling-v2-6"
"""The model of a request for which neither the request nor the call names one.

It is part of the identity of paid items, as `wire_name` is: with another default model, the same call buys everything again.
"""
MODELS: Mapping[str, ModelRules] = {"kling-v2-6": KLING_V2_6}
"""The models with known rules, by their case-sensitive id."""


def wire_name(model: str, field: str) -> str:
    """The payload key under which a model takes a field of `VideoRequest`.

    The key is part of the identity of paid items: if it changes for a model, also because rules of the model are added, a
    later run with the same journal buys the model's finished items again. See `payload_of`.
    """
    rules = MODELS.get(model)
    parameter = rules.parameters.get(field) if rules else None
    if parameter is None and field == "image":
        return _FIRST_PICTURE.get(model, field)
    return parameter.wire_name if parameter else field


def broken_rules(model: str | None, values: Mapping[str, object]) -> list[str]:
    """The rules of the model that the values break, one sentence each.

    For a model that is not known here, only the rules of every model: the prompt is text, each value is JSON.

    Args:
        model: The model's id; None if it is not chosen yet.
        values: `VideoRequest`'s parameter fields by name; None is "not given".
    """
    rules = None if model is None else MODELS.get(model)
    if model is None or rules is None:
        return _check_unknown_model(values)
    broken = [f"{field} is required" for field in rules.required if values.get(field) is None]
    for field, value in values.items():
        parameter = rules.parameters.get(field)
        if value is None:
            continue
        if parameter is not None:
            broken += _check_value(field, value, parameter)
        else:
            broken.append(f"{model} takes no {field} (got {quote_value(value)}); leave it out")
    return broken


def advise_extra(model: str | None, values: Mapping[str, object]) -> str | None:
    """How to send, in Python, fields that the model does not take; None if it takes all of them."""
    rules = None if model is None else MODELS.get(model)
    if rules is None:
        return None
    pairs = [
        f"{field!r}: ..."
        for field, value in values.items()
        if value is not None and field not in rules.parameters
    ]
    return f"If the service takes it all the same, give extra={{{', '.join(pairs)}}}." if pairs else None


def _check_visible(field: str, value: str) -> list[str]:
    """Why a text shows nothing, in one sentence; empty if the text has a visible character, or is empty."""
    if not value or any(map(_is_visible, value)):
        return []
    return [f"{field} has no visible character (got {quote_value(value)})"]


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE and character not in _BLANKS


def check_text(field: str, value: object) -> list[str]:
    """Why a value is not valid text, in one sentence; empty if it is."""
    if not isinstance(value, str):
        return [f"{field} must be text, not {quote_value(value)}"]
    if (stray := _LONE_SURROGATE.search(value)) is not None:
        return [f"{field} is not valid Unicode: a lone surrogate at character {stray.start():,}"]
    return []


def check_model(model: object) -> list[str]:
    """Why a value is not the id of a model, in one sentence; empty if it can be one.

    The service has models that this release does not know, but none whose id differs from a known one in its case alone.
    """
    if isinstance(model, str) and model not in MODELS and model.lower() in MODELS:
        return [f"model must be {model.lower()!r} in this case of its letters, not {model!r}"]
    return check_text("model", model)


def check_json(field: str, value: object) -> list[str]:
    """Why a value cannot be sent as JSON, in one sentence; empty if it can."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return [f"{field} must hold plain JSON values: {error}"]
    return []


def check_local_pictures(extra: Mapping[Any, Any]) -> list[str]:
    """The pictures in `extra` that are files of this machine, one sentence each: they would be sent as the names of files.

    A list of pictures has them one level deeper.
    """
    lists = [value for value in extra.values() if isinstance(value, list | tuple)]
    mappings = [extra, *(item for items in lists for item in items if isinstance(item, Mapping))]
    return [
        f"{key} in extra is the file {quote_value(os.fspath(value))}, and extra is sent as it is: give the file as image, or "
        "the URL of its upload"
        for mapping in mappings
        for key, value in mapping.items()
        if key in PICTURE_KEYS and is_local_picture(value) and _FILE_OF_PICTURE.match(os.fspath(value))
    ]


def check_pictures_once(model: str, values: Mapping[str, object], extra: Mapping[Any, Any]) -> list[str]:
    """The pictures that a request has in a field and in `extra` under the model's key for the field, one sentence each.

    An earlier release sent such a picture under both keys, which is another item than the picture under one of them.
    """
    return [
        f"{key} in extra is the {field} of this model, which is given too: give the picture once. An item that a journal has with "
        f"both continues by its entry, as `kling-async resume` does, or with the URL as {field} and as {field} in extra"
        for field in PICTURES
        if values.get(field) is not None and (key := wire_name(model, field)) != field and key in extra
    ]


def _check_value(field: str, value: object, rule: Parameter) -> list[str]:
    if rule.image_suffixes is not None:
        return _check_image(field, value, rule.image_suffixes)
    if rule.choices is not None:
        # First the type: a comparison with an array, a column of a table or a signaling NaN raises.
        if any(type(value) is type(choice) and value == choice for choice in rule.choices):
            return []
        allowed = " or ".join(map(repr, rule.choices))
        return [f"{field} must be {allowed}, not {quote_value(value)}"]
    if rule.minimum is not None and rule.maximum is not None:
        return _check_number(field, value, rule.minimum, rule.maximum)
    return _check_text_by_rule(field, value, rule)


def _check_unknown_model(values: Mapping[str, object]) -> list[str]:
    """Check only the kind of each value; `extra` can hold another kind of value that a model takes."""
    broken: list[str] = []
    for field, value in values.items():
        if value is None and field != "prompt":
            continue
        if field == "prompt":
            broken += check_text(field, value) or _check_visible(field, str(value))
        elif field == "sound" and not isinstance(value, bool):
            broken.append(f"sound must be True or False, not {quote_value(value)}")
        elif field in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
            broken.append(f"{field} must be a number, not {quote_value(value)}")
        elif field in PICTURES and not isinstance(value, str | os.PathLike):
            broken.append(f"{field} must be a URL, a data URI or a path, not {quote_value(value)}")
        elif field in PICTURES:
            broken += _check_address(field, value)
        elif field in _TEXTS:
            broken += check_text(field, value)
        else:
            broken += check_json(field, value)
    return broken


def _check_address(field: str, value: object) -> list[str]:
    """Why the service cannot fetch a picture from its URL, in one sentence; empty if it can, and for any other picture."""
    if isinstance(value, os.PathLike):
        return []
    text = str(value)
    if check_text(field, text) or is_local_picture(text) or text[:5].lower() == "data:":
        return check_text(field, text)
    try:
        is_web = parse_url(text).is_web
    except ValueError:
        is_web = False
    return [] if is_web else [f"{field} must be an http or https URL with a host, not {quote_value(text)}"]


def _check_text_by_rule(field: str, value: object, rule: Parameter) -> list[str]:
    if not isinstance(value, str) or _LONE_SURROGATE.search(value):
        return check_text(field, value)
    if rule.required and not value.strip():
        return [f"{field} must not be empty (got {quote_value(value)})"]
    if rule.required and (blank := _check_visible(field, value)):
        return blank
    if rule.max_length is not None and len(value) > rule.max_length:
        return [f"{field} must be at most {rule.max_length:,} characters, not {len(value):,}"]
    return []


def _check_number(field: str, value: object, minimum: float, maximum: float) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [f"{field} must be a number from {minimum:g} to {maximum:g}, not {quote_value(value)}"]
    if not minimum <= value <= maximum:
        return [f"{field} must be from {minimum:g} to {maximum:g}, not {quote_value(value)}"]
    return []


def _check_image(field: str, value: object, suffixes: Sequence[str]) -> list[str]:
    """Check an image: a URL or a data URI is sent as it is, a local path is uploaded before the submit."""
    endings = ", ".join(suffixes)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        return [
            f"{field} must be a URL, a data URI or a path of a picture ({endings}), not {quote_value(value)}"
        ]
    if value[:5].lower() == "data:":
        ok = _IMAGE_DATA.match(value) is not None
        return [] if ok else [f"{field} must be a base64 data URI of a JPEG or PNG, not {quote_value(value)}"]
    if is_local_picture(value):
        ok = PurePath(value).suffix.lower() in suffixes
        return [] if ok else [f"{field} must be a file ending in {endings}, not {quote_value(value)}"]
    return _check_image_url(field, value, suffixes)


def _check_image_url(field: str, value: str, suffixes: Sequence[str]) -> list[str]:
    try:
        url = parse_url(value)
    except ValueError as error:
        return [f"{field} must be a URL, not {quote_value(value)} ({error})"]
    if not url.is_web:
        return [f"{field} must be an http or https URL with a host, not {quote_value(value)}"]
    if PurePosixPath(url.path).suffix.lower() not in suffixes:
        return [
            f"{field} must be the URL of a file ending in {', '.join(suffixes)}, not {quote_value(value)}"
        ]
    return []


def is_local_picture(picture: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a picture is a path on this machine, which is uploaded before the submit."""
    if isinstance(picture, os.PathLike):
        return True
    return isinstance(picture, str) and "://" not in picture and picture[:5].lower() != "data:"


@attrs.frozen(kw_only=True)
class ModelInfo:
    """The service's description of a model; every field but `id` may be missing."""

    id: str
    kind: str | None = None
    """Such as `video`."""
    parameters: tuple[Mapping[str, Any], ...] = attrs.field(default=(), hash=False)
    """Each parameter as the service describes it: `name`, `type`, `required`, `default_value`, `min`, `max`."""
    price: Decimal | None = None
    """US dollars per unit; the unit is in `raw["price_info"]["unit"]`. None if the service does not publish it."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The whole description as the service answered it."""


describe_fields(__name__)
