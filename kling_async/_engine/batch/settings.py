"""How a batch is to be run, as the caller said it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import attrs

from kling_async._journal.location import DatabaseUrl, journal_location
from kling_async._policy.budget import Prices
from kling_async._policy.validators import check_choice, check_flag
from kling_async.errors import ConfigurationError
from kling_async.events import Listener
from kling_async.lines import quote_value
from kling_async.paths import ObjectUrl, output_path
from kling_async.requests import VideoOptions
from kling_async.types import OnAmbiguous, Progress


def _read_output(value: Any) -> Path | ObjectUrl | None:
    if value is None:
        return None
    place = output_path(value, name="output")
    return place if isinstance(place, ObjectUrl) else Path(place)


def _read_journal(value: Any) -> str | DatabaseUrl | None:
    return None if value is None else journal_location(value, name="journal")


@attrs.frozen(kw_only=True)
class BatchSettings:
    """How a batch is to be run, as the caller said it.

    Raises:
        ConfigurationError: One of them makes no sense.
    """

    max_concurrency: int = 20
    """How many jobs can be in flight at the service."""
    output: Path | ObjectUrl | None = attrs.field(default=None, converter=_read_output)
    """The folder in which videos are saved, or the prefix below which they are stored."""
    ascii_names: bool = False
    """Whether file names have ASCII letters and digits only."""
    direct_upload: bool = False
    """Whether videos go to an object store without a file on this machine."""
    journal: str | DatabaseUrl | None = attrs.field(default=None, converter=_read_journal)
    """The journal, from which a later run resumes."""
    max_cost_usd: Any = None
    prices: Prices | None = None
    on_ambiguous: OnAmbiguous = "report"
    retry_failed: bool = False
    skip_invalid: bool = False
    allow_suspicious: bool = False
    keep_labels: bool = False

    def __attrs_post_init__(self) -> None:
        for flag in _FLAGS:
            check_flag(flag, getattr(self, flag))
        most = self.max_concurrency
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise ConfigurationError(
                f"max_concurrency must be a whole number of at least 1, not {quote_value(most)}."
            )
        if self.direct_upload and not isinstance(self.output, ObjectUrl):
            raise ConfigurationError(
                "A direct upload needs the URL of an object store.",
                advice="Give output='s3://bucket/prefix', or leave out direct_upload=True.",
            )
        check_choice("on_ambiguous", self.on_ambiguous, get_args(OnAmbiguous))


_FLAGS = tuple(field.name for field in attrs.fields(BatchSettings) if isinstance(field.default, bool))


@attrs.frozen
class SplitOptions:
    """The options of a call that runs a batch, by what they are for."""

    video: Mapping[str, Any]
    """Those that fill the fields that the requests leave open."""
    settings: BatchSettings
    progress: Progress
    on_event: Listener | None


def split_options(options: Mapping[str, Any]) -> SplitOptions:
    """The options of a batch, by what they are for.

    Args:
        options: See `BatchOptions`.

    Raises:
        ConfigurationError: One of them makes no sense.
    """
    left = {**options}
    video = {name: left.pop(name) for name in VideoOptions.__annotations__ if name in left}
    progress, on_event = left.pop("progress", "auto"), left.pop("on_event", None)
    return SplitOptions(video, BatchSettings(**left), progress, on_event)
