"""Simulated jobs that know when they finish and remember when a client was told.

Nothing here is a timer: each fact is worked out when somebody asks, so a hundred thousand
waiting jobs cost the service nothing.
"""

from __future__ import annotations

import math
import random
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

UNKNOWN = -1


def prompts(count: int) -> Iterator[str]:
    """That many different prompts of an ordinary length, made one at a time."""
    subjects = ("A majestic eagle", "An old tram", "A paper boat", "Two dancers", "A lighthouse keeper")
    places = ("over a sunset valley", "in a rainy street", "on a still pond", "under neon light")
    for number in range(count):
        subject, place = subjects[number % len(subjects)], places[number % len(places)]
        yield f"{subject} {place}, slow camera move, soft light, shot number {number}"


@dataclass(kw_only=True)
class Workload:
    """How the simulated service treats the jobs that it is given."""

    median: float = 0.0
    """Median run time in seconds; 0 means that a job is done at once."""
    sigma: float = 0.35
    """Spread of the log-normal run times."""
    seed: int = 1
    """The n-th job accepted takes equally long in every run with this seed."""
    hold_until_jobs: int = 0
    """No job starts to run before this many are accepted; 0 means at once."""
    rows_per_call: int = 100
    """What one list call gives at most, whatever the client asks for."""
    order: str = "newest"
    """`newest`, `oldest` or `random`: how the list is sorted."""
    media_url: str = "https://storage.googleapis.com/gmi-video-assests-prod/user-assests/{id}.mp4"
    """Where a finished job's video lies; `{id}` is the request id."""


@dataclass(kw_only=True)
class Counts:
    """HTTP requests that clients sent, by kind; what the benchmark itself asks is not counted."""

    submit: int = 0
    get: int = 0
    list: int = 0
    media: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of them, downloads aside."""
        return self.submit + self.get + self.list + self.other


@dataclass
class Jobs:
    """Every job of one run, by the order in which the service accepted them."""

    workload: Workload
    run: int = 0
    """Number of the run; ids of another run are unknown in this one."""
    counts: Counts = field(default_factory=Counts)
    models: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    accepted: array[float] = field(default_factory=lambda: array("d"))
    finish: array[float] = field(default_factory=lambda: array("d"))
    epoch: float = field(default_factory=lambda: time.time() - time.monotonic())
    """Unix seconds at which the monotonic clock stood at 0."""
    told: array[float] = field(default_factory=lambda: array("d"))
    """When a reply first said that the job is final; NaN before."""
    _rng: random.Random = field(init=False)
    _by_model: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.workload.seed)

    def __len__(self) -> int:
        return len(self.accepted)

    def accept(self, model: str, payload: bytes, *, now: float) -> int:
        """The number of a new job; `payload` is its JSON text."""
        self._by_model.setdefault(model, []).append(len(self))
        self.models.append(model)
        self.payloads.append(payload)
        self.accepted.append(now)
        self.told.append(math.nan)
        held = self.workload.hold_until_jobs
        self.finish.append(math.inf if len(self) < held else now + self._run_time())
        if len(self) == held:
            self._release(now)
        return len(self) - 1

    def _run_time(self) -> float:
        median = self.workload.median
        return self._rng.lognormvariate(math.log(median), self.workload.sigma) if median else 0.0

    def _release(self, now: float) -> None:
        for index in range(len(self) - 1):
            self.finish[index] = now + self._run_time()

    def tell_final(self, index: int, *, now: float) -> bool:
        """Whether the job is done, noting that a client now hears of it."""
        if self.finish[index] > now:
            return False
        if math.isnan(self.told[index]):
            self.told[index] = now
        return True

    def id_of(self, index: int) -> str:
        """The request id, in the form of a UUID."""
        return f"{index:08x}-{self.run:04x}-4000-8000-00000000feed"

    def index_of(self, request_id: str) -> int:
        """The job's number, or `UNKNOWN`."""
        try:
            index = int(request_id[:8], 16)
        except ValueError:
            return UNKNOWN
        return index if index < len(self) and self.id_of(index) == request_id else UNKNOWN

    def list_page(self, model: str | None, *, offset: int, limit: int) -> tuple[Sequence[int], int]:
        """One page of job numbers in the list's order, and how many there are in all."""
        chosen = range(len(self)) if model is None else self._by_model.get(model, [])
        if self.workload.order == "newest":
            end = max(len(chosen) - offset, 0)
            return chosen[max(end - limit, 0) : end][::-1], len(chosen)
        if self.workload.order == "random":
            chosen = random.Random(self.workload.seed).sample(chosen, len(chosen))
        return chosen[offset : offset + limit], len(chosen)

    def rows(self) -> Iterator[tuple[float, float, float | None]]:
        """Accepted, finished and told, in seconds after the first job was accepted."""
        for accepted, finish, told in zip(self.accepted, self.finish, self.told, strict=True):
            start = self.accepted[0]
            yield accepted - start, finish - start, None if math.isnan(told) else told - start

    def report(self) -> dict[str, Any]:
        """Counts of requests, and of jobs accepted and told."""
        told = sum(not math.isnan(moment) for moment in self.told)
        return {"requests": asdict(self.counts), "accepted": len(self), "told": told}
