from __future__ import annotations

import math

import pytest

from benchmarks import figures


def test_columns_are_as_wide_as_their_widest_cell():
    lines = figures.table_of(["who", "ms"], [["a", 1.0], ["longer", 12.5], ["c", None]]).splitlines()
    assert lines == ["who       ms", "------  ----", "a       1.00", "longer  12.5", "c          -"]


@pytest.mark.parametrize(
    "value,shown", [(0.123, "0.12"), (12.34, "12.3"), (418.4, "418"), (math.nan, "-"), (7, "7")]
)
def test_figures_have_three_digits(value, shown):
    assert figures.table_of(["x"], [[value]]).split()[-1] == shown


@pytest.mark.parametrize("part,expected", [(0.5, 2), (0.95, 4), (0.0, 1), (1.0, 4)])
def test_a_quantile_is_one_of_the_samples(part, expected):
    assert figures.quantile([4, 1, 3, 2], part) == expected


def test_a_quantile_of_nothing_is_not_a_number():
    assert math.isnan(figures.quantile([], 0.5))


@pytest.mark.parametrize(
    "mark,value,at_least,expected",
    [
        (1.3, 1.3, False, "≤ 1.3 met"),
        (1.3, 1.31, False, "≤ 1.3 missed"),
        (0.8, 0.9, True, "≥ 0.8 met"),
        (None, 5.0, False, ""),
    ],
)
def test_a_mark_is_met_or_missed(mark, value, at_least, expected):
    assert figures.against(mark, value, at_least=at_least) == expected


def test_missing_peers_are_named():
    shown = figures.describe(
        {
            "machine": "M",
            "processors": 2,
            "python": "P",
            "packages": {},
            "peers": {"httpx": "1"},
            "peers_missing": ["fal-client"],
            "service_on_processor": 0,
        }
    )
    assert "fal-client" in shown.splitlines()[-1]
