"""What a journal knows of one item of a batch: a value that can be told from disk to any later run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import attrs

from kling_async._wire.codec import ShapeError, payload_of, structure_job
from kling_async.catalog import wire_name
from kling_async.errors import InvalidRequestError
from kling_async.jobs import Job, JobStatus
from kling_async.requests import VideoRequest

_FINGERPRINT_BYTES = 16
_PLAIN = frozenset({str, int, bool, type(None)})
_PARAMETERS = tuple(
    field.name for field in attrs.fields(VideoRequest) if field.name not in {"model", "extra", "key"}
)
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=os.fspath).encode


class EntryState(StrEnum):
    """Where an entry stands; all but the first three are the words of `ResultState`."""

    DROPPED = "dropped"
    """Written down to be sent, but left out by a later order before that."""
    INTENDED = "intended"
    """A paid POST may have been sent; its fate is unknown until it is settled."""
    SUBMITTED = "submitted"
    """The service has it, under a known id."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    AMBIGUOUS = "ambiguous"
    NOT_SUBMITTED = "not_submitted"


@attrs.frozen
class Identity:
    """What makes an item the same item in a later run: all three together."""

    key: str | None
    """The caller's own name for it."""
    fingerprint: str
    """See `fingerprint`."""
    occurrence: int
    """Which of the items that are alike in both it is, counted by the caller."""


def _parse_number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def fingerprint(model: str, payload: Mapping[str, Any]) -> str:
    """What stands for a model and a payload: equal for equal ones, however ordered; 1.0 counts as 1.

    Raises:
        TypeError: The payload is no JSON.
        ValueError: It refers to itself, or is nested too deep.
    """
    if not {type(value) for value in payload.values()} <= _PLAIN:
        # As JSON tells it: keys are text, a tuple is a list, and a path its text.
        payload = json.loads(json.dumps(payload, default=os.fspath), parse_float=_parse_number)
    return blake2b(_encode([model, payload]).encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


@attrs.frozen(kw_only=True)
class Entry:
    """One item as the journal knows it."""

    number: int
    """Its place among all entries, from 1, in the order in which they were first intended."""
    identity: Identity
    """What matches it across runs."""
    model: str
    """The model's id, as it was sent."""
    payload: Mapping[str, Any] = attrs.field(repr=False)
    """The parameters, as they were sent."""
    state: EntryState
    """Where it stands."""
    sent_at: float | None = None
    """Unix seconds, taken just before its last POST."""
    request_id: str | None = None
    """The service's id of its last job; None while it has none."""
    record: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    """The last record of that job, as the service answered it but for the payload."""
    error: str | None = None
    """Why it ended without a video, or was not submitted, or why its video was not saved; one line."""
    path: str | None = None
    """Where the video was saved."""
    size_bytes: int | None = None
    """The size of that file."""
    sha256: str | None = None
    """The digest of that file, in hex."""
    cost_usd: Decimal | None = None
    """What all its POSTs cost that were, or may have been, accepted; None is unknown."""
    attempt_cost_usd: Decimal | None = None
    """What the last of them costs."""
    attempts: int = 0
    """How many POSTs were, or may have been, accepted."""

    @property
    def job(self) -> Job | None:
        """The job as it was last seen; its status is UNKNOWN where the record cannot be read. None without an id."""
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
    def request(self) -> VideoRequest | None:
        """A request that makes this payload again; None where no valid one does."""
        if wire_name(self.model, "prompt") not in self.payload:
            return None
        fields = {
            field: self.payload[name]
            for field in _PARAMETERS
            if self.payload.get(name := wire_name(self.model, field)) is not None
        }
        return self._build_request(fields) or self._build_request(self._select_accepted(fields))

    def _build_request(self, fields: Mapping[str, Any]) -> VideoRequest | None:
        """The request of these fields, all else in `extra`, if it is valid and makes the payload."""
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
        """Those of the fields that a valid request can have; the others came in by its `extra`."""
        accepted: dict[str, Any] = {}
        for field, value in fields.items():
            if self._build_request({**accepted, field: value}) is not None:
                accepted[field] = value
        return accepted
