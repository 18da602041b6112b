"""The rules of a model, and the errors of the service for a payload that breaks them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs

ParameterType = Literal["string", "enum", "float", "image", "video"]


@attrs.frozen(kw_only=True)
class Parameter:
    """One key of a model's payload."""

    name: str
    type: ParameterType = "string"
    is_required: bool = False
    default: str | float = ""
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    """The upper bound of a number, or the most characters of a text."""

    def find_error(self, value: Any) -> str | None:
        """The error of the service for an invalid value, or None.

        The service does not tell a number from its decimal text: 5 is as valid as "5".
        """
        reason = self._find_reason(value)
        return reason and f"{self.name} {reason} (code: InvalidParameter)"

    def _find_reason(self, value: Any) -> str | None:
        if self.type == "enum":
            allowed = (
                isinstance(value, str | int) and not isinstance(value, bool) and str(value) in self.options
            )
            return None if allowed else f"must be one of {', '.join(self.options)}"
        if self.type == "float":
            return None if self._is_in_range(value) else f"must be in [{self.minimum:g},{self.maximum:g}]"
        if not isinstance(value, str):
            return "must be a string"
        if self.type in {"image", "video"}:
            return None if value.startswith(("https://", "http://", "data:")) else "must be a URL"
        too_long = self.maximum is not None and len(value) > self.maximum
        return f"must not exceed {self.maximum:g} characters" if too_long else None

    def _is_in_range(self, value: Any) -> bool:
        assert self.minimum is not None
        assert self.maximum is not None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            return False
        return self.minimum <= number <= self.maximum

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
    price_microdollars: int | None = None
    """None if no price is published."""
    price_unit: Literal["second", "request"] = "second"
    price_note: str = ""

    def missing_keys(self, payload: Mapping[str, Any]) -> list[str]:
        """Names of required keys that are absent or empty."""
        return [
            parameter.name
            for parameter in self.parameters
            if parameter.is_required and payload.get(parameter.name) in (None, "", [])
        ]

    def find_error(self, payload: Mapping[str, Any]) -> str | None:
        """The error of the first invalid value, or None. The service ignores unknown keys."""
        errors = (
            parameter.find_error(payload[parameter.name])
            for parameter in self.parameters
            if payload.get(parameter.name) is not None
        )
        return next((error for error in errors if error), None)

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
                "output": [{"type": "video", "required": True}],
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
