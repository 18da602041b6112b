from __future__ import annotations

from random import Random

import pytest

from kling_async.emulator import EmulatorSettings, JobScript, LogNormal, ResponseFormat


def test_no_spread_makes_each_draw_the_median():
    assert LogNormal(7.0).sample(Random(1)) == 7.0  # noqa: S311 - any dice will do


def test_a_median_of_zero_is_always_zero():
    assert LogNormal(0.0, 2.0).sample(Random(1)) == 0.0  # noqa: S311 - any dice will do


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
def test_settings_that_make_no_sense_are_refused_by_name(kind, field, value):
    with pytest.raises(ValueError, match=f"'{field}' must be"):
        kind(**{field: value})


def test_faults_must_be_faults():
    with pytest.raises(TypeError, match="Fault"):
        EmulatorSettings(faults=["drop"])


def test_collections_of_any_kind_are_taken():
    settings = EmulatorSettings(api_keys=["a", "b"], refused_keys={"c"}, faults=[])

    assert (settings.api_keys, settings.refused_keys, settings.faults) == ({"a", "b"}, {"c"}, ())
