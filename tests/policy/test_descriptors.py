from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import APIConnectionError, Limits
from kling_async._policy.descriptors import descriptor_pause, fit_limits, lacks_descriptors


def both(limits):
    return limits.max_concurrent_submits, limits.max_concurrent_downloads


@pytest.mark.parametrize("max_open_files", [None, 256, 1024, 1_048_576])
def test_the_default_limits_fit_every_usual_process(max_open_files):
    assert fit_limits(Limits(), max_open_files) == Limits()


@pytest.mark.parametrize(
    "max_open_files, fitted",
    [
        (None, (2000, 500)),
        (8192, (2000, 500)),
        (1024, (448, 40)),
        (256, (64, 5)),
        (128, (1, 1)),
        (16, (1, 1)),
    ],
)
def test_wide_limits_are_lowered_to_the_descriptors_of_the_process(max_open_files, fitted):
    limits = Limits(max_concurrent_submits=2000, max_concurrent_downloads=500, max_polls_per_second=7)
    lowered = fit_limits(limits, max_open_files)
    assert both(lowered) == fitted
    assert lowered.max_polls_per_second == 7


@given(
    submits=st.integers(1, 10**6),
    downloads=st.integers(1, 10**6),
    fewer=st.integers(0, 10**6),
    more=st.integers(0, 99),
)
def test_more_descriptors_never_lower_a_limit_and_no_limit_is_raised(submits, downloads, fewer, more):
    limits = Limits(max_concurrent_submits=submits, max_concurrent_downloads=downloads)
    low, high = both(fit_limits(limits, fewer)), both(fit_limits(limits, fewer + more))
    assert low[0] <= high[0] <= submits
    assert sum(low) <= sum(high)
    assert min(low) >= 1
    assert high[1] <= downloads


def caused_by(cause):
    error = APIConnectionError("no connection")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, lacks",
    [
        (OSError(errno.EMFILE, "Too many open files"), True),
        (caused_by(OSError(errno.ENFILE, "Too many open files in system")), True),
        (caused_by(caused_by(OSError(errno.EMFILE, "Too many open files"))), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (caused_by(None), False),
        (None, False),
    ],
)
def test_the_lack_of_descriptors_is_told_by_the_error_that_caused_an_error(error, lacks):
    assert lacks_descriptors(error) is lacks


def test_pauses_grow_from_a_tenth_of_a_second_to_two_seconds():
    assert [descriptor_pause(attempt=n, jitter=0.0) for n in (0, 1, 2, 5, 10**6)] == [0.1, 0.2, 0.4, 2.0, 2.0]
    assert descriptor_pause(attempt=0, jitter=1.0) == 0.05
