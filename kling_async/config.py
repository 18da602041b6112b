"""The settings of a client; the only module that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import attrs

from kling_async._wire.endpoints import DEFAULT_BASE_URL, queue_url
from kling_async.catalog import quote_value
from kling_async.errors import ConfigurationError

__version__ = "0.1.0"

KEY_VARIABLES = ("GMI_API_KEY", "GMI_CLOUD_API_KEY", "GMI_CLOUD_APIKEY")
"""The variables that can hold the API key; the first that is set and not empty counts.

Source: the last one is the spelling of the vendor's npm package `@gmicloud/ai-sdk-provider` 0.1.1.
"""
_MAX_TIMEOUT = 24 * 3600.0


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a client: from its arguments, or else from the environment."""

    api_key: str = attrs.field(repr=False)
    organization_id: str | None
    queue: str
    """The URL of the queue, such as `https://console.gmicloud.ai/api/v1/ie/requestqueue/apikey`."""
    timeout: float


def read_settings(
    *,
    api_key: str | None,
    organization_id: str | None,
    base_url: str | None,
    timeout: float,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings, each from its argument or else from the environment.

    Raises:
        ConfigurationError: The key is missing or cannot be sent in a header, `base_url` is not the URL of a service,
            or the timeout is not a positive number of seconds.
    """
    env = os.environ if environ is None else environ
    key = api_key if api_key is not None else _first_set(env, KEY_VARIABLES)
    if key is None or (isinstance(key, str) and not key.strip()):
        raise ConfigurationError(
            "No API key: pass KlingClient(api_key=...) or set the environment variable GMI_API_KEY "
            f"(or {' or '.join(KEY_VARIABLES[1:])}).",
            missing="api_key",
        )
    organization = organization_id if organization_id is not None else env.get("GMI_ORG_ID") or None
    return Settings(
        api_key=_clean_header("api_key", key),
        organization_id=_clean_header("organization_id", organization or "") or None,
        queue=queue_url(base_url if base_url is not None else env.get("GMI_BASE_URL") or DEFAULT_BASE_URL),
        timeout=check_timeout(timeout),
    )


def check_timeout(timeout: float) -> float:
    """The seconds that one HTTP request can take.

    Raises:
        ConfigurationError: It is no positive number of seconds.
    """
    if not 0 < _number_or_zero(timeout) <= _MAX_TIMEOUT:
        raise ConfigurationError(
            f"timeout={quote_value(timeout)} is not a positive number of seconds for one HTTP request; "
            "how long to wait for a job is PollingPolicy(wait_timeout=...)."
        )
    return float(timeout)


def _first_set(env: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((env[name] for name in names if env.get(name)), None)


def _number_or_zero(value: object) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _clean_header(name: str, value: object) -> str:
    """The value without outer white space; errors never quote it, because it may be a secret."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be text, not {type(value).__name__}.")
    text = value.strip()
    if not text.isascii() or not text.isprintable():
        raise ConfigurationError(
            f"{name} holds characters that no HTTP header can carry; copy it again from the console."
        )
    return text
