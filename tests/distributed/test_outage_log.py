"""The lines of a log about a database that cannot be reached."""

from __future__ import annotations

import pytest

from kling_async._distributed.outage_log import OutageLog
from kling_async.errors import JournalError


def test_the_same_trouble_twice_is_one_line(caplog):
    pytest.importorskip("procrastinate")
    from kling_async._distributed.database import WorkersDatabase

    database = WorkersDatabase.at("postgresql://me@127.0.0.1:1/videos")
    for _ in range(2):
        database.report_trouble(
            JournalError("The journal could not be reached (refused): check the URL."), now=1.0
        )
    [record] = caplog.records
    assert record.message == "The journal could not be reached (refused): this process tries again."


def test_an_outage_is_one_line_at_its_begin_one_a_minute_and_one_at_its_end():
    log = OutageLog()
    assert [second for second in range(130) if log.is_due(is_outage=True, now=float(second))] == [
        0,
        60,
        120,
    ]
    assert [log.end(), log.end()] == [True, False]
    assert log.is_due(is_outage=True, now=131.0)


def test_a_database_that_refuses_is_told_once_a_minute_although_it_answers_others():
    log = OutageLog()
    told = []
    for second in range(70):
        assert not log.end()
        told.append(log.is_due(is_outage=False, now=float(second)))
    assert [second for second, is_told in enumerate(told) if is_told] == [0, 60]
