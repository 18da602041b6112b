"""The rules of a model, and the errors of the service for a payload that breaks them."""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from kling_async.emulator.settings import OutcomeKeys

ParameterType = Literal["string", "enum", "float", "boolean", "image", "video", "list", "images", "shots"]
"""`images` is a list of pictures, `shots` a list of the shots of one video, and `list` a list of anything."""


@attrs.frozen(kw_only=True)
class Parameter:
    """One key of a model's payload."""

    name: str
    type: ParameterType = "string"
    is_required: bool = False
    unless: tuple[str, ...] = ()
    """Other keys that together make this one needless, as `key` or as `key=value`."""
    default: str | float = ""
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    """The upper bound of a number, the most characters of a text, or the most entries of a list."""

    def find_error(self, value: Any) -> str | None:
        """The error of the service for an invalid value, or None.

        The service does not tell a number from its decimal text: 5 is as valid as "5".
        """
        reason = self._find_reason(value)
        return reason and f"{self.name} {reason} (code: InvalidParameter)"

    def _find_reason(self, value: Any) -> str | None:
        match self.type:
            case "enum":
                is_valid, reason = self._is_option(value), f"must be one of {', '.join(self.options)}"
            case "float":
                is_valid, reason = self._is_in_range(value), f"must be in [{self.minimum:g},{self.maximum:g}]"
            case "boolean":
                is_valid, reason = value in (True, False, "true", "false"), "must be true or false"
            case "image":
                is_valid, reason = _is_picture(value), "must be a URL or Base64"
            case "video":
                is_valid, reason = _is_url(value), "must be a URL"
            case "list" | "images" | "shots":
                return self._find_list_reason(value)
            case _:
                return self._find_text_reason(value)
        return None if is_valid else reason

    def _find_text_reason(self, value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        too_long = self.maximum is not None and len(value) > self.maximum
        return f"must not exceed {self.maximum:g} characters" if too_long else None

    def _find_list_reason(self, value: Any) -> str | None:
        if not isinstance(value, list):
            return "must be a list"
        if self.maximum is not None and not 1 <= len(value) <= self.maximum:
            return f"must have 1 to {self.maximum:g} entries"
        if self.type == "images" and not all(map(_is_picture, value)):
            return "must be URLs or Base64"
        if self.type == "shots" and not all(map(_is_shot, value)):
            return "must have a prompt and a duration of 1 second or more in each entry"
        return None

    def _is_option(self, value: Any) -> bool:
        return isinstance(value, str | int) and not isinstance(value, bool) and str(value) in self.options

    def _is_in_range(self, value: Any) -> bool:
        assert self.minimum is not None
        assert self.maximum is not None
        return self.minimum <= _to_number(value) <= self.maximum

    def describe(self) -> dict[str, Any]:
        """The parameter as in the reply to `GET /models/{id}`."""
        description: dict[str, Any] = {
            "name": self.name,
            "display_name": self.name.replace("_", " ").title(),
            "description": "",
            "type": self.type,
            "required": self.is_required,
            "default_value": self.default,
        }
        optional = {"min": self.minimum, "max": self.maximum, "options": list(self.options) or None}
        return description | {key: value for key, value in optional.items() if value is not None}


@attrs.frozen(kw_only=True)
class Model:
    """One Kling model. Ids are case-sensitive."""

    id: str
    parameters: tuple[Parameter, ...]
    makes: Literal["video", "element"] = "video"
    """An element is a character or an object that prompts of other models can name."""
    outcome: OutcomeKeys = "both"
    """Where a finished job has its video if the settings do not say."""
    price_microdollars: int | None = None
    """None if no price is published."""
    price_unit: Literal["second", "request"] = "second"
    price_note: str = ""

    def missing_keys(self, payload: Mapping[str, Any]) -> list[str]:
        """Names of required keys that are absent or empty."""

        def is_given(condition: str) -> bool:
            name, _, value = condition.partition("=")
            given = payload.get(name)
            return given == value if value else given not in (None, "", [], False)

        return [
            parameter.name
            for parameter in self.parameters
            if parameter.is_required
            and not is_given(parameter.name)
            and not (parameter.unless and all(map(is_given, parameter.unless)))
        ]

    def find_error(self, payload: Mapping[str, Any]) -> str | None:
        """The error of the first invalid value, or None. The service ignores unknown keys."""
        given = [one for one in self.parameters if payload.get(one.name) is not None]
        errors = (parameter.find_error(payload[parameter.name]) for parameter in given)
        if error := next((error for error in errors if error), None):
            return error
        return next((_find_sum_error(one.name, payload) for one in given if one.type == "shots"), None)

    def describe(self) -> dict[str, Any]:
        """The model as in the reply to `GET /models/{id}`, with `price_info` only if a price is published."""
        inputs = {
            parameter.type: parameter.is_required
            for parameter in self.parameters
            if parameter.type in _MODALITY
        }
        description: dict[str, Any] = {
            "model": self.id,
            "status": "active",
            "model_type": "video",
            "delivery_mode": "async",
            "brief_description": f"{self.id} (emulated)",
            "tags": ["video", "kling"],
            "modalities": {
                "input": [{"type": _MODALITY[kind], "required": needed} for kind, needed in inputs.items()],
                "output": [{"type": "video" if self.makes == "video" else "text", "required": True}],
            },
            "parameters": [parameter.describe() for parameter in self.parameters],
            "pricing_details": self.price_note,
            "host_type": "external",
            "external_provider": "kling",
        }
        if self.price_microdollars is not None:
            description["price_info"] = {
                "price": self.price_microdollars,
                "pricing_type": f"per_{self.price_unit}",
                "unit": self.price_unit,
            }
        return description


_MODALITY = {"string": "text", "image": "image", "video": "video"}


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://", "data:"))


def _is_picture(value: Any) -> bool:
    """True for a URL, a data URI, and Base64 without the prefix of a data URI. The emulator does not decode pictures."""
    if not isinstance(value, str) or _is_url(value):
        return isinstance(value, str)
    try:
        return bool(b64decode("".join(value.split()), validate=True))
    except ValueError:
        return False


def _is_shot(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("prompt"), str)
        and bool(value["prompt"])
        and 1 <= _to_number(value.get("duration")) < math.inf
    )


def _find_sum_error(name: str, payload: Mapping[str, Any]) -> str | None:
    """The error of shots whose durations do not add up to the duration of the video."""
    duration = payload.get("duration")
    seconds = sum(_to_number(shot["duration"]) for shot in payload[name])
    if duration is None or seconds == _to_number(duration):
        return None
    return f"the durations in {name} must add up to {duration} (code: InvalidParameter)"


def _to_number(value: Any) -> float:
    """A number, or the number of a decimal text; NaN for all other values."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
