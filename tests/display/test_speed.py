from __future__ import annotations

import pytest

from kling_async._display.speed import Speed


def test_nothing_can_be_said_before_something_began():
    speed = Speed()
    assert speed.at(5.0) == 0.0
    speed.begin(5.0)
    assert speed.at(5.0) == 0.0
    assert speed.at(6.0) == 0.0


@pytest.mark.parametrize("seconds", [1, 10, 100])
def test_what_comes_evenly_has_that_speed_from_the_beginning(seconds):
    speed = Speed()
    speed.begin(0.0)
    for step in range(1, 10 * seconds + 1):
        speed.add(7.0, now=step / 10)
    assert speed.at(float(seconds)) == pytest.approx(70.0, rel=0.02)


def test_only_the_first_beginning_counts():
    speed = Speed()
    speed.begin(0.0)
    speed.begin(9.0)
    speed.add(100.0, now=10.0)
    assert speed.at(10.0) == pytest.approx(100 / (5 * 0.8647), rel=0.01)


def test_what_stopped_fades():
    speed = Speed()
    speed.add(1e6, now=0.0)
    assert 0 < speed.at(60.0) < speed.at(10.0) < speed.at(1.0)


def test_a_clock_that_is_set_back_does_no_harm():
    speed = Speed()
    speed.begin(100.0)
    speed.add(10.0, now=101.0)
    speed.add(10.0, now=50.0)
    assert speed.at(50.0) == 0.0
    assert speed.at(102.0) > 0
