"""When a call gives up, by what workers refuse and which of them live."""

from __future__ import annotations

import pytest

from kling_async import AuthenticationError
from kling_async._distributed.refusals import Refusal, Refusals

WRONG_KEY = Refusal("w", AuthenticationError("401"), is_end=True)
NO_FOLDER = Refusal("w", AuthenticationError("no folder"), is_end=False)


@pytest.mark.parametrize(
    "refused, living, reason",
    [
        ({}, [], None),
        ({}, [1], None),
        ({1: WRONG_KEY}, [], WRONG_KEY),
        ({1: WRONG_KEY}, [1], None),
        ({1: WRONG_KEY}, [2], None),
        ({1: WRONG_KEY}, [1, 2], None),
        ({1: NO_FOLDER}, [1], NO_FOLDER),
        ({1: NO_FOLDER}, [1, 2], None),
        ({1: NO_FOLDER, 2: WRONG_KEY}, [1], NO_FOLDER),
        ({1: NO_FOLDER, 2: WRONG_KEY}, [1, 2], None),
        ({1: WRONG_KEY, 2: WRONG_KEY}, [], WRONG_KEY),
    ],
)
def test_a_call_gives_up_when_each_worker_is_gone_or_cannot_run_the_batch(refused, living, reason):
    refusals = Refusals()
    for session, refusal in refused.items():
        refusals.add(session, refusal)

    assert refusals.reason(living, now=1.0) is (reason and reason.error)


def test_the_refusal_of_a_worker_that_is_gone_is_forgotten_while_another_one_works():
    refusals = Refusals()
    refusals.add(1, WRONG_KEY)
    refusals.add(2, NO_FOLDER)

    assert refusals.reason([2, 3], now=0.0) is None
    assert len(refusals) == 1
    assert refusals.reason([3], now=1.0) is None
    assert refusals.reason([], now=100.0) is None


def test_a_worker_that_could_run_the_batch_has_time_to_come_back():
    refusals = Refusals()
    refusals.add(1, NO_FOLDER)
    assert refusals.reason([1, 2], now=0.0) is None

    assert refusals.reason([1], now=5.0) is None
    assert refusals.reason([1], now=11.0) is NO_FOLDER.error


def test_after_an_outage_of_the_database_the_time_to_come_back_begins_again():
    refusals = Refusals()
    refusals.pause(now=0.0)
    refusals.add(1, NO_FOLDER)
    assert refusals.reason([1, 2], now=0.0) is None

    refusals.pause(now=500.0)
    assert refusals.reason([1], now=505.0) is None
    assert refusals.reason([1], now=511.0) is NO_FOLDER.error
