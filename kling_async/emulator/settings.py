"""The settings of an emulator, as values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, in_, instance_of, le, lt, optional

from kling_async.emulator.faults import ONE_OR_MORE, SHARE, Fault

OutcomeKeys = Literal["media_urls", "media_strings", "video_url", "both"]
"""Where a finished job has its video: a list of objects, a list of strings, the documented flat key, or the list of
objects and the flat key."""

Ending = Literal["success", "failed", "cancelled", "stuck_queued", "stuck_processing", "instant"]
"""How a job ends. A stuck job never ends, and the POST of an instant job already replies `success`."""


def _to_tuple(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(faults)


def _to_names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen
class LogNormal:
    """A random time in service seconds. Its long right tail is that of real queue and run times."""

    median: float = attrs.field(validator=ge(0.0))
    """Half of the samples are shorter. 0 makes every sample 0."""
    sigma: float = attrs.field(default=0.0, validator=ge(0.0))
    """Standard deviation of the logarithm. 0 makes every sample the median."""

    def sample(self, rng: Random) -> float:
        """One duration, in service seconds."""
        return self.median * math.exp(self.sigma * rng.gauss(0.0, 1.0))


@attrs.frozen(kw_only=True)
class JobScript:
    """What happens to one job. Fields that are None are random."""

    ending: Ending = attrs.field(default="success", validator=in_(get_args(Ending)))
    queue_time: float | None = None
    """Service seconds before a worker may start the job."""
    run_time: float | None = None
    """Service seconds that the worker needs for the job."""
    error: str | Mapping[str, Any] | None = None
    """`outcome.error` of a failed job, as text or as an object."""
    request_id: str | None = None
    """The id of the job, in any characters. None means a random UUID."""
    list_delay: float | None = None
    """Service seconds before the list has the job; infinity means never."""
    lifetime: float = math.inf
    """Service seconds after which a call by the id gets a 404 and the list has the job no longer."""
    payload_echo: bool = True
    """False: `payload` is `{}` in the records of the job."""


ScriptFactory = Callable[[int, Mapping[str, Any]], JobScript | None]
"""Returns the script of a job, given its number from 1 and its payload; None means that the job is random."""


@attrs.frozen(kw_only=True)
class ResponseFormat:
    """How replies are written, where the service is known to vary or may vary."""

    outcome: OutcomeKeys | None = None
    """Where a finished job has its video: `media_urls` is a list of objects, `media_strings` a list of strings,
    `video_url` the documented flat key, and `both` that list of objects and the flat key. None means the form that is documented
    for the job's model and was seen, and `both` where these differ, as for `kling-v2-6`."""
    thumbnail: Literal["jpeg", "video", "none"] = "jpeg"
    """`video` repeats the URL of the MP4 as the thumbnail, as one documented sample does."""
    submit_reply: Literal["minimal", "full"] = "minimal"
    """A POST replies with six keys, or with the full record."""
    outcome_on_submit: bool = True
    """False: the POST of an instant job has no outcome in its reply; a GET has it."""
    user_id: bool = True
    """Whether records have `user_id`, as in production; the documentation does not have it."""
    qworker_id: bool = False
    """Whether records have the optional `qworker_id` once a worker has started the job."""
    status_case: Literal["lower", "upper", "title"] = "lower"
    """How statuses are spelled."""
    clock_ahead: float = 0.0
    """Real seconds by which the times in records are ahead of the client's clock; below 0 they are behind."""
    payload_echo: bool = True
    """False: `payload` is `{}` in records."""
    list_order: Literal["newest", "oldest", "random"] = "newest"
    list_rows: int = attrs.field(default=100, validator=ge(1))
    """The most rows of one list reply, and the number of rows without a `limit`."""
    list_total: bool = True
    """Whether the list reply has `total`."""
    list_has_more: bool = True
    """Whether the list reply has `has_more`."""
    list_needs_model: bool = False
    """Whether a list call without `model_id` gets a 400."""
    list_delay: float = attrs.field(default=0.0, validator=ge(0.0))
    """Service seconds before the list has a new job."""
    unlisted_rate: float = attrs.field(default=0.0, validator=SHARE)
    """Share of jobs that the list never has."""
    ranges: bool = True
    """False: media downloads ignore the Range header."""


