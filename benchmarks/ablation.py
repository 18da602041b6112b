"""What each part of the pace is worth: calls and lag when it is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kling_async._policy import pace
from kling_async._policy.pace import PacedJob
from kling_async._policy.run_times import RunTimes

PARTS = (
    "nothing left out",
    "no scout",
    "no wide first jitter",
    "nothing learned from unfinished jobs",
    "nothing learned at all",
)


@contextmanager
def leave_out(part: str) -> Iterator[None]:
    """Run the pace without one of its parts."""
    changes: dict[str, Sequence[tuple[Any, str, Any]]] = {
        "nothing left out": (),
        "no scout": [(PacedJob, "is_scout", False)],
        "no wide first jitter": [(pace, "_FIRST_JITTER", pace._JITTER)],  # noqa: SLF001
        "nothing learned from unfinished jobs": [(RunTimes, "fit", _fit_ends_alone(RunTimes.fit))],
        "nothing learned at all": [(RunTimes, "fit", _fit_nothing(RunTimes.fit))],
    }
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes[part]]
    for owner, name, value in changes[part]:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _fit_ends_alone(fit: Any) -> Any:
    return lambda times, _: fit(times, ())


def _fit_nothing(fit: Any) -> Any:
    return lambda times, _: None if times.ended else fit(times, ())
