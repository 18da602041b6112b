from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from kling_async import Job, JobStatus
from kling_async._policy.list_evidence import (
    MAX_EMPTY_PAGES,
    ROW_DELAY,
    ListReading,
    RecentReading,
    closes_at,
    explain_unmatched,
    is_absent,
)
from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.own_user import OwnUser
from kling_async._policy.service_clock import Instant

CAT = {"prompt": "a cat"}
DOG = {"prompt": "a dog"}
LOST = LostSubmit(payload=CAT, since=40.0, until=160.0)
CLOSED = 160.0 + ROW_DELAY


def row(request_id, at=100.0, payload=CAT, user_id=None):
    return Job(
        user_id=user_id,
        request_id=request_id,
        status=JobStatus.QUEUED,
        payload=payload,
        created_at=None if at is None else datetime.fromtimestamp(at, UTC),
    )


LATER = row("mine", at=200.0, payload=DOG)
"""A job of ours that was accepted after the lost one could be."""


def read(*pages, began_at=CLOSED, total=None, since=40.0):
    """A reading of these pages and of the empty page after them."""
    reading = ListReading(began_at, since=since)
    for page in (*pages, ()):
        reading.add(page, rows=len(page), total=total)
    return reading


NOW = Instant(wall=CLOSED, monotonic=0.0, offset=0.0, clock_changes=0)


def absent(*rows, lost=LOST, later=LATER, now=NOW, own=OwnUser(), **settings):  # noqa: B008 - it learns nothing here
    reading = read([later, *rows], **settings)
    return is_absent(lost, reading, now=now, has_owner=lambda id_: id_.startswith("mine"), own=own)


def test_a_whole_list_that_shows_a_later_job_of_ours_and_no_other_proves_absence():
    assert absent()
    assert absent(row("mine too"), row("old", at=39), row("b", payload=DOG))


def test_a_reading_before_the_row_must_have_appeared_proves_nothing():
    assert closes_at(LOST) == CLOSED
    assert not absent(began_at=CLOSED - 0.1)


def test_without_the_service_clock_nothing_is_proven():
    assert not absent(began_at=None)


def test_a_submit_whose_time_another_clock_may_have_told_is_never_proven_absent():
    assert not absent(lost=attrs.evolve(LOST, may_have_other_clock=True))


def test_a_submit_is_not_proven_absent_once_a_clock_was_set_since():
    assert not absent(now=attrs.evolve(NOW, clock_changes=1))
    assert absent(now=attrs.evolve(NOW, clock_changes=1), lost=attrs.evolve(LOST, clock_changes=1))


@pytest.mark.parametrize(
    "later",
    [
        row("mine", at=160.0, payload=DOG),
        row("a stranger's", at=200.0, payload=DOG),
        row("mine", at=None, payload=DOG),
    ],
    ids=["within the window", "not ours", "without a time"],
)
def test_without_a_later_job_of_ours_nothing_is_proven(later):
    assert not is_absent(LOST, read([later]), now=NOW, has_owner=lambda id_: id_ == "mine", own=OwnUser())


@pytest.mark.parametrize(
    "job",
    [
        row("equal"),
        row("later", at=10_000.0),
        row("without a time", at=None),
        row("without an echo", payload={}),
        row("trimmed", payload={"prompt": " a cat\r\n"}),
        row("cut short", payload={"prompt": "a c"}),
        row("longer", payload={"prompt": "a cat, in the best quality"}),
        row("with more", payload={**CAT, "duration": "5"}),
        row("of another type", payload={"prompt": ["a cat"]}),
    ],
    ids=lambda job: job.request_id,
)
def test_a_job_without_an_owner_that_could_be_the_lost_one_prevents_the_proof(job):
    assert not absent(job)


