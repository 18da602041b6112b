"""The calls of the queue: what each reads, and what it replies. Nothing here does HTTP, reads a clock or sleeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import attrs

from kling_async.emulator.job_records import make_page, make_record, make_submit_reply
from kling_async.emulator.model_catalog import MODELS
from kling_async.emulator.service_queue import Job, RefusedError, ServiceQueue
from kling_async.emulator.settings import EmulatorSettings

_MAX_DIGITS = 18


@attrs.frozen
class QueueApi:
    """The queue's half of the service, over its jobs.

    Each call returns the JSON of its reply, or raises `RefusedError`. `now` is the time in Unix seconds, and `storage_url`
    the scheme and host of media URLs.
    """

    settings: EmulatorSettings
    queue: ServiceQueue

    def check_key(self, authorization: str) -> None:
        """Raise `RefusedError` unless the value of an `Authorization` header has an accepted key."""
        scheme, _, key = authorization.partition(" ")
        allowed, refused = self.settings.api_keys, self.settings.refused_keys
        if scheme.lower() != "bearer" or not key.strip():
            raise RefusedError(401, "missing or malformed Authorization header")
        if key in refused or (allowed is not None and key not in allowed):
            raise RefusedError(401, "invalid api key")

    def submit(
        self,
        body: bytes,
        *,
        now: float,
        storage_url: str,
        organization_id: str | None = None,
        find_rejection: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
    ) -> dict[str, Any]:
        """Create a job.

        Args:
            body: the body of the call.
            now: Unix seconds.
            storage_url: scheme and host of media URLs.
            organization_id: the organization of the call; None means that of the settings.
            find_rejection: the error with which the service fails a job for something beside its parameters.
        """
        call = read_json_object(body)
        model_id, payload = call.get("model"), call.get("payload")
        if not isinstance(model_id, str) or not isinstance(payload, dict):
            raise RefusedError(400, "model must be a string and payload an object")
        model = MODELS.get(model_id)
        if model is None:
            raise RefusedError(404, f"model {model_id} does not exist")
        if missing := model.missing_keys(payload):
            raise RefusedError(400, f"missing required payload keys: {', '.join(missing)}")
        job = self.queue.submit(
            model_id,
            payload,
            now=now,
            organization_id=organization_id,
            rejection=model.find_error(payload) or find_rejection(payload),
        )
        return make_submit_reply(
            job, now=now, response_format=self.settings.response_format, storage_url=storage_url
        )

    def get_job(self, request_id: str, *, now: float, storage_url: str) -> dict[str, Any]:
        """The record of a job."""
        job = self.queue.find(request_id)
        if job is None or job.vanishes_at <= now:
            raise RefusedError(404, "Request not found")
        return self.make_record(job, now=now, storage_url=storage_url)

    def make_record(self, job: Job, *, now: float, storage_url: str) -> dict[str, Any]:
        """The record of a job that has just been found."""
        return make_record(
            job, now=now, response_format=self.settings.response_format, storage_url=storage_url
        )

    def list_jobs(self, query: Mapping[str, str], *, now: float, storage_url: str) -> dict[str, Any]:
        """One page of the list, for the parameters `model_id`, `limit` and `offset`."""
        model = query.get("model_id")
        if model is None and self.settings.response_format.list_needs_model:
            raise RefusedError(400, "model_id is required")
        return make_page(
            self.queue.of_model(model),
            now=now,
            limit=_read_row_count(query, "limit"),
            offset=_read_row_count(query, "offset") or 0,
            response_format=self.settings.response_format,
            storage_url=storage_url,
        )

    def list_models(self) -> dict[str, Any]:
        """The ids of all models."""
        return {"model_ids": list(MODELS)}

    def get_model(self, model_id: str, *, organization_id: str | None = None) -> dict[str, Any]:
        """The description of a model."""
        if model_id not in MODELS:
            raise RefusedError(404, f"model {model_id} does not exist")
        return MODELS[model_id].describe() | {"org_id": organization_id or self.settings.organization_id}


def read_json_object(body: bytes) -> dict[str, Any]:
    """The body of a call, which must be one JSON object without NaN and infinity.

    Raises:
        RefusedError: it is not.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RefusedError(400, "request body is not valid JSON") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "request body must be a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _read_row_count(query: Mapping[str, str], name: str) -> int | None:
    """A query parameter that counts rows, or None if it is absent."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        given = repr(text) if len(text) <= _MAX_DIGITS else f"a text of {len(text):,} characters"
        raise RefusedError(400, f"{name} must be a number of rows, not {given}")
    return int(text)
