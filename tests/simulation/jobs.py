"""What the rules know of a POST and of its job, beside what the service shows."""

from __future__ import annotations

import json
import math
from typing import Any

import attrs

from kling_async.emulator import RATE_LIMITED
from kling_async.emulator import Job as EmulatedJob


@attrs.define(eq=False, kw_only=True)
class Post:
    """One paid POST that left a process."""

    line: int
    """The number of the line that sent it."""
    process: str
    organization: str
    payload: dict[str, Any]
    request: str
    """Model and payload as text; equal for equal requests."""
    sent: float
    fate: str = "in flight"
    """in flight, refused (not accepted), answered (the process has the id) or unknown."""
    verdict: str = "unknown"
    """The fate after the process has the answer."""
    is_belated: bool = False
    """Whether its process stood still between its last check and this POST, which no client can notice."""
    has_connection: bool = True
    """Whether a connection was made for it; without one, it is none of the POSTs that the service counts."""
    job: Job | None = None
    told_organization_at: float = math.inf
    """When its answer named the organization to its process."""


@attrs.define(eq=False, kw_only=True)
class Job:
    """One job of the emulated queue, and the POST that made it."""

    emulated: EmulatedJob
    post: Post | None = None
    """None for an old job of others."""
    is_late: bool = False
    """Whether it was accepted after its process had stopped waiting, or long after the intent was written."""

    @property
    def id(self) -> str:
        return self.emulated.request_id

    @property
    def ends(self) -> float:
        return self.emulated.final_at

    @property
    def final(self) -> str:
        """The last status; that of a job that never ends is not final."""
        return self.emulated.statuses[-1].value

    @property
    def is_throttled(self) -> bool:
        """Whether it fails for a rate limit."""
        return self.emulated.error == RATE_LIMITED

    @property
    def has_failed(self) -> bool:
        """Whether it ends without a video, and not for a rate limit."""
        return self.final in {"failed", "cancelled"} and not self.is_throttled

    def is_listed(self, now: float) -> bool:
        return self.emulated.shows_at <= now < self.emulated.vanishes_at

    @property
    def is_hidden(self) -> bool:
        """Whether the list stops showing it, or never shows it."""
        return math.isinf(self.emulated.shows_at) or not math.isinf(self.emulated.vanishes_at)

    def could_match(self, request: str) -> bool:
        """Whether it has all parameters of a request, and perhaps more."""
        _, payload = json.loads(request)
        return bool(payload.items() <= strip_prompt(self.emulated.payload).items())


def request_text(model: str, payload: dict[str, Any]) -> str:
    """Model and payload as text; equal for equal requests, also in another spelling."""
    return json.dumps([model, strip_prompt(payload)], sort_keys=True)


def strip_prompt(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with the prompt as a reader sees it."""
    return {**payload, "prompt": payload["prompt"].strip()}
