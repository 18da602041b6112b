"""What an emulator is told before it starts; values only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, Literal, get_args

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, in_, instance_of, le, lt, optional

from kling_async.emulator.faults import Fault

Ending = Literal["success", "failed", "cancelled", "stuck_queued", "stuck_processing", "instant"]
"""How a job's life goes: three ends, two that never come, and success on the POST itself."""

_share = and_(ge(0.0), le(1.0))
_one_or_more: Callable[[object, attrs.Attribute[Any], Any], None] = optional(ge(1))


def _tuple_of_faults(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(faults)


@attrs.frozen
class LogNormal:
    """A time in service seconds with the long right tail that queues and renders have."""

    median: float = attrs.field(validator=ge(0.0))
    """Half of the draws are shorter; 0 makes each of them 0."""
    sigma: float = attrs.field(default=0.0, validator=ge(0.0))
    """Spread of the logarithm; 0 makes each draw the median."""

    def sample(self, rng: Random) -> float:
        """One duration, in service seconds."""
        return self.median * math.exp(self.sigma * rng.gauss(0.0, 1.0))


@attrs.frozen(kw_only=True)
class JobScript:
    """What becomes of one job. What is None is left to the dice."""

    ending: Ending = attrs.field(default="success", validator=in_(get_args(Ending)))
    queue_time: float | None = None
    """Service seconds before a worker may take it."""
    run_time: float | None = None
    """Service seconds that the worker needs."""
    error: str | Mapping[str, Any] | None = None
    """`outcome.error` of a failed job, text or object."""
    request_id: str | None = None
    """The id that the job gets, whatever characters it has. None: a random UUID."""


ScriptFactory = Callable[[int, Mapping[str, Any]], JobScript | None]
"""Names the fate of a job by its number (from 1) and payload, or None for the dice."""


@attrs.frozen(kw_only=True)
class ResponseFormat:
    """How replies are worded where the service is known, or feared, to vary."""

    outcome: Literal["media_urls", "media_strings", "video_url", "both"] = "media_urls"
    """Where a finished job names its video: a list of objects, a list of strings, the documented flat key, or both."""
    thumbnail: Literal["jpeg", "video", "none"] = "jpeg"
    """`video` repeats the MP4's URL as the thumbnail, as one documented sample does."""
    submit_reply: Literal["minimal", "full"] = "minimal"
    """A POST answers six keys, or the whole record."""
    outcome_on_submit: bool = True
    """False: a POST that is final at once is answered without its outcome; a GET has it."""
    user_id: bool = True
    """Whether records carry `user_id`, as production does and the documentation does not."""
    qworker_id: bool = False
    """Whether records carry the optional `qworker_id` once a worker took the job."""
    status_case: Literal["lower", "upper", "title"] = "lower"
    """How statuses are spelled."""
    clock_ahead: float = 0.0
    """Real seconds by which the clock of the records is ahead of the caller's; below 0 it is behind."""
    payload_echo: bool = True
    """False: `payload` comes back as `{}`."""
    list_order: Literal["newest", "oldest", "random"] = "newest"
    list_rows: int = attrs.field(default=100, validator=ge(1))
    """Most rows of one list call, and the number given when no limit is asked for."""
    list_total: bool = True
    """Whether the list's answer carries `total`."""
    list_has_more: bool = True
    """Whether the list's answer carries `has_more`."""
    list_needs_model: bool = False
    """Whether a list call without `model_id` is refused with 400."""
    list_delay: float = attrs.field(default=0.0, validator=ge(0.0))
    """Service seconds before a new job shows up in the list."""
    unlisted_rate: float = attrs.field(default=0.0, validator=_share)
    """Share of jobs that never show up in the list."""
    ranges: bool = True
    """False: media are served without Range support."""


@attrs.frozen(kw_only=True)
class EmulatorSettings:
    """Everything an `Emulator` can be told; the defaults resemble the service at a minute a second."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=0, validator=and_(ge(0), le(65_535)))
    """0 takes any free port."""
    storage_url: str | None = None
    """What media and upload URLs start with, when a proxy stands before the emulator. None: the address it was called by."""

    time_scale: float = attrs.field(default=60.0, validator=and_(gt(0.0), lt(math.inf)))
    """Service seconds that pass in one real second. Times in records are real all the same, as a client's clock is."""
    seed: int = 0
    """Makes a run repeatable: a job's id and fate follow from the seed and the number of its submit alone."""
    workers: int | None = attrs.field(default=20, validator=_one_or_more)
    """Jobs rendered at once; the others wait in the queue. None for no bound."""
    queue_time: LogNormal = LogNormal(8.0, 0.8)
    """Wait before any worker may take a job. Source: an estimate from third parties' reports of 2 to 30 s."""
    dispatch_time: float = attrs.field(default=1.0, validator=ge(0.0))
    """Service seconds between `dispatched` and `processing`."""
    run_time: LogNormal = LogNormal(240.0, 0.35)
    """Render time of text to video. Source: 240 to 319 s reported for Kling by other gateways and ComfyUI."""
    image_run_time: LogNormal = LogNormal(160.0, 0.35)
    """Render time when an image is given. Source: 164 s reported by ComfyUI."""
    refusal_time: float = attrs.field(default=1.0, validator=ge(0.0))
    """Service seconds until a job with a bad parameter, accepted at first, fails."""

    failure_rate: float = attrs.field(default=0.0, validator=_share)
    """Share of jobs that fail in the end."""
    stuck_rate: float = attrs.field(default=0.0, validator=_share)
    """Share of jobs that stay queued or processing for ever."""
    instant_rate: float = attrs.field(default=0.0, validator=_share)
    """Share of jobs whose POST already answers `success`."""
    script: ScriptFactory | None = None
    """Chooses the fate of single jobs; the rates decide about the rest."""

    api_keys: frozenset[str] | None = attrs.field(
        default=None, converter=attrs.converters.optional(frozenset)
    )
    """Keys that are let in. None: any key that is not empty."""
    refused_keys: frozenset[str] = attrs.field(default=frozenset(), converter=frozenset)
    """Keys that are turned away with 401."""
    organization_id: str = "org-emulator"
    """`org_id` of requests that name no organisation themselves."""
    credits: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Jobs the account can pay for; the next one is refused with 402. None for no end."""
    max_jobs_in_flight: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Jobs that may be alive at once; one more is throttled. None for no bound."""
    throttle: Literal["429", "failed_job"] = "429"
    """How a throttled submit is told: by status, or by a job that is accepted and fails with a rate-limit text."""
    retry_after: float | None = None
    """Real seconds in the `Retry-After` of a 429. None sends no such header."""

    response_format: ResponseFormat = ResponseFormat()
    faults: tuple[Fault, ...] = attrs.field(
        default=(), converter=_tuple_of_faults, validator=deep_iterable(instance_of(Fault))
    )
    """Faults that are set from the start; `Emulator.faults` takes more while it runs."""
    media_cache_bytes: int = attrs.field(default=64 * 2**20, validator=ge(0))
    """Finished media kept in memory; what was dropped is made again when asked for."""
