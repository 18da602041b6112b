from __future__ import annotations

import math

import pytest

from kling_async._policy.polling import PollingPolicy
from kling_async.errors import ConfigurationError


@pytest.mark.parametrize("name", ["wait_timeout", "stall_timeout", "poll_interval", "max_poll_interval"])
@pytest.mark.parametrize("value", [-1, math.nan, "5", True])
def test_the_error_of_a_setting_out_of_range_names_setting_and_rule(name, value):
    with pytest.raises(ConfigurationError, match=rf"^PollingPolicy\(\): {name} must be a number .*{value!r}"):
        PollingPolicy(**{name: value})


@pytest.mark.parametrize("value", ["sometimes", None, True])
def test_use_lists_is_one_of_three_words(value):
    with pytest.raises(ConfigurationError, match=r"use_lists must be 'auto', 'never' or 'always', not "):
        PollingPolicy(use_lists=value)


def test_max_poll_interval_is_above_zero():
    with pytest.raises(ConfigurationError, match="above 0"):
        PollingPolicy(max_poll_interval=0)


def test_the_defaults_are_those_of_the_reference():
    policy = PollingPolicy()
    assert (policy.wait_timeout, policy.stall_timeout, policy.poll_interval) == (3600.0, None, None)
    assert (policy.max_poll_interval, policy.use_lists) == (30.0, "auto")