@attrs.frozen(kw_only=True)
class EmulatorSettings:
    """All settings of an `Emulator`. With the defaults, one service minute passes in one real second."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=0, validator=and_(ge(0), le(65_535)))
    """0 means any free port."""
    storage_url: str | None = None
    """Scheme and host of media and upload URLs, for an emulator behind a proxy. None means the host of the call."""
    tls: bool = False
    """True: all addresses are https, with a new certificate that `Emulator.certificate` lets a client trust."""
    allowed_hosts: frozenset[str] = attrs.field(default=frozenset(), converter=_to_names)
    """Further names by which clients call the emulator. A call to any other name than `host` and `localhost` gets a 421,
    so that no web page can call the emulator by a name of its own; addresses in numbers are always allowed."""

    time_scale: float = attrs.field(default=60.0, validator=and_(gt(0.0), lt(math.inf)))
    """Service seconds that pass in one real second. Times in records are real times, as on the client's clock."""
    seed: int = 0
    """Makes a run repeatable: a job's id, ending and times depend on the seed and its submit number only."""
    workers: int | None = attrs.field(default=20, validator=ONE_OR_MORE)
    """Jobs that run at once; the others wait in the queue. None means no limit."""
    queue_time: LogNormal = LogNormal(8.0, 0.8)
    """Time before a worker may start a job. Source: an estimate from reports of third parties, 2 to 30 s."""
    dispatch_time: float = attrs.field(default=1.0, validator=ge(0.0))
    """Service seconds between `dispatched` and `processing`."""
    run_time: LogNormal = LogNormal(240.0, 0.35)
    """Run time of text to video. Source: 240 to 319 s, reported for Kling by other gateways and ComfyUI."""
    image_run_time: LogNormal = LogNormal(160.0, 0.35)
    """Run time of image to video. Source: 164 s, reported by ComfyUI."""
    refusal_time: float = attrs.field(default=1.0, validator=ge(0.0))
    """Service seconds until an accepted job with an invalid parameter fails."""

    failure_rate: float = attrs.field(default=0.0, validator=SHARE)
    """Share of jobs that fail."""
    stuck_rate: float = attrs.field(default=0.0, validator=SHARE)
    """Share of jobs that stay queued or processing."""
    instant_rate: float = attrs.field(default=0.0, validator=SHARE)
    """Share of jobs whose POST already replies `success`."""
    script: ScriptFactory | None = None
    """Chooses the scripts of single jobs; the rates apply to all other jobs."""

    api_keys: frozenset[str] | None = attrs.field(
        default=None, converter=attrs.converters.optional(frozenset)
    )
    """Accepted keys. None means any key that is not empty."""
    refused_keys: frozenset[str] = attrs.field(default=frozenset(), converter=frozenset)
    """Keys that get a 401."""
    organization_id: str = "org-emulator"
    """`org_id` of requests without an organization of their own."""
    credits: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Jobs that the account can pay for; the next submit gets a 402. None means no limit."""
    max_jobs_in_flight: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Jobs that may be in flight at once; one more is throttled. None means no limit."""
    throttle: Literal["429", "failed_job"] = "429"
    """What a throttled submit gets: a 429, or a job that fails with a rate-limit text."""
    retry_after: float | None = None
    """Real seconds in the `Retry-After` header of a 429. None means no such header."""

    response_format: ResponseFormat = ResponseFormat()
    faults: tuple[Fault, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=deep_iterable(instance_of(Fault))
    )
    """Faults from the start; `Emulator.faults` accepts more while the emulator runs."""
    media_cache_bytes: int = attrs.field(default=64 * 2**20, validator=ge(0))
    """Size of the media cache. Media outside the cache are encoded again for each download."""

    @property
    def host_names(self) -> frozenset[str]:
        """The names and addresses by which clients call the emulator, besides those of every machine."""
        storage = urlsplit(self.storage_url or "").hostname
        return frozenset(name.lower() for name in (self.host, *self.allowed_hosts, storage) if name)
