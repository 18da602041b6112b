from __future__ import annotations

import pytest

from kling_async._display.moving_rate import MovingRate


def test_the_rate_is_zero_before_the_first_amount():
    rate = MovingRate()
    assert rate.at(5.0) == 0.0
    rate.begin(5.0)
    assert rate.at(5.0) == 0.0
    assert rate.at(6.0) == 0.0


@pytest.mark.parametrize("seconds", [1, 10, 100])
def test_even_amounts_have_their_rate_from_the_beginning(seconds):
    rate = MovingRate()
    rate.begin(0.0)
    for step in range(1, 10 * seconds + 1):
        rate.add(7.0, now=step / 10)
    assert rate.at(float(seconds)) == pytest.approx(70.0, rel=0.02)


def test_a_second_begin_does_nothing():
    rate = MovingRate()
    rate.begin(0.0)
    rate.begin(9.0)
    rate.add(100.0, now=10.0)
    assert rate.at(10.0) == pytest.approx(100 / (5 * 0.8647), rel=0.01)


def test_the_rate_decays_when_nothing_comes():
    rate = MovingRate()
    rate.add(1e6, now=0.0)
    assert 0 < rate.at(60.0) < rate.at(10.0) < rate.at(1.0)


def test_a_clock_that_is_set_back_does_no_harm():
    rate = MovingRate()
    rate.begin(100.0)
    rate.add(10.0, now=101.0)
    rate.add(10.0, now=50.0)
    assert rate.at(50.0) == 0.0
    assert rate.at(102.0) > 0
