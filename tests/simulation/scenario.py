"""The scenario of a world: its seed decides everything before the first step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import attrs

from kling_async import VideoRequest

POST_FAULTS = (
    "refused",  # no connection was made
    "throttled",  # 429
    "denied",  # 400, not accepted
    "broke",  # 402, not accepted
    "lost",  # never arrived
    "unheard",  # accepted, and the answer never comes
    "failing",  # answered 500, 502, 408 or with garbage, not accepted
    "lying",  # accepted, and answered the same way
    "late",  # accepted after the process has stopped waiting
    "odd",  # accepted, and answered with an id only
    "doubled",  # accepted, and answered with the previous answer
)
CALL_FAULTS = ("cut", "failing", "throttled", "refused")
STATUS_FAULTS = (
    *CALL_FAULTS,
    "unseen",  # 404 once
    "stale",  # an earlier answer again
    "unknown status",  # a status that the client does not know
)
JOB_FAULTS = (
    "fails",
    "is throttled",  # fails for a rate limit
    "is cancelled",
    "vanishes",  # 404 from some time on
    "sticks",  # never ends while there are faults
    "shows late",  # its row does
    "never shows",
    "has no echo",  # its row has no payload
)
POINTS = ("post", "posted", "answered", "commit", "committing", "committed", "list", "listed")
"""The steps at which a process can be killed: before and after each effect that others can see."""

_RATES = (0.03, 0.1, 0.3)
_PROMPTS = ("a cat", "an eagle", "the sea", "a city at night")
_SPELLINGS: Sequence[Callable[[str], str]] = (str.strip, "{}\r\n".format, " {}".format)
"""Ways to spell a prompt that no reader can distinguish."""


@attrs.frozen(kw_only=True)
class Conditions:
    """The faults of the service, and the properties of its list."""

    rates: Mapping[str, float] = attrs.field(factory=dict)
    """The probability of each fault, by the kind of call or job and the name of the fault."""
    outages: Sequence[tuple[float, float]] = ()
    """Periods in which every call fails."""
    refusals: Sequence[tuple[float, float]] = ()
    """Periods in which the list is refused."""
    skew: float = 0.0
    """Seconds by which the service's clock is ahead."""
    has_date: bool = False
    """Whether its answers tell its time; if not, the two clocks differ by less."""
    order: str = "newest"
    rows: int = 100
    """The largest number of rows of a page."""
    has_total: bool = True
    has_more: bool = True
    strangers: int = 0
    """The number of old jobs of others in the list."""

    def pick_fault(self, kind: str, faults: Sequence[str], rng: random.Random) -> str | None:
        """The fault that happens now, if any."""
        for fault in faults:
            rate = self.rates.get(f"{kind} {fault}")
            if rate is not None and rng.random() < rate:
                return fault
        return None


@attrs.frozen(kw_only=True)
class Ending:
    """The end of a run: it finishes, is left early, or is killed."""

    how: str = "finish"
    """finish, leave, timeout, cancel or kill."""
    at: float = float("inf")
    """Seconds after its beginning."""
    point: str = ""
    """The kind of step at which the process is killed; empty for a kill at `at`."""
    count: int = 0
    """The number of that step, from 1."""


@attrs.frozen(kw_only=True)
class Pause:
    """A time in which a process stands still: none of its code runs, and what it has sent goes on."""

    seconds: float
    at: float = float("inf")
    """Seconds after the beginning of its run."""
    point: str = ""
    """The kind of step at which it begins instead."""
    count: int = 0
    """The number of that step, from 1."""


@attrs.frozen(kw_only=True)
class Run:
    """One process: a batch over some prompts."""

    requests: Sequence[VideoRequest]
    source: str = "list"
    """list, iterator or slow."""
    max_concurrency: int = 20
    max_concurrent_submits: int = 16
    max_submits_per_hour: float | None = None
    max_polls_per_second: float = 10.0
    timeout: float = 60.0
    wait_timeout: float = 600.0
    stall_timeout: float | None = None
    poll_interval: float | None = 5.0
    """Seconds; None adapts, which takes the most computing time."""
    use_lists: str = "auto"
    on_ambiguous: str = "report"
    retry_failed: bool = False
    cap: int | None = None
    """The number of videos that `max_cost_usd` allows."""
    full_disk: tuple[int, int] = (0, 0)
    """The first commit at which the disk is full, and the first at which it is not."""
    ending: Ending = Ending()
    rest: float = 0.0
    """Seconds until the next run begins."""
    pauses: Sequence[Pause] = ()
    """The times at which it stands still."""
    cuts: Sequence[tuple[float, float]] = ()
    """Times after its beginning, and for how many seconds from then on it cannot reach the shared journal."""
    clock_ahead: float = 0.0
    """Seconds by which the clock of its machine is ahead when it begins."""
    clock_steps: Mapping[int, tuple[float, float]] = attrs.field(factory=dict)
    """By the number of a POST, from 1, the seconds after which that clock is set, and by how many seconds."""
    lost_answers: float = 0.0
    """The probability that an answer of the shared journal is lost, so that the process asks again."""


