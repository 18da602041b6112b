from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import Job, JobStatus
from kling_async._policy.matching import (
    LostSubmit,
    could_match,
    earliest_creation,
    match_jobs,
    scan_delays,
    select_recent,
)

CAT = {"prompt": "a cat"}


def row(request_id, at=100.0, payload=CAT):
    created = None if at is None else datetime.fromtimestamp(at, UTC)
    return Job(request_id=request_id, status=JobStatus.QUEUED, payload=payload, created_at=created)


def lost(payload=CAT, since=40.0, until=160.0):
    return LostSubmit(payload=payload, since=since, until=until)


def find(replies, rows, *, others=(), claimed=()):
    found = match_jobs(replies, rows, others=others, is_claimed=lambda request_id: request_id in claimed)
    return {place: job.request_id for place, job in found.items()}


@pytest.mark.parametrize(
    "candidate, fits",
    [
        (row("a"), True),
        (row("a", payload={**CAT, "sound": "off", "duration": "5"}), True),
        (row("a", payload={"prompt": "a dog"}), False),
        (row("a", payload={}), False),
        (row("a", payload={"sound": "off"}), False),
        (row("a", at=39.0), False),
        (row("a", at=40.0), True),
        (row("a", at=160.0), True),
        (row("a", at=161.0), False),
        (row("a", at=None), False),
    ],
    ids=["equal", "more", "other", "no echo", "part", "too old", "just", "just yet", "too new", "no time"],
)
def test_a_row_fits_that_has_what_was_sent_and_came_in_time(candidate, fits):
    assert find([lost()], [candidate]) == ({0: "a"} if fits else {})


def test_a_request_that_said_nothing_fits_no_row():
    assert find([lost({})], [row("a", payload={})]) == {}


def test_a_job_that_has_an_owner_is_not_taken():
    assert find([lost()], [row("a"), row("b")], claimed={"a"}) == {0: "b"}


def test_more_unclaimed_rows_than_lost_replies_and_none_is_taken():
    assert find([lost()], [row("a"), row("b")]) == {}
    assert find([lost(), lost()], [row("a"), row("b"), row("c")]) == {}


def test_equal_requests_are_matched_by_count():
    assert set(find([lost(), lost()], [row("a"), row("b")]).values()) == {"a", "b"}
    assert list(find([lost(), lost()], [row("a")]).values()) == ["a"]


def test_lost_replies_that_nobody_looks_for_now_count_too():
    rows = [row("b", at=101), row("a")]
    assert find([lost()], rows, others=[lost()]) == {0: "a"}
    assert find([lost()], rows, others=[lost(since=0, until=39)]) == {}


def test_with_a_lost_reply_all_rows_count_that_may_be_its_own():
    rows = [row("before the time of the one sought", at=90), row("a", at=110), row("b", at=120)]
    later, earlier = lost(since=100, until=200), lost(since=80, until=115)
    assert find([later], rows[1:], others=[earlier]) == {0: "a"}
    assert find([later], rows, others=[earlier]) == {}
    assert find([later], rows, others=[earlier, lost(since=85, until=95)]) == {0: "a"}
    assert find([later], rows, others=[lost(since=80, until=95)]) == {}


def test_one_stranger_among_the_jobs_of_a_crash_and_none_is_taken():
    crashed = [lost(since=-30, until=150)] * 3
    rows = [row(str(at), at=at) for at in (30, 31, 32, 58, 101)]
    assert find([lost(since=41, until=221)], rows, others=crashed) == {}
    assert find([lost(since=41, until=221)], [rows[at] for at in (0, 1, 2, 4)], others=crashed) == {0: "101"}


def test_each_row_needs_a_reply_of_its_own_time():
    rows = [row("a", at=150), row("b", at=160)]
    assert find([lost(since=140, until=200)], rows, others=[lost(since=50, until=155)]) == {0: "a"}
    assert find([lost(since=155, until=200)], rows, others=[lost(since=50, until=155)]) == {0: "b"}
    assert find([lost(since=140, until=200)], rows, others=[lost(since=50, until=145)]) == {}


def test_an_old_doubt_is_none_today():
    old = [lost(since=0, until=10)]
    assert find([lost()], [row("a"), row("x", at=5), row("y", at=6)], others=old) == {0: "a"}
    assert find([lost(), *old], [row("a"), row("x", at=5), row("y", at=6)]) == {0: "a"}


def test_the_list_is_needed_since_the_first_reply_that_may_be_mistaken_for_one_sought():
    replies = [lost(since=140, until=200), lost(since=300, until=360)]
    assert earliest_creation(replies, []) == 140
    assert earliest_creation(replies[1:], []) == 300
    chain = [lost(since=90, until=150), lost(since=50, until=95), lost(since=0, until=49)]
    assert earliest_creation(replies, chain) == 50
    assert earliest_creation(replies, [lost({"prompt": "a dog"}, since=90, until=150)]) == 140


