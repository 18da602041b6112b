"""What users send and get: frozen values, decoded once and never changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, overload

import attrs

from kling_async import catalog
from kling_async.errors import InvalidRequestError, KlingError

if TYPE_CHECKING:
    from kling_async._display.history import History

_SOUND_WORDS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def _as_sound(value: bool | str | None) -> Any:  # noqa: FBT001 - a converter
    """The vendor's page writes on/off in one place and yes/no in another; a file has only text."""
    return _SOUND_WORDS.get(value.strip().lower(), value) if isinstance(value, str) else value


def _as_seconds(value: float | str | None) -> Any:
    """Whole seconds, also when they came as the text that the service wants or as a float."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:  # noqa: PLR2004 - no huge ints
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_number(value: float | str | None) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _as_dict(value: object) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class VideoOptions(TypedDict, total=False):
    """The fields of `VideoRequest` that a call may give once for all its prompts."""

    model: str
    image: str | os.PathLike[str] | None
    image_tail: str | os.PathLike[str] | None
    negative_prompt: str | None
    sound: bool | None
    duration: int | None
    mode: str | None
    cfg_scale: float | None
    aspect_ratio: str | None
    resolution: str | None
    extra: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class VideoRequest:
    """One video to make. Fields left `None` are not sent: the service's own defaults apply.

    Raises:
        InvalidRequestError: The values break rules of a model that the catalogue knows; all of them are listed.
    """

    prompt: str = attrs.field(kw_only=False)
    """What the video shows; for kling-v2-6 at most 2,500 characters."""
    model: str = "kling-v2-6"
    """The model's id, case-sensitive."""
    image: str | os.PathLike[str] | None = None
    """The first picture: a URL, a data URI, or a local path (uploaded before the submit)."""
    image_tail: str | os.PathLike[str] | None = None
    """The last picture, for models that take one; the same forms as `image`."""
    negative_prompt: str | None = None
    """What the video must not show, for models that take it."""
    sound: bool | None = attrs.field(default=None, converter=_as_sound)
    """Whether the video has sound; sent as the word the model wants. The words on/off and yes/no are read too."""
    duration: int | None = attrs.field(default=None, converter=_as_seconds)
    """Seconds of video; sent as the text the service wants."""
    mode: str | None = None
    """The quality mode; kling-v2-6 knows only `pro`."""
    cfg_scale: float | None = attrs.field(default=None, converter=_as_number)
    """How closely the video follows the prompt, from 0 (freely) to 1."""
    aspect_ratio: str | None = None
    """Such as `16:9`, for models that take it."""
    resolution: str | None = None
    """Such as `1080p`, for models that take it."""
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=_as_dict, hash=False)
    """Further payload keys, sent as they are; they win over every field above."""
    key: str | None = None
    """Your own name for this item, by which a later run recognises it; never sent."""

    def __attrs_post_init__(self) -> None:
        broken = self._broken_shape()
        if isinstance(self.model, str):
            broken += catalog.broken_rules(self.model, parameters_of(self))
        if broken:
            raise InvalidRequestError(f"{self.model}: {'; '.join(broken)}.")

    def _broken_shape(self) -> list[str]:
        """What is wrong with the fields that are no parameters of a model."""
        broken = catalog.text_faults("model", self.model)
        if self.extra != {}:
            broken += self._broken_extra()
        if self.key is not None:
            broken += catalog.text_faults("key", self.key)
        return broken

    def _broken_extra(self) -> list[str]:
        if not isinstance(self.extra, dict) or not all(isinstance(key, str) for key in self.extra):
            return [f"extra must be a mapping with text keys, not {catalog.shown(self.extra)}"]
        return catalog.json_faults("extra", self.extra)


_PARAMETERS = tuple(
    field.name for field in attrs.fields(VideoRequest) if field.name not in {"model", "extra", "key"}
)
_read_parameters = attrgetter(*_PARAMETERS)
_FIELDS = frozenset(field.name for field in attrs.fields(VideoRequest))
_OPTIONS = frozenset(VideoOptions.__annotations__)


def parameters_of(request: VideoRequest) -> dict[str, Any]:
    """The request's model parameters by field name, without those that were not given."""
    values = zip(_PARAMETERS, _read_parameters(request), strict=True)
    return {name: value for name, value in values if value is not None}


