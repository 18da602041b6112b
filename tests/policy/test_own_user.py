from __future__ import annotations

import pytest

from kling_async import Job, JobStatus
from kling_async._policy.own_user import OwnUser
from kling_async.jobs import NO_ACCOUNT_ID

UUID = "550e8400-e29b-41d4-a716-446655440000"


def job(organization_id=None, user_id=None):
    return Job(request_id="a", status=JobStatus.QUEUED, organization_id=organization_id, user_id=user_id)


def own_user(*jobs):
    own = OwnUser()
    for one in jobs:
        own.learn(one)
    return own


def test_a_record_that_names_no_user_teaches_and_denies_nothing():
    assert own_user(job(), job(organization_id="")) == OwnUser()
    assert not own_user(job("org", "me")).is_other(job())
    assert not OwnUser().is_other(job("org", "me"))


def test_an_id_that_cannot_be_read_denies_a_record_and_teaches_nothing():
    assert own_user(job(NO_ACCOUNT_ID, NO_ACCOUNT_ID)) == OwnUser()
    assert own_user(job("org", "me")).is_other(job("org", NO_ACCOUNT_ID))


def test_what_own_records_name_is_known():
    own = own_user(job("org"), job(user_id="me"))
    assert own.is_known
    assert not own.is_other(job("org", "me"))
    assert own.is_other(job("org", "other"))
    assert own.is_other(job("other", "me"))
    assert not own_user(job("org")).is_known


def test_a_service_that_contradicts_itself_denies_no_record_that_it_gave():
    own = own_user(job("org", "me"), job("org", "me too"))
    assert not own.is_other(job("org", "me"))
    assert not own.is_other(job("org", "me too"))


def test_a_uuid_is_one_in_any_case_and_another_id_is_not():
    own = own_user(job(UUID, "me"))
    assert not own.is_other(job(UUID.upper(), "me"))
    assert own.is_other(job(UUID, "ME"))


@pytest.mark.parametrize(
    "own, jobs, is_mixed",
    [
        (OwnUser(), [job("org", "one"), job("org", "two")], True),
        (OwnUser(), [job("one"), job("two")], True),
        (OwnUser(), [job("org", "one"), job("org"), job()], False),
        (OwnUser(organizations={"org"}), [job("org", "one"), job("org", "two")], True),
        (OwnUser(organizations={"org"}), [job("org", "one"), job("other", "two")], False),
        (OwnUser(users={"one"}), [job("org", "one"), job("org", "two")], False),
        (OwnUser(users={"one", "two"}), [job("org", "one"), job("org", "two")], False),
    ],
)
def test_jobs_are_mixed_if_nothing_says_which_of_their_users_is_the_own_one(own, jobs, is_mixed):
    assert own.may_be_mixed(jobs) is is_mixed
