from __future__ import annotations

import math

import attrs
import numpy as np
import pandas as pd
import pytest

from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy
from kling_async._policy.validators import at_least, check_choice
from kling_async.errors import ConfigurationError
from kling_async.lines import quote_value


@attrs.frozen
class Setting:
    plain: float = attrs.field(default=1, validator=at_least(0))
    above: float = attrs.field(default=1, validator=at_least(0, above=True))
    whole: int = attrs.field(default=1, validator=at_least(1, whole=True))
    optional: float | None = attrs.field(default=None, validator=at_least(0.5, above=True, optional=True))


@pytest.mark.parametrize(
    "value", [None, 1, "never", b"auto", [], np.array(["auto"]), pd.Series(["auto"])], ids=quote_value
)
def test_the_error_of_a_setting_of_a_few_values_lists_them(value):
    with pytest.raises(ConfigurationError, match=r"pace must be True, False or 'auto', not "):
        check_choice("pace", value, (True, False, "auto"))
    for choice in (True, False, "auto"):
        check_choice("pace", choice, (True, False, "auto"))


@pytest.mark.parametrize(
    "fields",
    [
        {"plain": 0},
        {"plain": math.inf},
        {"plain": 10**400},
        {"above": 5e-324},
        {"whole": 1},
        {"whole": 10**5000},
        {"optional": None},
        {"optional": 0.6},
    ],
    ids=quote_value,
)
def test_a_setting_within_its_bounds_is_valid(fields):
    assert attrs.asdict(Setting(**fields)) | fields == attrs.asdict(Setting(**fields))


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"plain": -1}, "plain must be a number of at least 0, not -1."),
        ({"plain": math.nan}, "plain must be a number of at least 0, not nan."),
        ({"plain": None}, "plain must be a number of at least 0, not None."),
        ({"plain": "5"}, "plain must be a number of at least 0, not '5'."),
        ({"plain": True}, "plain must be a number of at least 0, not True."),
        (
            {"plain": -(10**5000)},
            "plain must be a number of at least 0, not <int that cannot be shown>.",
        ),
        ({"above": 0}, "above must be a number above 0, not 0."),
        ({"whole": 0}, "whole must be a whole number of at least 1, not 0."),
        ({"whole": 1.0}, "whole must be a whole number of at least 1, not 1.0."),
        ({"optional": 0.5}, "optional must be a number above 0.5 or None, not 0.5."),
    ],
    ids=quote_value,
)
def test_the_error_of_a_setting_out_of_bounds_is_one_sentence_that_names_it(fields, sentence):
    with pytest.raises(ConfigurationError) as caught:
        Setting(**fields)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    "settings_class, fields",
    [
        (Limits, {"max_concurrent_submits": 0}),
        (Limits, {"max_concurrent_submits": 2.5}),
        (Limits, {"max_submits_per_hour": 0}),
        (Limits, {"max_polls_per_second": 0}),
        (Limits, {"max_polls_per_second": math.nan}),
        (Limits, {"max_concurrent_downloads": -1}),
        (RetryPolicy, {"max_retries": -1}),
        (RetryPolicy, {"max_retries": None}),
        (RetryPolicy, {"initial_delay": -0.1}),
        (RetryPolicy, {"max_delay": math.nan}),
        (RetryPolicy, {"max_retry_after": -1}),
        (RetryPolicy, {"download_timeout": 0}),
    ],
    ids=quote_value,
)
def test_invalid_settings_raise_an_error_at_construction(settings_class, fields):
    with pytest.raises(
        ConfigurationError, match=rf"^{settings_class.__name__}\(\): {next(iter(fields))} must be a"
    ):
        settings_class(**fields)
