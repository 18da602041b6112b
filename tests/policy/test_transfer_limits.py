from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.transfer_limits import MIN_BYTES_PER_SECOND, BodyRate, is_progress

MIB = 1024 * 1024


def rate_of(pieces, *, window=60.0):
    """The rate after these pieces, each with the seconds that it took, up to the first that makes the body too slow."""
    rate = BodyRate(window)
    for size_bytes, waited in pieces:
        rate.add(size_bytes, waited=waited)
        if rate.is_too_slow:
            break
    return rate


@pytest.mark.parametrize(
    "pieces",
    [
        [(1, 1.0)] * 60,
        [(1, 59.0)] * 2,
        [(1000, 1.0)] * 60,
        [(10 * MIB, 60.0)] + [(1, 20.0)] * 3,
        [(0, 60.0)],
    ],
    ids=["a byte a second", "a byte a minute", "below the floor", "fast, then slow", "nothing"],
)
def test_a_body_that_brings_less_than_the_floor_in_a_window_is_too_slow(pieces):
    rate = rate_of(pieces)
    assert rate.is_too_slow
    assert rate.waited >= 60.0
    assert rate.size_bytes < MIN_BYTES_PER_SECOND * rate.waited


@pytest.mark.parametrize(
    "pieces",
    [
        [(1, 1.0)] * 59,
        [(50_000, 1.0)] * 1000,
        [(6_000, 1.0)] * 1000,
        [(1, 59.0), (MIB, 1.0)] * 20,
        [(MIB // 4, 59.0)] * 20,
        [(1, 0.0)] * 10_000,
    ],
    ids=["not yet a window", "a hotel", "an eighth of a hotel", "pauses", "large pieces", "no wait"],
)
def test_a_slow_line_that_keeps_the_floor_is_waited_for(pieces):
    assert not rate_of(pieces).is_too_slow


@given(st.lists(st.tuples(st.integers(0, 10 * MIB), st.floats(0, 1000))), st.floats(0.1, 3600.0))
def test_a_body_that_is_not_too_slow_ends_after_a_time_that_its_size_allows(pieces, window):
    if not rate_of(pieces, window=window).is_too_slow:
        size_bytes, waited = sum(size for size, _ in pieces), sum(seconds for _, seconds in pieces)
        assert waited <= size_bytes / MIN_BYTES_PER_SECOND + window + 1e-6


@pytest.mark.parametrize(
    "gained, size, allowed",
    [
        (1, 20 * MIB, False),
        (MIB - 1, 20 * MIB, False),
        (MIB, 20 * MIB, True),
        (MIB, 4000 * MIB, True),
        (499, 10_000, False),
        (500, 10_000, True),
        (1, 3, True),
        (0, 3, False),
        (-5, 10_000, False),
        (100 * MIB, None, False),
    ],
)
def test_only_a_share_of_the_video_or_a_mib_allows_all_retries_again(gained, size, allowed):
    assert is_progress(gained, size_bytes=size) is allowed