def check_options(options: Mapping[str, Any], *, call: str) -> None:
    """Refuse an option that no request has, as Python refuses an unknown argument.

    Raises:
        TypeError: An option is not a field of `VideoOptions`.
    """
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(
                f"{call}() got an unexpected option {name!r}; the options are {', '.join(sorted(_OPTIONS))}"
            )


def request_from(item: VideoRequest | str | Mapping[str, Any], options: Mapping[str, Any]) -> VideoRequest:
    """The request that an item stands for; the options fill what it leaves open and overwrite nothing.

    Args:
        item: A prompt, a request, or a mapping of `VideoRequest`'s fields.
        options: Checked by `check_options`.

    Raises:
        InvalidRequestError: The item is of another kind, has an unknown field, or breaks the model's rules.
    """
    if isinstance(item, str):
        return VideoRequest(item, **options)
    if isinstance(item, VideoRequest):
        return _fill(item, options) if options else item
    if not isinstance(item, Mapping):
        raise InvalidRequestError(
            f"A request is a prompt, a VideoRequest or a mapping of its fields, not {catalog.shown(item)}."
        )
    fields = {name: value for name, value in item.items() if value is not None}
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise InvalidRequestError(
            f"A request has no field {', '.join(map(repr, unknown))}; "
            f"put parameters that are not among {', '.join(sorted(_FIELDS))} into 'extra'."
        )
    if "prompt" not in fields:
        raise InvalidRequestError(f"A request needs a prompt; {catalog.shown(dict(item))} has none.")
    return VideoRequest(**{**options, **fields, **_merged_extra(options, fields)})


def _fill(request: VideoRequest, options: Mapping[str, Any]) -> VideoRequest:
    open_fields = {
        name: value
        for name, value in options.items()
        if name not in {"model", "extra"} and getattr(request, name) is None
    }
    extra = _merged_extra(options, {"extra": request.extra})
    return attrs.evolve(request, **open_fields, **extra) if open_fields or "extra" in options else request


