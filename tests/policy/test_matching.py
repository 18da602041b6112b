from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import Job, JobStatus
from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.matching import (
    could_match,
    earliest_creation,
    look_alike_group,
    match_jobs,
    select_candidates,
    select_recent,
)
from kling_async._policy.own_user import OwnUser

CAT = {"prompt": "a cat"}


def row(request_id, at=100.0, payload=CAT, **ids):
    created = None if at is None else datetime.fromtimestamp(at, UTC)
    return Job(request_id=request_id, status=JobStatus.QUEUED, payload=payload, created_at=created, **ids)


def lost_between(payload=CAT, since=40.0, until=160.0):
    return LostSubmit(payload=payload, since=since, until=until)


def find(submits, rows, *, others=(), owned=(), own=OwnUser()):  # noqa: B008 - it learns nothing here
    found = match_jobs(submits, rows, others=others, owned=set(owned), own=own)
    return {index: job.request_id for index, job in found.items()}


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
    ids=["equal", "more", "other", "no echo", "part", "too old", "earliest", "latest", "too new", "no time"],
)
def test_a_row_matches_if_it_has_all_that_was_sent_and_was_created_in_time(candidate, fits):
    assert find([lost_between()], [candidate]) == ({0: "a"} if fits else {})


ME = OwnUser(organizations={"org"}, users={"me"})


@pytest.mark.parametrize(
    "ids, fits",
    [
        ({}, True),
        ({"organization_id": "org"}, True),
        ({"organization_id": "org", "user_id": "me"}, True),
        ({"organization_id": "org", "user_id": "other"}, False),
        ({"organization_id": "other", "user_id": "me"}, False),
        ({"user_id": "other"}, False),
    ],
)
def test_a_row_of_another_user_matches_no_submit(ids, fits):
    assert find([lost_between()], [row("a", **ids)], own=ME) == ({0: "a"} if fits else {})


def test_rows_of_others_do_not_count_as_jobs_without_an_owner():
    rows = [row("a", user_id="other"), row("b", user_id="me"), row("c", user_id="third")]
    assert find([lost_between()], rows, own=ME) == {0: "b"}


def test_rows_of_several_users_match_no_submit_while_the_own_user_is_unknown():
    rows = [row("a", user_id="one"), row("b", user_id="two")]
    assert find([lost_between(), lost_between()], rows) == {}
    assert find([lost_between(), lost_between()], [rows[0], row("b", user_id="one")]) == {0: "a", 1: "b"}
    assert find([lost_between()], [rows[0], attrs.evolve(rows[1], payload={"prompt": "a dog"})]) == {0: "a"}


def test_another_spelling_of_a_uuid_with_an_owner_has_the_owner():
    uuid = "550e8400-e29b-41d4-a716-446655440000"
    assert find([lost_between()], [row(uuid.upper())], owned=[uuid]) == {}
    assert find([lost_between()], [row("JOB")], owned=["job"]) == {0: "JOB"}


def test_an_empty_payload_matches_no_row():
    assert find([lost_between({})], [row("a", payload={})]) == {}


def test_a_job_that_has_an_owner_is_not_matched():
    assert find([lost_between()], [row("a"), row("b")], owned={"a"}) == {0: "b"}


def test_no_row_is_matched_if_more_rows_than_lost_submits_have_no_owner():
    assert find([lost_between()], [row("a"), row("b")]) == {}
    assert find([lost_between(), lost_between()], [row("a"), row("b"), row("c")]) == {}


def test_equal_requests_are_matched_by_count():
    assert set(find([lost_between(), lost_between()], [row("a"), row("b")]).values()) == {"a", "b"}
    assert list(find([lost_between(), lost_between()], [row("a")]).values()) == ["a"]


def test_lost_submits_that_are_not_reconciled_now_count_too():
    rows = [row("b", at=101), row("a")]
    assert find([lost_between()], rows, others=[lost_between()]) == {0: "a"}
    assert find([lost_between()], rows, others=[lost_between(since=0, until=39)]) == {}


def test_all_rows_that_an_other_lost_submit_could_own_count():
    rows = [row("before the lost submit", at=90), row("a", at=110), row("b", at=120)]
    later, earlier = lost_between(since=100, until=200), lost_between(since=80, until=115)
    assert find([later], rows[1:], others=[earlier]) == {0: "a"}
    assert find([later], rows, others=[earlier]) == {}
    assert find([later], rows, others=[earlier, lost_between(since=85, until=95)]) == {0: "a"}
    assert find([later], rows, others=[lost_between(since=80, until=95)]) == {}


def test_one_strangers_job_among_the_jobs_of_a_crash_leaves_all_unmatched():
    crashed = [lost_between(since=-30, until=150)] * 3
    rows = [row(str(at), at=at) for at in (30, 31, 32, 58, 101)]
    assert find([lost_between(since=41, until=221)], rows, others=crashed) == {}
    assert find([lost_between(since=41, until=221)], [rows[at] for at in (0, 1, 2, 4)], others=crashed) == {
        0: "101"
    }


def test_each_row_needs_a_lost_submit_of_its_own_time():
    rows = [row("a", at=150), row("b", at=160)]
    assert find([lost_between(since=140, until=200)], rows, others=[lost_between(since=50, until=155)]) == {
        0: "a"
    }
    assert find([lost_between(since=155, until=200)], rows, others=[lost_between(since=50, until=155)]) == {
        0: "b"
    }
    assert find([lost_between(since=140, until=200)], rows, others=[lost_between(since=50, until=145)]) == {}


def test_a_submit_that_was_lost_long_before_does_not_count():
    old = [lost_between(since=0, until=10)]
    assert find([lost_between()], [row("a"), row("x", at=5), row("y", at=6)], others=old) == {0: "a"}
    assert find([lost_between(), *old], [row("a"), row("x", at=5), row("y", at=6)]) == {0: "a"}


