"""Items: what a caller gives for one video, read as a `VideoRequest`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from kling_async import catalog
from kling_async.errors import InvalidRequestError
from kling_async.requests import FIELDS, RequestLike, VideoRequest, suggest_name


def request_from(item: RequestLike | Mapping[str, Any], options: Mapping[str, Any]) -> VideoRequest:
    """The request of an item, with a model. The options fill fields that the item leaves open and overwrite none.

    Args:
        item: A prompt, a request, or a mapping of `VideoRequest`'s fields.
        options: Fields of `VideoOptions`, checked by `check_options`.

    Raises:
        InvalidRequestError: The item is of another type, has an unknown field, or breaks the model's rules.
    """
    if options.get("model") is None:
        options = {**options, "model": catalog.DEFAULT_MODEL}
    if isinstance(item, str):
        return VideoRequest(item, **options)
    if isinstance(item, VideoRequest):
        return _fill(item, options)
    if not isinstance(item, Mapping):
        raise InvalidRequestError(
            f"A request is a prompt, a VideoRequest or a mapping of its fields, not {catalog.quote_value(item)}."
        )
    fields = {name: value for name, value in item.items() if value is not None}
    if unknown := [name for name in fields if name not in FIELDS]:
        raise InvalidRequestError(
            f"A request has no field {', '.join(map(repr, unknown))}{suggest_name(unknown[0], FIELDS)}; "
            f"put parameters that are not among {', '.join(sorted(FIELDS))} into 'extra'."
        )
    if "prompt" not in fields:
        raise InvalidRequestError(f"A request needs a prompt; {catalog.quote_value(dict(item))} has none.")
    return VideoRequest(**{**options, **fields, **_merged_extra(options, fields)})


def find_missing_picture(request: VideoRequest) -> str | None:
    """The first local picture of the request that is not on this machine; None if all are there."""
    for picture in (request.image, request.image_tail):
        # Not `Path.is_file`: that raises an error for a name that no file can have.
        if catalog.is_local_picture(picture) and not os.path.isfile(os.fspath(picture)):  # noqa: PTH113
            return os.fspath(picture)
    return None


def _fill(request: VideoRequest, options: Mapping[str, Any]) -> VideoRequest:
    filled = {
        name: value
        for name, value in options.items()
        if name != "extra" and value is not None and getattr(request, name) is None
    }
    if options.get("extra"):
        filled |= _merged_extra(options, {"extra": request.extra})
    return attrs.evolve(request, **filled) if filled else request


def _merged_extra(options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `extra` are filled one by one, so that an item may add to what all share."""
    shared, own = options.get("extra") or {}, fields.get("extra") or {}
    if isinstance(shared, Mapping) and isinstance(own, Mapping):
        return {"extra": {**shared, **own}}
    return {"extra": own}