def _merged_extra(options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `extra` are filled one by one, so that an item may add to what all share."""
    shared, own = options.get("extra") or {}, fields.get("extra") or {}
    if isinstance(shared, Mapping) and isinstance(own, Mapping):
        return {"extra": {**shared, **own}}
    return {"extra": own}


class JobStatus(StrEnum):
    """Where a job stands, in the service's own words.

    Source: the vendor's video API reference and the official SDK's enum; `UNKNOWN` is ours, for a word not
    known yet. It is not final, and the word itself stays in `Job.raw["status"]`.
    """

    CREATED = "created"
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self in _FINAL


# Tuples, for the hash of an Enum is computed in Python, and every record passes here.
_UNHAPPY = (JobStatus.FAILED, JobStatus.CANCELLED)
_FINAL = (JobStatus.SUCCESS, *_UNHAPPY)


@attrs.frozen
class Media:
    """One finished file at the service."""

    url: str
    """Where it can be fetched, without credentials."""
    id: str | None = None
    """The service's name for it within the job."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What a job left behind."""

    media: tuple[Media, ...] = ()
    """The finished files, the video first; empty for a job that failed."""
    thumbnail_url: str | None = None
    """A picture of the video; some models answer the video's own URL here."""
    error: str | None = None
    """The service's reason, where the job failed, in one line."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The outcome as it was answered."""


@attrs.frozen(kw_only=True)
class Job:
    """One record of the service's queue, as it was when it was asked for."""

    request_id: str
    """The service's id of the job."""
    status: JobStatus
    """Where it stands."""
    model: str | None = None
    """The model's id as the service echoes it; not always the one that was sent."""
    payload: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The parameters as the service echoes them; it may be empty."""
    outcome: Outcome | None = None
    """None until the job is final."""
    created_at: datetime | None = None
    """When the service took the job, aware, in UTC."""
    queued_at: datetime | None = None
    """When the job entered the queue, aware, in UTC."""
    updated_at: datetime | None = None
    """When the record last changed, aware, in UTC; for a final job, its end."""
    organization_id: str | None = attrs.field(default=None, repr=False)
    """The organization that is charged."""
    user_id: str | None = attrs.field(default=None, repr=False)
    """Who submitted it."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The whole record as it was answered, unknown keys included."""

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self.status.is_final

    @property
    def is_success(self) -> bool:
        """Whether the video is finished."""
        return self.status is JobStatus.SUCCESS

    @property
    def video_url(self) -> str | None:
        """Where the finished video can be fetched, without credentials; None until there is one."""
        return self.outcome.media[0].url if self.outcome and self.outcome.media else None

    @property
    def thumbnail_url(self) -> str | None:
        """Where the picture of the video can be fetched; None until there is one."""
        return self.outcome.thumbnail_url if self.outcome else None

    @property
    def failure_reason(self) -> str | None:
        """The service's own words for a job that failed or was cancelled; None where it gave none, or did neither."""
        return self.outcome.error if self.outcome and self.status in _UNHAPPY else None

    def _repr_html_(self) -> str:
        from kling_async.notebook import html_of

        return html_of(self)


@attrs.frozen(kw_only=True)
class ModelInfo:
    """What the service says about one model; every field but `id` may be missing."""

    id: str
    kind: str | None = None
    """Such as `video`."""
    parameters: tuple[Mapping[str, Any], ...] = attrs.field(default=(), hash=False)
    """Each parameter as the service describes it: `name`, `type`, `required`, `default_value`, `min`, `max`."""
    price: Decimal | None = None
    """US dollars per unit; the unit is in `raw["price_info"]["unit"]`. None where it is not published."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The whole description as it was answered."""


class ResultState(StrEnum):
    """How one item of a batch ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    """The wait ended by its deadline; the job may still be running."""
    AMBIGUOUS = "ambiguous"
    """Sent, and its fate is unknown; it may be running and charged."""
    NOT_SUBMITTED = "not_submitted"
    """Never accepted by the service, so never charged."""


@attrs.frozen(kw_only=True)
class Result:
    """How one item of a batch ended."""

    index: int
    """The item's place in the input, from 0."""
    request: VideoRequest | None
    """What was asked for; None for an item that could not be read as a request."""
    state: ResultState
    job: Job | None = None
    """The last known record; None where the service never gave one."""
    error: KlingError | None = None
    """Why it did not succeed; on a success, why its file could not be saved."""
    path: Path | None = None
    """Where the video was saved."""
    cost_usd: Decimal | None = None
    """What it cost, where a price is known; None is unknown, not free."""

    @property
    def ok(self) -> bool:
        """Whether the video was made; it may still have to be downloaded (see `error`)."""
        return self.state is ResultState.SUCCEEDED

    def unwrap(self) -> Job:
        """The finished job.

        Raises:
            KlingError: The error that this result holds, for a result that is not `ok`.
        """
        if self.ok and self.job is not None:
            return self.job
        raise self.error or KlingError(f"Item {self.index} has no job: {self.state}.")

    def _repr_html_(self) -> str:
        from kling_async.notebook import html_of

        return html_of(self)


@attrs.frozen
class BatchResult(Sequence[Result]):
    """All results of a batch, in input order."""

    results: tuple[Result, ...]
    history: History | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    """When each item was queued, running and saved, for pages that show it; None in one that was put together by hand."""

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __repr__(self) -> str:
        return f"<BatchResult: {len(self.succeeded)} of {len(self)} succeeded>"

    def _repr_html_(self) -> str:
        from kling_async.notebook import html_of

        return html_of(self)

    @property
    def succeeded(self) -> tuple[Result, ...]:
        """The results whose video was made."""
        return tuple(result for result in self.results if result.ok)

    @property
    def failed(self) -> tuple[Result, ...]:
        """All other results, whatever their state."""
        return tuple(result for result in self.results if not result.ok)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The saved files, in input order; results without a file are left out."""
        return tuple(result.path for result in self.results if result.path is not None)

    @property
    def cost_usd(self) -> Decimal | None:
        """The sum of the known costs; None where no cost is known."""
        known = [result.cost_usd for result in self.results if result.cost_usd is not None]
        return sum(known, Decimal(0)) if known else None

    def raise_for_failures(self) -> None:
        """Do nothing if every video was made.

        Raises:
            ExceptionGroup: The error of every failed result, in input order.
        """
        errors = [
            result.error or KlingError(f"Item {result.index}: {result.state}.") for result in self.failed
        ]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(self)} videos were not made", errors)

    def write_report(self, path: str | os.PathLike[str]) -> Path:
        """The path of one HTML page about this batch: its videos, its figures, and a time line of every job.

        The page needs no server and loads nothing but the videos, which it names relative to itself.

        Args:
            path: The file, best beside the videos; its folder is made if it is missing.

        Raises:
            KlingError: It cannot be written there; what was there before is left as it was.
        """
        from kling_async.report import write_report

        return write_report(self, path)
