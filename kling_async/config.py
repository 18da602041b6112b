"""The settings of a client; the only module that reads the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from kling_async._secrets import Secret
from kling_async._transport.network import Network, Proxy, parse_proxy
from kling_async._urls import parse_url
from kling_async._wire.endpoints import DEFAULT_BASE_URL, queue_url
from kling_async.errors import ConfigurationError
from kling_async.lines import quote_value
from kling_async.paths import expand_home

__version__ = "0.1.0"

KEY_VARIABLES = ("GMI_API_KEY", "GMI_CLOUD_API_KEY", "GMI_CLOUD_APIKEY")
"""The variables that can hold the API key; the first that is set and not empty counts.

Source: the last one is the spelling of the vendor's npm package `@gmicloud/ai-sdk-provider` 0.1.1.
"""
_QUOTES = "\"'`"
_PLACEHOLDER = re.compile(r"\$\{.*\}|\$\(.*\)|\$\w+|%\w+%|\{\{.*\}\}|<.*>", re.ASCII)
"""A variable or a template that a shell, a container or a CI system has not filled, or the gap of an example."""
_MAX_TIMEOUT = 24 * 3600.0


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a client: from its arguments, or else from the environment."""

    api_key: Secret
    organization_id: str | None
    queue: str
    """The URL of the queue, such as `https://console.gmicloud.ai/api/v1/ie/requestqueue/apikey`."""
    timeout: float
    network: Network = attrs.field(factory=Network)
    transport_path: Literal["fast", "public"] = "fast"
    """Which transport the client opens: see `open_transport`."""
    trusts_network: bool = False
    """Whether the service is in a private network that the user trusts."""

    @property
    def allow_private(self) -> bool:
        """Whether the service may name URLs of this machine and of private networks."""
        return self.trusts_network or parse_url(self.queue).is_loopback


