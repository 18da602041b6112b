"""Reads the value that names a journal: a file on this machine, or the URL of a PostgreSQL database."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

import attrs

from kling_async._secrets import Secret
from kling_async.errors import ConfigurationError
from kling_async.paths import is_database_url, local_path

_CONNECTION_STRING = re.compile(r"^\s*(?:host|hostaddr|dbname|service)\s*=|\bpassword\s*=")
"""The beginning of a connection string as libpq reads it, or a password in it. Source: libpq, keyword/value strings."""

_SHOWN_OPTIONS = frozenset(
    {
        "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname", "gssencmode", "host", "hostaddr",
        "load_balance_hosts", "options", "passfile", "port", "require_auth", "requirepeer", "service", "sslcert", "sslcrl",
        "sslkey", "sslmode", "sslnegotiation", "sslrootcert", "target_session_attrs", "user",
    }
)  # fmt: skip
"""The options of a URL that hold no secret. Some decide which journal it is: `options` can name a schema.

Source: libpq, parameter key words.
"""

_OTHER_URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.:-]+):/")
"""The beginning of a URL, such as that of SQLAlchemy or JDBC, which can hold a password."""


@attrs.frozen
class DatabaseUrl:
    """The URL of a database. Its repr and its text do not show the password."""

    secret: Secret
    """The URL as the driver takes it."""
    name: str
    """The URL without its password: it names the same journal, in a message and in a command."""

    def __str__(self) -> str:
        return self.name


class JournalReference:
    """An object that names a journal, as a path of a file does."""

    location: str | DatabaseUrl
    """The file, or the database."""


def journal_location(given: Any, *, name: str) -> str | DatabaseUrl:
    """The place of a journal: a path with `~` expanded, or a database.

    Args:
        given: What the caller gave.
        name: The argument, for the error.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(given, DatabaseUrl):
        return given
    if isinstance(given, JournalReference):
        return given.location
    if isinstance(given, str) and is_database_url(text := given.strip()):
        return DatabaseUrl(Secret(text), _without_secrets(text))
    if isinstance(given, str) and (url := _OTHER_URL.match(given)):
        raise ConfigurationError(
            f"{name}='{url[1]}://…' is neither the path of a file on this machine nor the URL of a PostgreSQL database, such "
            "as 'postgresql://user@host/database'."
        )
    if isinstance(given, PurePath) and is_database_url(str(given).replace(":/", "://", 1)):
        raise ConfigurationError(
            f"{name} is the URL of a database in a Path, which takes one of its slashes: give the URL as text."
        )
    path = local_path(given, name=name)
    if _CONNECTION_STRING.search(path):
        raise ConfigurationError(
            f"{name} is the connection string of a database, which would be the name of a file: give the URL, such as "
            "'postgresql://user@host/database'."
        )
    return path


def _without_secrets(url: str) -> str:
    """The URL without its password; without all but the scheme where it is not sure what is what."""
    scheme, _, rest = url.partition("://")
    place, _, options = rest.partition("?")
    if "@" in options and "@" not in place:  # a password with a question mark, or an option
        return f"{scheme}://***"
    login, at, host = place.rpartition("@")
    user = login.partition(":")[0].partition("@")[0]
    return f"{scheme}://{user}{at}{host}{_without_secret_options(options)}"


def _without_secret_options(options: str) -> str:
    """The question mark and the options that hold no secret; none where an option could be the end of a password."""
    if "@" in options:
        return ""
    shown = [option for option in options.split("&") if option.partition("=")[0] in _SHOWN_OPTIONS]
    return "?" + "&".join(shown) if shown else ""


def require_driver(url: DatabaseUrl) -> None:
    """Do nothing if the driver of the database is installed.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        import psycopg  # noqa: F401 - it also needs a library of the system, or its own
    except ImportError as error:
        raise ConfigurationError(
            f'The journal {url.name!r} needs psycopg: python -m pip install ".[postgres]" in a checkout.'
        ) from error
