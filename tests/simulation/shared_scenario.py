"""The scenario of a world in which several processes share one journal at the same time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs

from kling_async import VideoRequest

from .scenario import (
    POINTS,
    Ending,
    Line,
    Pause,
    Run,
    Scenario,
    edit_requests,
    make_conditions,
    make_pool,
)

_PAUSE_POINTS = ("asked", "asked", "asked", "post", "post", "post", "posted", "answered", "list", "listed")
"""The steps at which a process can stand still: above all while its journal answers, and between that and its POST."""
_SHORT = 8.0
"""Seconds that a process that is cut off from the journal can stand still: no client can notice less before a POST."""


@attrs.frozen(kw_only=True)
class Member:
    """Processes that follow one another, at the same time as those of other members."""

    begins: float
    runs: Sequence[Run]


@attrs.frozen(kw_only=True)
class SharedScenario(Scenario):
    """A world with one journal, which all its processes share."""

    members: Sequence[Member]


def make_shared_scenario(seed: int) -> SharedScenario:
    """The scenario of a seed."""
    rng = random.Random(f"shared {seed}")  # noqa: S311
    conditions = make_conditions(rng)
    if rng.random() < 0.5:  # a few faults, so that what the processes do to one another can be seen
        conditions = attrs.evolve(conditions, rates=_few_faults(rng), outages=(), refusals=())
    has_price, hourly = rng.random() < 0.4, rng.choice((None, None, None, 30.0, 240.0))
    at_once, timeout = rng.choice((1, 2, 4, 16)), rng.choice((10.0, 60.0))
    pool = make_pool(rng)
    requests = [rng.choice(pool) for _ in range(rng.choice((1, 2, 3, 4, 6, 8)))]
    has_look_alikes = rng.random() < 0.3
    if has_look_alikes:
        conditions = attrs.evolve(conditions, rates={"post lost": 0.3, "post unheard": 0.1})
    cap = rng.randint(1, 9) if has_price and rng.random() < 0.6 else None
    members = []
    for number in range(rng.choice((2, 2, 2, 3))):
        if has_look_alikes:
            requests = [
                VideoRequest("a cat", key=f"{number} {index}") for index in range(rng.choice((2, 4, 6)))
            ]
        runs = []
        for _ in range(rng.choice((1, 2, 2, 3))):
            run = _make_run(rng, requests, cap=cap, timeout=timeout)
            runs.append(attrs.evolve(run, max_submits_per_hour=hourly, max_concurrent_submits=at_once))
        members.append(Member(begins=rng.choice((0.0, 0.0, rng.uniform(0, 40))), runs=runs))
        requests = edit_requests(rng, requests, pool)
    line = Line(
        has_price=has_price,
        runs=[run for member in members for run in member.runs],
        on_ambiguous=rng.choice(("report", "resend", "resend_absent", "resend_absent")),
    )
    return SharedScenario(seed=seed, conditions=conditions, lines=[line], members=members)


def _few_faults(rng: random.Random) -> dict[str, float]:
    faults = ("post lost", "post unheard", "post late", "post lying", "job shows late", "job is throttled")
    return {fault: rng.choice((0.05, 0.2)) for fault in faults if rng.random() < 0.4}


def _make_run(
    rng: random.Random, requests: Sequence[VideoRequest], *, cap: int | None, timeout: float
) -> Run:
    trouble = rng.choice(("stops", "stops", "stops", "cuts", "none"))
    ending, pauses = _make_ending(rng, is_calm=trouble == "none"), []
    if trouble != "none":
        pauses = _make_pauses(rng, longest=_SHORT if trouble == "cuts" else 4_000.0)
    if pauses and rng.random() < 0.2:  # it stands still before a POST, and is killed after that
        pauses = [attrs.evolve(pauses[0], point="asked", count=rng.choice((2, 3)))]
        ending = Ending(how="kill", point=rng.choice(("posted", "answered")), count=1)
    return Run(
        requests=requests,
        source=rng.choice(("list", "list", "iterator", "slow")),
        max_concurrency=rng.choice((1, 2, 5, 20)),
        max_polls_per_second=rng.choice((2.0, 10.0)),
        timeout=timeout,
        wait_timeout=rng.choice((300.0, 900.0)),
        poll_interval=rng.choice((5.0, 5.0, 15.0, None)),
        use_lists=rng.choice(("always", "never", "auto")),
        on_ambiguous=rng.choice(("report", "resend_absent", "resend_absent", "resend_absent", "resend")),
        retry_failed=rng.random() < 0.1,
        cap=cap,
        ending=ending,
        rest=rng.choice((0.0, 1.0, 20.0, 100.0)),
        pauses=pauses,
        cuts=_make_cuts(rng) if trouble == "cuts" else (),
        lost_answers=rng.choice((0.0, 0.0, 0.05)),
    )


def _make_pauses(rng: random.Random, *, longest: float) -> list[Pause]:
    pauses = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        seconds = min(longest, rng.choice((5.0, 45.0, 200.0, 200.0, 1_000.0, 4_000.0)) * rng.uniform(0.5, 1))
        if rng.random() < 0.7:
            point, count = rng.choice(_PAUSE_POINTS), rng.choice((1, 1, 2, 3, 4, 5, 8))
            pauses.append(Pause(seconds=seconds, point=point, count=count))
        else:
            pauses.append(Pause(seconds=seconds, at=rng.choice((2, 20, 100)) * rng.random()))
    return pauses


def _make_cuts(rng: random.Random) -> list[tuple[float, float]]:
    return [
        (rng.choice((5, 30, 100)) * rng.random() + 0.1, rng.choice((5.0, 28.0, 45.0, 100.0, 400.0)))
        for _ in range(rng.choice((1, 1, 2)))
    ]


def _make_ending(rng: random.Random, *, is_calm: bool) -> Ending:
    how = rng.choice(("finish", "finish", "kill", "kill", *(["leave", "cancel"] if is_calm else [])))
    if how == "kill" and rng.random() < 0.6:
        return Ending(how=how, point=rng.choice(POINTS), count=rng.choice((1, 1, 2, 3, 4, 6)))
    return (
        Ending() if how == "finish" else Ending(how=how, at=rng.choice((1, 5, 20, 100, 1_000)) * rng.random())
    )