def test_a_candidate_is_a_row_that_echoes_a_lost_submit_and_is_not_older():
    rows = [row("fits"), row("late", at=161), row("old", at=39), row("dog", payload={"prompt": "a dog"})]
    assert select_candidates([lost_between()], rows, others=[]) == {"fits", "late"}
    assert select_candidates([lost_between()], rows, others=[lost_between(since=0)]) == {
        "fits",
        "late",
        "old",
    }


def test_the_list_is_needed_since_the_first_submit_whose_job_could_match():
    submits = [lost_between(since=140, until=200), lost_between(since=300, until=360)]
    assert earliest_creation(submits, []) == 140
    assert earliest_creation(submits[1:], []) == 300
    chain = [
        lost_between(since=90, until=150),
        lost_between(since=50, until=95),
        lost_between(since=0, until=49),
    ]
    assert earliest_creation(submits, chain) == 50
    assert earliest_creation(submits, [lost_between({"prompt": "a dog"}, since=90, until=150)]) == 140


def test_rows_since_the_first_lost_submit_are_selected():
    rows = [row("old", at=39), row("just", at=40), row("new", at=500), row("of no time", at=None)]
    kept = select_recent([lost_between(since=40, until=41), lost_between(since=50, until=60)], rows)
    assert [job.request_id for job in kept] == ["just", "new"]


def test_a_row_is_left_to_a_payload_with_more_keys_that_is_not_reconciled_now():
    long, contrary = {**CAT, "duration": "10"}, {**CAT, "sound": "on"}
    rows = [row("long", payload=long)]
    assert find([lost_between()], rows) == {0: "long"}
    assert find([lost_between()], rows, others=[lost_between(long)]) == {}
    assert find([lost_between()], rows, others=[lost_between(long, since=0, until=50)]) == {}
    assert find([lost_between()], rows, others=[lost_between(long, since=101, until=200)]) == {0: "long"}
    assert find([lost_between()], rows, others=[lost_between(contrary)]) == {0: "long"}
    assert find([lost_between(long)], rows, others=[lost_between()]) == {0: "long"}


def test_a_row_that_fits_two_payloads_of_equal_length_is_not_matched():
    long, other = {**CAT, "duration": "10"}, {**CAT, "sound": "on"}
    assert find([lost_between(long), lost_between(other)], [row("both", payload={**long, **other})]) == {}


def test_each_lost_submit_gets_a_row_of_its_own_time():
    early, late = lost_between(since=0, until=100), lost_between(since=90, until=300)
    assert find([late, early], [row("old", at=50), row("new", at=200)]) == {1: "old", 0: "new"}
    assert find([late, early], [row("between", at=95)]) == {1: "between"}


def test_a_row_goes_to_the_payload_with_the_most_keys():
    long = {**CAT, "duration": "10"}
    rows = [row("short"), row("long", payload=long)]
    assert find([lost_between(), lost_between(long)], rows) == {0: "short", 1: "long"}
    assert find([lost_between(), lost_between(long)], [rows[1]]) == {1: "long"}


def test_values_that_are_not_text_tell_payloads_apart_too():
    few, many = {"image_list": [{"url": "a"}], "cfg_scale": 1}, {"image_list": [{"url": "b"}], "cfg_scale": 1}
    rows = [row("b", payload={**many, "cfg_scale": 1.0}), row("a", payload={**few, "sound": "off"})]
    assert find([lost_between(few), lost_between(many)], rows) == {0: "a", 1: "b"}


@pytest.mark.parametrize("prompt", ["prompt {}", "the same"])
def test_comparisons_grow_in_proportion_to_the_lost_submits(prompt):
    compared = 0

    class Echo(dict):
        def __getitem__(self, key):
            nonlocal compared
            compared += 1
            return super().__getitem__(key)

    payloads = [{"prompt": prompt.format(number), "duration": "5"} for number in range(1000)]
    rows = [row(str(number), at=100 + number, payload=Echo(one)) for number, one in enumerate(payloads)]
    found = find([lost_between(one, since=0, until=2000) for one in payloads], rows)
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
def test_payloads_without_a_contradiction_could_match(one, other, expected):
    assert could_match(one, other) is could_match(other, one) is expected


def test_payloads_that_could_match_share_a_group():
    assert look_alike_group({"prompt": "a", "x": 1}) == look_alike_group({"prompt": "a"}) is not None
    assert look_alike_group({"prompt": "a"}) != look_alike_group({"prompt": "b"})
    assert look_alike_group({"x": 1}) is look_alike_group({"prompt": 5}) is None
    assert look_alike_group({"prompt": "\ud800"})


jobs_at = st.lists(st.tuples(st.sampled_from([CAT, {"prompt": "dog"}]), st.integers(0, 300)), max_size=6)


@given(jobs_at, jobs_at, st.sets(st.integers(0, 5)))
def test_no_job_is_matched_twice_and_none_that_does_not_fit(losses, rows, owned):
    submits = [lost_between(payload, since=at, until=at + 60) for payload, at in losses]
    jobs = [row(str(number), at=at, payload=payload) for number, (payload, at) in enumerate(rows)]
    found = match_jobs(submits, jobs, others=[], owned=set(map(str, owned)), own=OwnUser())
    ids = [job.request_id for job in found.values()]
    assert len(set(ids)) == len(ids)
    for index, job in found.items():
        assert job.payload == submits[index].payload
        assert submits[index].since <= job.created_at.timestamp() <= submits[index].until
    assert not {int(request_id) for request_id in ids} & owned
    assert set(ids) <= select_candidates(submits, jobs, others=[])