@pytest.mark.parametrize(
    "sent, echo, differs",
    [
        ({"image": "https://a.example/1.png"}, {"image": "https://b.example/2.png"}, False),
        ({"image": "data:image/png;base64,AAAA"}, {"image": "https://b.example/2.png"}, False),
        ({"duration": "10"}, {"duration": "5"}, True),
        ({"duration": "10"}, {"duration": 10}, False),
        ({"cfg_scale": 0.5}, {"cfg_scale": 0.7}, True),
        ({"cfg_scale": 0.5}, {"cfg_scale": 0.5}, False),
    ],
)
def test_a_difference_counts_only_if_no_service_makes_it(sent, echo, differs):
    lost = LostSubmit(payload={**CAT, **sent}, since=40.0, until=160.0)
    assert absent(row("a", payload={**CAT, **echo}), lost=lost) is differs


def test_a_job_of_another_user_disproves_nothing_and_proves_nothing():
    own, other = OwnUser(users={"me"}), row("b", user_id="other")
    assert absent(other, own=own)
    assert not absent(other)
    assert not absent(row("a", user_id="me"), own=own)
    assert not absent(later=attrs.evolve(LATER, user_id="other"), own=own)
    assert absent(later=attrs.evolve(LATER, user_id="me"), own=own)


def test_the_submit_of_an_earlier_run_can_have_been_sent_with_another_key():
    lost = attrs.evolve(LOST, has_present_key=False)
    assert not absent(row("b", user_id="other"), lost=lost, own=OwnUser(users={"me"}))


def test_two_spellings_of_one_uuid_are_one_row():
    uuid = "550e8400-e29b-41d4-a716-446655440000"
    assert len(read([row(uuid), row(uuid.upper()), row("a"), row("A")]).recent) == 3


# Whether a list was read whole


OLD = [row(f"old {number}", at=10.0 * number) for number in range(10)]


def test_a_list_is_whole_if_all_rows_of_its_total_were_read():
    assert read(OLD[:5], OLD[5:], total=10).is_whole
    assert not read(OLD[:5], total=10).is_whole
    assert not read(OLD[:5], OLD[6:], total=10).is_whole


def test_a_list_without_a_total_is_whole_on_one_page_only():
    assert read(OLD).is_whole
    assert read().is_whole
    assert not read(OLD[:5], OLD[5:]).is_whole


def test_a_list_is_not_whole_before_its_end():
    reading = ListReading(CLOSED)
    reading.add(OLD, rows=10, total=None)
    assert not reading.is_over
    assert not reading.is_whole


def test_a_service_that_repeats_a_page_ends_the_reading():
    reading = ListReading(CLOSED)
    for _ in range(2):
        reading.add(OLD[:5], rows=5, total=10)
    assert reading.is_over
    assert not reading.is_whole


def test_a_row_that_cannot_be_read_could_be_any_job():
    reading = ListReading(CLOSED)
    reading.add(OLD, rows=11, total=None)
    reading.add([], rows=0, total=None)
    assert not reading.is_whole


def test_rows_that_appear_during_the_reading_do_not_stand_for_rows_that_were_missed():
    new = [row("new 1", at=CLOSED + 1), row("new 2", at=CLOSED + 2)]
    assert read(OLD[:5], [*OLD[4:], *new], total=10).is_whole
    assert not read(OLD[:5], [*OLD[7:], *new], total=10).is_whole


def test_only_recent_rows_and_rows_without_a_time_are_kept():
    assert [job.request_id for job in read([*OLD, row("x", at=None)], since=80.0).recent] == [
        "old 8",
        "old 9",
        "x",
    ]


# When the whole list is read


# What the error says


def explain(*rows, owned=(), own=OwnUser(), is_clock_known=True):  # noqa: B008 - it learns nothing here
    return explain_unmatched(
        LOST, rows, has_owner=lambda id_: id_ in owned, own=own, is_clock_known=is_clock_known
    )


def test_the_reason_says_that_jobs_are_of_other_users():
    mine, other = row("a", user_id="me"), row("b", user_id="other")
    assert explain(other, own=OwnUser(users={"me"})) == (
        "the only job in the list that could match is of another user"
    )
    assert explain(mine, other) == "the list shows jobs of several users that could match"
    assert explain(mine, other, own=OwnUser(users={"me"})).endswith("may be that of another submit")