def test_rows_since_the_first_loss_are_worth_remembering():
    rows = [row("old", at=39), row("just", at=40), row("new", at=500), row("of no time", at=None)]
    kept = select_recent([lost(since=40, until=41), lost(since=50, until=60)], rows)
    assert [job.request_id for job in kept] == ["just", "new"]


def test_a_row_is_left_to_a_request_that_says_more_and_that_nobody_looks_for_now():
    long, contrary = {**CAT, "duration": "10"}, {**CAT, "sound": "on"}
    rows = [row("long", payload=long)]
    assert find([lost()], rows) == {0: "long"}
    assert find([lost()], rows, others=[lost(long)]) == {}
    assert find([lost()], rows, others=[lost(long, since=0, until=50)]) == {}
    assert find([lost()], rows, others=[lost(long, since=101, until=200)]) == {0: "long"}
    assert find([lost()], rows, others=[lost(contrary)]) == {0: "long"}
    assert find([lost(long)], rows, others=[lost()]) == {0: "long"}


def test_a_row_that_two_requests_fit_alike_is_neithers():
    long, other = {**CAT, "duration": "10"}, {**CAT, "sound": "on"}
    assert find([lost(long), lost(other)], [row("both", payload={**long, **other})]) == {}


def test_each_reply_gets_a_row_of_its_own_time():
    early, late = lost(since=0, until=100), lost(since=90, until=300)
    assert find([late, early], [row("old", at=50), row("new", at=200)]) == {1: "old", 0: "new"}
    assert find([late, early], [row("between", at=95)]) == {1: "between"}


def test_a_row_goes_to_the_request_that_says_most():
    long = {**CAT, "duration": "10"}
    rows = [row("short"), row("long", payload=long)]
    assert find([lost(), lost(long)], rows) == {0: "short", 1: "long"}
    assert find([lost(), lost(long)], [rows[1]]) == {1: "long"}


def test_values_that_are_no_text_tell_requests_apart_too():
    few, many = {"image_list": [{"url": "a"}], "cfg_scale": 1}, {"image_list": [{"url": "b"}], "cfg_scale": 1}
    rows = [row("b", payload={**many, "cfg_scale": 1.0}), row("a", payload={**few, "sound": "off"})]
    assert find([lost(few), lost(many)], rows) == {0: "a", 1: "b"}


@pytest.mark.parametrize("prompt", ["prompt {}", "the same"])
def test_a_thousand_replies_cost_comparisons_in_proportion(prompt):
    compared = 0

    class Echo(dict):
        def __getitem__(self, key):
            nonlocal compared
            compared += 1
            return super().__getitem__(key)

    payloads = [{"prompt": prompt.format(number), "duration": "5"} for number in range(1000)]
    rows = [row(str(number), at=100 + number, payload=Echo(one)) for number, one in enumerate(payloads)]
    found = find([lost(one, since=0, until=2000) for one in payloads], rows)
    assert found == {number: str(number) for number in range(1000)}
    assert compared <= 2 * 1000


@pytest.mark.parametrize(
    "one, other, expected",
    [
        (CAT, CAT, True),
        (CAT, {**CAT, "duration": "5"}, True),
        ({**CAT, "sound": "on"}, {**CAT, "duration": "5"}, True),
        ({**CAT, "duration": "10"}, {**CAT, "duration": "5"}, False),
        (CAT, {"prompt": "a dog"}, False),
    ],
)
def test_requests_that_contradict_each_other_nowhere_may_be_confused(one, other, expected):
    assert could_match(one, other) is could_match(other, one) is expected


@given(st.floats(min_value=0, max_value=1e9))
def test_every_loss_is_looked_for_twice_at_least_and_not_at_once(age):
    delays = scan_delays(age)
    assert len(delays) >= 2
    assert all(delay >= 0 for delay in delays)
    assert sum(delays) >= 2 or age + sum(delays) >= 30


def test_a_fresh_loss_is_looked_for_seldomer_and_seldomer_for_half_a_minute():
    delays = scan_delays(0)
    assert sum(delays) == 30
    assert all(before <= after for before, after in pairwise(delays[1:]))


places = st.lists(st.tuples(st.sampled_from([CAT, {"prompt": "dog"}]), st.integers(0, 300)), max_size=6)


@given(places, places, st.sets(st.integers(0, 5)))
def test_no_job_is_given_twice_and_none_that_does_not_fit(losses, rows, claimed):
    replies = [lost(payload, since=at, until=at + 60) for payload, at in losses]
    jobs = [row(str(number), at=at, payload=payload) for number, (payload, at) in enumerate(rows)]
    taken = match_jobs(replies, jobs, others=[], is_claimed=lambda request_id: int(request_id) in claimed)
    ids = [job.request_id for job in taken.values()]
    assert len(set(ids)) == len(ids)
    for place, job in taken.items():
        assert job.payload == replies[place].payload
        assert replies[place].since <= job.created_at.timestamp() <= replies[place].until
    assert not {int(request_id) for request_id in ids} & claimed
