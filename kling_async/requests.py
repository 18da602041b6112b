"""Requests: the videos that a user wants, checked against the catalogue as soon as their model is known."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Required, TypeAlias, TypedDict

import attrs

from kling_async import catalog
from kling_async._calls import check_keywords
from kling_async._cells import (
    to_bool,
    to_json_value,
    to_name,
    to_number,
    to_option,
    to_plain,
    to_seconds,
    to_word,
)
from kling_async._field_docs import describe_fields
from kling_async.errors import InvalidRequestError
from kling_async.lines import quote_value
from kling_async.paths import expand_home


def read_mapping(value: object) -> Any:
    """The mapping, also from its text in JSON, with plain Python values; empty if nothing was given."""
    if type(value) is dict and not value:
        return {}
    if isinstance(value, Mapping):
        return _to_json_mapping(value)
    value = to_option(value)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return {} if value is None else value


def _to_json_mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    try:
        return {name: to_json_value(inner) for name, inner in value.items()}
    except RecursionError:  # the check of the field says so
        return dict(value)


def _as_picture(value: object) -> Any:
    return None if value is None else expand_home(to_option(value))


class VideoOptions(TypedDict, total=False):
    """The fields of `VideoRequest` that a call can give for all its requests; they fill the fields left open."""

    model: str | None
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


class RequestRow(TypedDict, total=False):
    """One video as a mapping, such as a row of a file: the fields of `VideoRequest`.

    None, NaN, `pandas.NA` and blank text count as not given. The case of a key does not matter.
    """

    prompt: Required[str]
    model: str | None
    image: str | os.PathLike[str] | None
    image_tail: str | os.PathLike[str] | None
    negative_prompt: str | None
    sound: bool | str | None
    duration: float | str | None
    mode: str | None
    cfg_scale: float | str | None
    aspect_ratio: str | None
    resolution: str | None
    extra: Mapping[str, Any] | None
    key: str | None
    labels: Mapping[str, Any] | None


@check_keywords
@attrs.frozen(kw_only=True)
class VideoRequest:
    """One video to make. Fields left `None` are not sent: the service's own defaults apply.

    A request with a `model` is checked against the model's rules when it is made. A request without a model is
    checked when a call fills the model, before the call sends anything.

    Values are read as tables have them. None, NaN, `pandas.NA` and blank text are fields that are not given; numbers of
    NumPy, Decimals, `5.0` and `"5"` are numbers.

    Raises:
        InvalidRequestError: The values break rules of a model that the catalogue knows. The message lists all
            broken rules.
    """

    prompt: str = attrs.field(kw_only=False, converter=to_plain)
    """The content of the video. For kling-v2-6 at most 2,500 characters."""
    model: str | None = attrs.field(default=None, converter=to_word)
    """The model's id, case-sensitive. A call fills None with its own `model`, or else with `kling-v2-6`."""
    image: str | os.PathLike[str] | None = attrs.field(default=None, converter=_as_picture)
    """The first picture: a URL, a data URI, or a local path, which the client uploads before the submit.

    `~` is the home folder. A model that takes its picture under another key gets it there, as `kling-3.0-turbo-i2v` under
    `first_frame`."""
    image_tail: str | os.PathLike[str] | None = attrs.field(default=None, converter=_as_picture)
    """The last picture, for models that take one, in the same forms as `image`."""
    negative_prompt: str | None = attrs.field(default=None, converter=to_option)
    """The content that the video must not show, for models that take it."""
    sound: bool | None = attrs.field(default=None, converter=to_bool)
    """Whether the video has sound. The words on/off and yes/no are read too; the client sends the model's word."""
    duration: int | None = attrs.field(default=None, converter=to_seconds)
    """Seconds of video. The client sends the text that the service wants."""
    mode: str | None = attrs.field(default=None, converter=to_word)
    """The quality mode; kling-v2-6 knows only `pro`."""
    cfg_scale: float | None = attrs.field(default=None, converter=to_number)
    """How closely the video follows the prompt, from 0 (loosely) to 1."""
    aspect_ratio: str | None = attrs.field(default=None, converter=to_word)
    """Such as `16:9`, for models that take it."""
    resolution: str | None = attrs.field(default=None, converter=to_word)
    """Such as `1080p`, for models that take it."""
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=read_mapping, hash=False)
    """Further keys of the payload. The client sends them as they are, and in place of an equal key of a field above. It
    uploads no file that is named here. A picture that the model takes under another key than its field is given once.

    It can be given as the text of its JSON."""
    key: str | None = attrs.field(default=None, converter=to_name)
    """Your own name for this item, by which a later run with the same journal recognizes it. It is never sent."""
    labels: Mapping[str, Any] = attrs.field(factory=dict, converter=read_mapping, hash=False)
    """Your own values for this item, such as further columns of a table. The client never sends them, and a journal
    does not keep them; the result has them."""

    def __attrs_post_init__(self) -> None:
        broken, advice = self._broken_shape(), None
        if self.model is None or isinstance(self.model, str):
            values = parameters_of(self)
            broken += catalog.broken_rules(self.model, values)
            advice = catalog.advise_extra(self.model, values) if broken else None
            if self.model is not None and isinstance(self.extra, dict) and self.extra:
                broken += catalog.check_pictures_once(self.model, values, self.extra)
        if broken:
            subject = f"{self.model[:60]}: " if isinstance(self.model, str) else ""
            raise InvalidRequestError(f"{subject}{'; '.join(broken)}.", advice=advice)

    def _broken_shape(self) -> list[str]:
        """What is wrong with the fields that are no parameters of a model."""
        broken = [] if self.model is None else catalog.check_model(self.model)
        for field in ("extra", "labels"):
            value = getattr(self, field)
            if type(value) is not dict or value:  # not by `!=`: a comparison with a column of a table raises
                broken += self._broken_mapping(field)
        if self.key is not None:
            broken += catalog.check_text("key", self.key)
        return broken

    def _broken_mapping(self, field: str) -> list[str]:
        value = getattr(self, field)
        if isinstance(value, str):
            return [f"{field} is not JSON: {quote_value(value)}"]
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            return [f"{field} must be a mapping with text keys, not {quote_value(value)}"]
        files = catalog.check_local_pictures(value) if field == "extra" else []
        return files or catalog.check_json(field, value)


PARAMETERS = tuple(
    field.name
    for field in attrs.fields(VideoRequest)
    if field.name not in {"model", "extra", "key", "labels"}
)
"""The names of the fields that are parameters of a model."""
_read_parameters = attrgetter(*PARAMETERS)
FIELDS = tuple(field.name for field in attrs.fields(VideoRequest))
"""The names of all fields of a request."""


RequestLike: TypeAlias = VideoRequest | str | RequestRow | Mapping[Any, object]
"""One video to make: a prompt, a `VideoRequest`, or a mapping of its fields, such as a row of `csv.DictReader`.

A row that is annotated as a `RequestRow` has its keys and values checked by a type checker.
"""


def model_of(request: VideoRequest) -> str:
    """The id of the model that makes the request: its own, or else the default one."""
    return catalog.DEFAULT_MODEL if request.model is None else request.model


def parameters_of(request: VideoRequest) -> dict[str, Any]:
    """The request's model parameters by field name, without those that were not given."""
    values = zip(PARAMETERS, _read_parameters(request), strict=True)
    return {name: value for name, value in values if value is not None}


describe_fields(__name__)
