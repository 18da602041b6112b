"""The entry of one item in a journal: a plain value that any later run can read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import attrs

from kling_async._field_docs import describe_fields
from kling_async._policy.visible_text import visible_text, visible_value
from kling_async._wire.codec import structure_job
from kling_async._wire.json_reader import ShapeError
from kling_async._wire.payloads import payload_of
from kling_async.catalog import wire_name
from kling_async.errors import InvalidRequestError
from kling_async.jobs import Job, JobStatus
from kling_async.requests import PARAMETERS, VideoRequest

_FINGERPRINT_BYTES = 16
_PLAIN = frozenset({str, int, bool, type(None)})
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=os.fspath).encode


class EntryState(StrEnum):
    """The state of an entry; all but the first three are those of `ResultState`."""

    DROPPED = "dropped"
    """Registered, and left out of a later batch before it was submitted."""
    INTENDED = "intended"
    """A paid POST may have been sent; whether the service has a job is unknown until the submit is reconciled."""
    SUBMITTED = "submitted"
    """The service has a job, with a known id."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    AMBIGUOUS = "ambiguous"
    NOT_SUBMITTED = "not_submitted"

    @property
    def is_failure(self) -> bool:
        """Whether the job ended without a video at the service, so that `retry_failed` submits the item again."""
        return self in _FAILURES


_FAILURES = frozenset({EntryState.FAILED, EntryState.CANCELLED})


def visible_key(key: str | None) -> str | None:
    """The key without what no reader sees; None stays None."""
    return None if key is None else visible_text(key)


@attrs.frozen
class Identity:
    """The identity of an item across runs: its key, its fingerprint and its occurrence together."""

    key: str | None = attrs.field(converter=visible_key)
    """The caller's own name for the item, without what no reader sees."""
    fingerprint: str
    """See `fingerprint`."""
    occurrence: int
    """The number among items with the same key and fingerprint, counted by the caller."""
    former_fingerprint: str | None = attrs.field(default=None, eq=False, repr=False)
    """See `former_fingerprint`; None if a journal cannot have it."""

    @property
    def former(self) -> Identity | None:
        """The identity that a journal of version 1 may have for the item; None if that is no other."""
        if self.former_fingerprint is None:
            return None
        return Identity(self.key, self.former_fingerprint, self.occurrence)


def _parse_number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def fingerprint(model: str, payload: Mapping[str, Any]) -> str:
    """A digest of a model and of the visible text of a payload. The order of keys does not matter, and 1.0 counts as 1.

    Raises:
        TypeError: The payload is not JSON.
        ValueError: The payload refers to itself, or is nested too deep.
    """
    return _digest(model, visible_value(_as_json(payload)))


def former_fingerprint(model: str, payload: Mapping[str, Any]) -> str:
    """The fingerprint in journals of version 1: each character of the payload counts, also those that no reader sees."""
    return _digest(model, _as_json(payload))


def _as_json(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload in the form of JSON: keys are text, a tuple is a list, and a path is its text."""
    if {type(value) for value in payload.values()} <= _PLAIN:
        return payload
    plain: dict[str, Any] = json.loads(json.dumps(payload, default=os.fspath), parse_float=_parse_number)
    return plain


def _digest(model: str, payload: Mapping[str, Any]) -> str:
    return blake2b(_encode([model, payload]).encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


@attrs.frozen(kw_only=True)
class Entry:
    """One item in the journal."""

    number: int
    """The place among all entries, from 1, in the order in which they were first written. No other view shows it."""
    identity: Identity
    """Matches the item across runs."""
    model: str
    """The id of the model, as it was sent."""
    payload: Mapping[str, Any] = attrs.field(repr=False)
    """The parameters, as they were sent."""
    state: EntryState
    """The state of the item."""
    sent_at: float | None = None
    """Unix seconds, just before the last POST."""
    has_service_time: bool = False
    """Whether `sent_at` is by the service's clock; else it is by the clock of the machine that sent the POST."""
    timeout: float | None = None
    """Seconds after which the sender gave up the answer to the last POST; None if an older version sent it."""
    request_id: str | None = None
    """The service's id of the last job; None if there is none yet."""
    record: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    """The last record of that job, as the service answered it, without the payload."""
    error: str | None = None
    """Why the item ended without a video, was not submitted, or has no saved video; one line."""
    path: str | None = None
    """The saved video."""
    size_bytes: int | None = None
    """The size of that file."""
    sha256: str | None = None
    """The digest of that file, in hex."""
    cost_usd: Decimal | None = None
    """US dollars for all POSTs that were, or may have been, accepted; None is unknown. Those whose price no run knew cost what the
    others of the item do."""
    attempt_cost_usd: Decimal | None = None
    """US dollars for the last of them."""
    attempts: int = 0
    """How many POSTs were, or may have been, accepted."""
    index: int = 0
    """The item's index in the last batch that had it, from 0: the number in `Result.index`, file names and reports."""

    @property
    def job(self) -> Job | None:
        """The job as last seen; None without an id. Its status is UNKNOWN if the record cannot be read."""
        if self.request_id is None:
            return None
        try:
            return structure_job(
                {**(self.record or {}), "request_id": self.request_id, "payload": self.payload}
            )
        except ShapeError:
            return Job(
                request_id=self.request_id,
                model=self.model,
                status=JobStatus.UNKNOWN,
                payload=self.payload,
                raw=self.record or {},
            )

    @property
    def is_unpriced(self) -> bool:
        """Whether POSTs of the item were, or may have been, accepted, and no run knew their price."""
        return self.attempts > 0 and self.cost_usd is None

    @property
    def request(self) -> VideoRequest | None:
        """A request that makes the same payload; None if no valid request does."""
        if wire_name(self.model, "prompt") not in self.payload:
            return None
        fields = {
            field: self.payload[name]
            for field in PARAMETERS
            if self.payload.get(name := wire_name(self.model, field)) is not None
        }
        return self._build_request(fields) or self._build_request(self._select_accepted(fields))

    def _build_request(self, fields: Mapping[str, Any]) -> VideoRequest | None:
        """The request with these fields and the rest in `extra`; None if it is invalid or makes another payload."""
        names = {wire_name(self.model, field) for field in fields}
        extra = {name: value for name, value in self.payload.items() if name not in names}
        try:
            request = VideoRequest(
                **{"prompt": "in extra", **fields}, model=self.model, extra=extra, key=self.identity.key
            )
        except InvalidRequestError:
            return None
        return request if payload_of(request) == self.payload else None

    def _select_accepted(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that a valid request can have; the others were in its `extra`."""
        accepted: dict[str, Any] = {}
        for field, value in fields.items():
            if self._build_request({**accepted, field: value}) is not None:
                accepted[field] = value
        return accepted


describe_fields(__name__)
