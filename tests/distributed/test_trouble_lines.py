"""The lines of a log about a database that cannot be reached."""

from __future__ import annotations

from kling_async._distributed.trouble_lines import TroubleLines


def test_an_outage_is_one_line_at_its_begin_one_a_minute_and_one_at_its_end():
    lines = TroubleLines()
    assert [second for second in range(130) if lines.is_due(is_outage=True, now=float(second))] == [
        0,
        60,
        120,
    ]
    assert [lines.end(), lines.end()] == [True, False]
    assert lines.is_due(is_outage=True, now=131.0)


def test_a_database_that_refuses_is_told_once_a_minute_although_it_answers_others():
    lines = TroubleLines()
    told = []
    for second in range(70):
        assert not lines.end()
        told.append(lines.is_due(is_outage=False, now=float(second)))
    assert [second for second, is_told in enumerate(told) if is_told] == [0, 60]
