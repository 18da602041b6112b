from __future__ import annotations

from random import Random

import pytest

from kling_async.emulator import EmulatorSettings, JobScript, LogNormal, ResponseFormat


def test_without_spread_every_sample_is_the_median():
    assert LogNormal(7.0).sample(Random(1)) == 7.0  # noqa: S311 - any seed is good


def test_with_a_median_of_zero_every_sample_is_zero():
    assert LogNormal(0.0, 2.0).sample(Random(1)) == 0.0  # noqa: S311 - any seed is good


@pytest.mark.parametrize(
    "kind, field, value",
    [
        (LogNormal, "median", -1.0),
        (JobScript, "ending", "lost"),
        (ResponseFormat, "list_rows", 0),
        (ResponseFormat, "unlisted_rate", 1.1),
        (EmulatorSettings, "time_scale", 0.0),
        (EmulatorSettings, "time_scale", float("nan")),
        (EmulatorSettings, "time_scale", float("inf")),
        (EmulatorSettings, "workers", 0),
        (EmulatorSettings, "failure_rate", 2.0),
        (EmulatorSettings, "port", 70_000),
        (EmulatorSettings, "credits", -1),
    ],
)
def test_invalid_settings_are_refused_by_name(kind, field, value):
    with pytest.raises(ValueError, match=f"'{field}' must be"):
        kind(**{field: value})


def test_settings_refuse_faults_of_another_type():
    with pytest.raises(TypeError, match="Fault"):
        EmulatorSettings(faults=["drop"])


def test_settings_accept_collections_of_any_kind():
    settings = EmulatorSettings(api_keys=["a", "b"], refused_keys={"c"}, faults=[])

    assert (settings.api_keys, settings.refused_keys, settings.faults) == ({"a", "b"}, {"c"}, ())