@attrs.frozen(kw_only=True)
class Line:
    """Processes that follow one another over one journal."""

    begins: float = 0.0
    has_journal: bool = True
    has_price: bool = False
    organization: str = "org"
    """The organization of its key. All organizations are in one list."""
    runs: Sequence[Run] = ()
    on_ambiguous: str = "report"
    """What the last run does with ambiguous submits."""


@attrs.frozen(kw_only=True)
class Scenario:
    """One world."""

    seed: int
    conditions: Conditions
    lines: Sequence[Line]


def make_scenario(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(f"plan {seed}")  # noqa: S311
    pool = make_pool(rng)
    lines = [_make_line(rng, pool)]
    if rng.random() < 0.25:
        lines.append(_make_line(rng, pool if rng.random() < 0.7 else make_pool(rng)))
    conditions = make_conditions(rng)
    if rng.random() < 0.3:
        lines = [_with_one_prompt(line) for line in lines]
    elif rng.random() < 0.3:
        conditions, lines = _with_lost_submits(conditions), [_with_long_runs(line, rng) for line in lines]
    if seed % 2:
        lines[1:] = [attrs.evolve(line, organization="org of others") for line in lines[1:]]
    if (
        conditions.has_date and seed % 4
    ):  # nothing is proven absent where clocks are set: some worlds have right ones
        clocks = random.Random(f"clocks {seed}")  # noqa: S311
        lines = [_with_wrong_clocks(line, clocks) if clocks.random() < 0.9 else line for line in lines]
    return Scenario(seed=seed, conditions=conditions, lines=lines)


def _with_wrong_clocks(line: Line, rng: random.Random) -> Line:
    """The line with a clock of its own for each run, some of which are set while it runs."""
    runs = [
        attrs.evolve(
            run,
            clock_ahead=rng.choice((0.0, rng.uniform(-900, 900))),
            clock_steps={
                number: (rng.uniform(0, 8), rng.choice((-1, 1)) * rng.uniform(60, 900))
                for number in range(1, 12)
                if rng.random() < 0.4
            },
        )
        for run in line.runs
    ]
    return attrs.evolve(line, runs=runs)


def _with_lost_submits(conditions: Conditions) -> Conditions:
    """The conditions with many POSTs that are lost, and many rows that are hard to recognise."""
    rates = {"post lost": 0.2, "post unheard": 0.3, "job shows late": 0.5, "job has no echo": 0.2}
    return attrs.evolve(conditions, rates=rates, has_date=True, has_total=True)


def _with_long_runs(line: Line, rng: random.Random) -> Line:
    """The line with runs that submit for minutes, so that the list shows later jobs than the lost ones."""
    runs = [
        attrs.evolve(
            run,
            requests=[VideoRequest(f"take {number}") for number in range(10)],
            source="list",
            max_concurrency=rng.choice((2, 3)),
            on_ambiguous="resend_absent",
        )
        for run in line.runs
    ]
    return attrs.evolve(line, runs=runs, on_ambiguous="resend_absent")


def make_conditions(rng: random.Random) -> Conditions:
    """Some faults at some rates: a few frequent faults find more than all faults at a low rate."""
    kinds = {"post": POST_FAULTS, "status": STATUS_FAULTS, "list": CALL_FAULTS, "job": JOB_FAULTS}
    share = rng.choice((0.1, 0.25, 0.5))
    rates = {
        f"{kind} {fault}": rng.choice(_RATES)
        for kind, faults in kinds.items()
        for fault in faults
        if rng.random() < share
    }
    has_date = rng.random() < 0.5
    return Conditions(
        rates=rates,
        outages=_periods(rng),
        refusals=_periods(rng),
        skew=rng.uniform(-900, 900) if has_date else rng.choice((0.0, 0.0, rng.uniform(-30, 30))),
        has_date=has_date,
        order=rng.choice(("newest", "newest", "oldest", "mixed")),
        rows=rng.choice((3, 10, 100)),
        has_total=rng.random() < 0.7,
        has_more=rng.random() < 0.7,
        strangers=rng.choice((0, 0, 0, 8, 25)),
    )


def _periods(rng: random.Random) -> list[tuple[float, float]]:
    periods = []
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        begin = rng.uniform(0, 200)
        periods.append((begin, begin + rng.choice((5, 40, 150))))
    return periods


def make_pool(rng: random.Random) -> list[VideoRequest]:
    return [_make_request(rng) for _ in range(rng.choice((1, 2, 3, 6, 10)))]


def _make_line(rng: random.Random, pool: Sequence[VideoRequest]) -> Line:
    has_journal = rng.random() < 0.9
    requests = [rng.choice(pool) for _ in range(rng.choice((1, 3, 4, 5, 6, 8)))]
    has_price, runs = rng.random() < 0.3, []
    for _ in range(rng.choice((1, 2, 2, 3)) if has_journal else 1):
        runs.append(_make_run(rng, requests, has_journal=has_journal, has_price=has_price))
        requests = edit_requests(rng, requests, pool)
    return Line(
        begins=rng.choice((0.0, rng.uniform(0, 40))),
        has_journal=has_journal,
        has_price=has_price,
        runs=runs,
        on_ambiguous=rng.choice(("report", "resend", "resend_absent", "resend_absent")),
    )


def _with_one_prompt(line: Line) -> Line:
    """The line with one prompt in all requests, so that they differ only in their options."""
    runs = [
        attrs.evolve(run, requests=[attrs.evolve(one, prompt=_PROMPTS[0]) for one in run.requests])
        for run in line.runs
    ]
    return attrs.evolve(line, runs=runs)


def _make_request(rng: random.Random) -> VideoRequest:
    return VideoRequest(
        rng.choice(_PROMPTS),
        duration=rng.choice((None, None, 5, 10)),
        sound=rng.choice((None, None, None, True)),
        key=rng.choice((None, None, None, "one", "two")),
    )


def edit_requests(
    rng: random.Random, requests: Sequence[VideoRequest], pool: Sequence[VideoRequest]
) -> list[VideoRequest]:
    """The requests of the next run: perhaps in another order, spelt in another way, with one more or one fewer."""
    next_requests = list(requests)
    if rng.random() < 0.2:
        next_requests = [attrs.evolve(one, prompt=rng.choice(_SPELLINGS)(one.prompt)) for one in requests]
    if rng.random() < 0.3:
        rng.shuffle(next_requests)
    if rng.random() < 0.2:
        next_requests.insert(rng.randint(0, len(next_requests)), rng.choice(pool))
    if len(next_requests) > 1 and rng.random() < 0.2:
        next_requests.pop(rng.randrange(len(next_requests)))
    return next_requests


def _make_run(
    rng: random.Random, requests: Sequence[VideoRequest], *, has_journal: bool, has_price: bool
) -> Run:
    full = rng.randint(1, 12) if has_journal and rng.random() < 0.08 else 0
    return Run(
        requests=requests,
        source=rng.choice(("list", "list", "iterator", "slow")),
        max_concurrency=rng.choice((1, 2, 3, 5, 20)),
        max_concurrent_submits=rng.choice((1, 2, 4, 16)),
        max_polls_per_second=rng.choice((0.5, 2.0, 10.0)),
        timeout=rng.choice((10.0, 60.0)),
        wait_timeout=rng.choice((60.0, 300.0, 900.0)),
        stall_timeout=rng.choice((None, None, 120.0)),
        poll_interval=rng.choice((2.0, 5.0, 5.0, 5.0, 15.0, 15.0, 15.0, None)),
        use_lists=rng.choice(("always", "always", "never", "auto")),
        on_ambiguous=rng.choice((*["report"] * 5, "resend", "resend_absent", "resend_absent")),
        retry_failed=rng.random() < 0.15,
        cap=rng.randint(0, 9) if has_price and rng.random() < 0.5 else None,
        full_disk=(full, full + rng.randint(0, 3)) if full else (0, 0),
        ending=_make_ending(rng, may_die=has_journal),
        rest=rng.choice((0.0, 0.0, 1.0, 20.0, 100.0, 3000.0)),
    )


def _make_ending(rng: random.Random, *, may_die: bool) -> Ending:
    how = rng.choice(("finish", "leave", "timeout", "cancel", *(["kill"] * 6 if may_die else [])))
    if how == "kill" and rng.random() < 0.7:
        return Ending(how=how, point=rng.choice(POINTS), count=rng.choice((1, 1, 2, 3, 4, 6)))
    return Ending() if how == "finish" else Ending(how=how, at=rng.choice((1, 5, 20, 100)) * rng.random())
