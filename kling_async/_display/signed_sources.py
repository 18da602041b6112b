"""Signed URLs of stored videos, for a page that its user asked for; no other place holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kling_async._display.page import NOTHING_SIGNED
from kling_async._stores import check_signed_for, sign_urls
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl
from kling_async.results import Result


def sign_sources(items: Iterable[Result | Job], signed_for: float | None) -> Mapping[str, str]:
    """The signed URL of each item's object, by the object's own URL; empty for None.

    Raises:
        ConfigurationError: See `sign_urls`.
    """
    if signed_for is None:
        return NOTHING_SIGNED
    check_signed_for(signed_for)
    paths = [item.path for item in items if isinstance(item, Result)]
    return sign_urls((path for path in paths if isinstance(path, ObjectUrl)), seconds=signed_for)