@pytest.mark.parametrize(
    "rows, says",
    [
        ([], "does not show it"),
        ([row("a", payload=DOG), row("b", at=161), row("c", at=None)], "does not show it"),
        ([row("mine")], "does not show it"),
        ([row("mine"), row("a")], "shows a job that could match, and may be that of another submit"),
        ([row("a"), row("b")], "shows more than one job that could match"),
    ],
)
def test_the_reason_says_what_the_list_shows(rows, says):
    assert explain(*rows, owned={"mine"}).endswith(says)


def test_without_the_service_clock_the_reason_says_so_unless_the_list_shows_a_job_that_could_match():
    assert "Date header" in explain(is_clock_known=False)
    assert "Date header" not in explain(row("a"), is_clock_known=False)


# Which pages are read for the recent rows


def read_recent(times, *, since, total=None, has_more=None):
    """Where the pages begin that a reading asks for, of a list whose rows were created at these times, ten on a page."""
    reading, offsets = RecentReading(since=since, page_rows=10), []
    while not reading.is_over:
        offset = reading.next_offset
        offsets.append(offset)
        page = [row(f"job {offset + n}", at) for n, at in enumerate(times[offset : offset + 10])]
        reading.add(page, rows=len(page), total=total, has_more=has_more)
    return offsets


OLDEST_FIRST = range(50)
NEWEST_FIRST = OLDEST_FIRST[::-1]
TO_THE_END = [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    "times, since, said, offsets",
    [
        ([], 25, {}, [0]),
        (NEWEST_FIRST, 60, {}, [0]),
        (NEWEST_FIRST, 25, {}, [0, 10, 20]),
        (NEWEST_FIRST, 20, {}, [0, 10, 20, 30]),
        (NEWEST_FIRST, -1, {}, TO_THE_END),
        (NEWEST_FIRST, 25, {"has_more": False}, [0]),
        (NEWEST_FIRST, 25, {"has_more": True, "total": 50}, [0, 10, 20]),
        ([5] * 50, 25, {}, TO_THE_END),
        ([None] * 50, 25, {}, TO_THE_END),
        ([*NEWEST_FIRST[:9], 49, *NEWEST_FIRST[10:]], 25, {}, TO_THE_END),
        ([*NEWEST_FIRST[10:20], *NEWEST_FIRST[:10], *NEWEST_FIRST[20:]], 25, {}, TO_THE_END),
        (OLDEST_FIRST, 25, {}, TO_THE_END),
        (OLDEST_FIRST, 25, {"total": 10}, TO_THE_END),
        (OLDEST_FIRST, 5, {"total": 50}, TO_THE_END),
        (OLDEST_FIRST, 45, {"total": 50}, [0, 40, 50]),
        (OLDEST_FIRST, 35, {"total": 50}, [0, 40, 30, 40, 50]),
        (OLDEST_FIRST, 25, {"total": 50}, [0, 40, 30, 10, 20, 30, 40, 50]),
        (OLDEST_FIRST[:15], 12, {"total": 15}, [0, 5, 15]),
        (OLDEST_FIRST[:19], 12, {"total": 12}, [0, 2, 12, 19]),
        (OLDEST_FIRST, 25, {"total": 80}, [0, 70, 60, 40, 0, *TO_THE_END[1:]]),
    ],
)
def test_recent_rows_are_read_to_the_end_unless_the_order_shows_that_the_rest_is_older(
    times, since, said, offsets
):
    assert read_recent(times, since=since, **said) == offsets


def test_a_service_that_repeats_a_page_ends_the_reading_of_recent_rows():
    reading = RecentReading(since=80.0, page_rows=10)
    for is_over in (False, True):
        reading.add([row("a"), row("b", at=None)], rows=2, total=None, has_more=True)
        assert reading.is_over is is_over


def test_the_reading_of_recent_rows_ends_after_some_pages_of_rows_that_cannot_be_read():
    reading = RecentReading(since=80.0, page_rows=10)
    reading.add([], rows=10, total=None, has_more=True)
    reading.add([row("a")], rows=10, total=None, has_more=True)
    for _ in range(MAX_EMPTY_PAGES):
        assert not reading.is_over
        reading.add([], rows=10, total=None, has_more=True)
    assert reading.is_over