def read_settings(
    *,
    api_key: str | None,
    organization_id: str | None,
    base_url: str | None,
    timeout: float,
    proxy: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings, each from its argument or else from the environment.

    Raises:
        ConfigurationError: The key is missing, is not a key alone, or cannot be sent in a header, `base_url` is not the URL of a service or would send the key in plain http,
            the timeout is not a positive number of seconds, the proxy is not the URL of an HTTP proxy, or SSL_CERT_FILE
            names no file.
    """
    env = os.environ if environ is None else environ
    trusts_network = _trusts_network(env)
    organization = organization_id if organization_id is not None else env.get("GMI_ORG_ID") or None
    secret = Secret(_read_key(api_key, env))
    return Settings(
        api_key=secret,
        organization_id=_clean_header("organization_id", organization or "") or None,
        queue=_read_queue(
            base_url if base_url is not None else env.get("GMI_BASE_URL") or DEFAULT_BASE_URL,
            secret=secret,
            trusts_network=trusts_network,
        ),
        timeout=check_timeout(timeout),
        network=read_network(proxy, env),
        transport_path=_transport_path(env),
        trusts_network=trusts_network,
    )


def read_network(proxy: str | None, env: Mapping[str, str]) -> Network:
    """The proxies and certificates; see `KlingClient`.

    Raises:
        ConfigurationError: A proxy is not the URL of an HTTP proxy, or SSL_CERT_FILE names no file.
    """
    ca_file = expand_home(env.get("SSL_CERT_FILE") or None)
    if ca_file is not None and not Path(ca_file).is_file():
        raise ConfigurationError(f"SSL_CERT_FILE={ca_file!r} is not a file.")
    if proxy is not None:
        chosen = _parse_proxy("proxy", proxy) if proxy != "" else None
        return Network({"http": chosen, "https": chosen} if chosen else {}, ca_file=ca_file)
    proxies = {}
    for scheme in ("http", "https"):
        names = [name for name in _proxy_variables(scheme, env) if env.get(name)]
        if names:
            proxies[scheme] = _parse_proxy(names[0], env[names[0]])
    return Network(proxies, no_proxy=env.get("no_proxy") or env.get("NO_PROXY") or "", ca_file=ca_file)


def _proxy_variables(scheme: str, env: Mapping[str, str]) -> list[str]:
    """The variables that can hold the proxy for a scheme; lower case comes first, as in curl.

    In a CGI program the sender of the request sets HTTP_PROXY, with a header named `Proxy`.
    Source: CVE-2016-5386 and its kin, known as httpoxy.
    """
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    return [name for name in names if name != "HTTP_PROXY" or "REQUEST_METHOD" not in env]


def _parse_proxy(name: str, address: object) -> Proxy:
    """The proxy; errors never quote the address, because it may hold a password."""
    if not isinstance(address, str):
        raise ConfigurationError(f"{name} must be text, not {type(address).__name__}.")
    try:
        return parse_proxy(address.strip())
    except ValueError as error:
        raise ConfigurationError(
            f"{name} is not the URL of an HTTP proxy, such as http://proxy.example:3128 ({error}).",
            advice='KlingClient(proxy="") uses no proxy.',
        ) from None


def _transport_path(env: Mapping[str, str]) -> Literal["fast", "public"]:
    match env.get("KLING_ASYNC_TRANSPORT") or "fast":
        case "fast" | "public" as path:
            return path
        case other:
            raise ConfigurationError(
                f"KLING_ASYNC_TRANSPORT={quote_value(other)} is neither public nor fast."
            )


def _trusts_network(env: Mapping[str, str]) -> bool:
    given = env.get("KLING_ASYNC_TRUST_NETWORK") or "0"
    if given not in {"0", "1"}:
        raise ConfigurationError(f"KLING_ASYNC_TRUST_NETWORK={quote_value(given)} is neither 1 nor 0.")
    return given == "1"


def _read_queue(base_url: str, *, secret: Secret, trusts_network: bool) -> str:
    """The URL of the queue; a refusal shows `***` where the key was pasted into the base URL."""
    try:
        return _check_encrypted(queue_url(base_url), trusts_network=trusts_network)
    except ConfigurationError as error:
        if secret.hide_in(str(base_url)) == str(base_url):
            raise
        refusal = ConfigurationError(secret.hide_in(error.message), advice=error.advice)
    del base_url  # a traceback shows the variables of this frame
    raise refusal


def _check_encrypted(queue: str, *, trusts_network: bool) -> str:
    """The URL of the queue, if the key can be sent there: in plain http, every machine on the way reads the key."""
    url = parse_url(queue)
    if url.scheme == "http" and not (url.is_loopback or trusts_network):
        raise ConfigurationError(
            f"The base URL {queue.partition('/api/')[0]!r} would send the API key without encryption: write https://. If "
            "the service is in a private network that you trust, set KLING_ASYNC_TRUST_NETWORK=1."
        )
    return queue


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


def _read_key(given: object, env: Mapping[str, str]) -> str:
    """The API key: the argument, or else the first variable that is not blank."""
    candidates = (
        {"api_key": given} if given is not None else {name: env.get(name, "") for name in KEY_VARIABLES}
    )
    for name, value in candidates.items():
        key = _clean_header(name, value)
        if key:
            _check_key(name, key)
            return key
    raise ConfigurationError(
        "No API key: pass KlingClient(api_key=...) or set the environment variable GMI_API_KEY "
        f"(or {' or '.join(KEY_VARIABLES[1:])}).",
        missing="api_key",
    )


def _check_key(name: str, key: str) -> None:
    """Refuse a text that is not a key alone; the error never quotes the text, because it may hold the key."""
    if key.lower().startswith("bearer "):
        reason = "begins with 'Bearer ': give the key alone"
    elif _PLACEHOLDER.fullmatch(key):
        reason = "is a placeholder such as ${GMI_API_KEY}, which nothing has replaced: give the key itself"
    elif key.startswith(tuple(f"{variable}=" for variable in KEY_VARIABLES)):
        reason = "begins with the name of a variable: give the part after the '='"
    elif any(character.isspace() or character in _QUOTES for character in key):
        reason = "has white space or a quote within it: copy the key again from the console"
    else:
        return
    raise ConfigurationError(f"{name} {reason}.")


def _number_or_zero(value: object) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _clean_header(name: str, value: object) -> str:
    """The value without outer white space and one pair of quotes; errors never quote it, because it may be a secret."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be text, not {type(value).__name__}.")
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        text = text[1:-1].strip()
    if not text.isascii() or not text.isprintable():
        raise ConfigurationError(
            f"{name} holds characters that no HTTP header can carry; copy it again from the console."
        )
    return text
