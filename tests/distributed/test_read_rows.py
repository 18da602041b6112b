"""From where a call reads rows again."""

from __future__ import annotations

from kling_async._distributed.read_rows import ReadRows


def test_rows_that_become_visible_late_are_read_and_no_row_twice():
    rows = ReadRows()

    rows.add([7, 9], now=0.0)
    assert (rows.floor, rows.above) == (0, [7, 9])
    rows.add([8], now=29.0)
    assert (rows.floor, rows.above) == (0, [7, 9, 8])


def test_what_is_remembered_is_a_short_time_of_rows():
    rows = ReadRows()
    for second in range(1000):
        rows.add(range(second * 10, second * 10 + 10), now=float(second))

    assert len(rows.above) <= 320
    assert rows.floor == 9_689


def test_a_late_row_below_the_floor_does_not_lower_it():
    rows = ReadRows(floor=5)
    rows.add([9], now=0.0)
    rows.add([6], now=20.0)
    rows.add([12], now=40.0)
    assert (rows.floor, rows.above) == (9, [12])
    rows.add([], now=51.0)
    assert (rows.floor, rows.above) == (9, [12])
