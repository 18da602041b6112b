from __future__ import annotations

from kling_async._policy.claims import Claims


def test_what_was_accepted_lately_is_known():
    claims = Claims(span=80.0)
    for second in range(100):
        claims.add(str(second), now=float(second), keep=False)
    assert {str(second) for second in range(20, 100)} <= claims.all()


def test_what_is_remembered_is_not_taken_a_second_time():
    claims = Claims(span=80.0)
    assert all(claims.add(str(second), now=float(second), keep=False) for second in range(100))
    assert not claims.add("20", now=100.0, keep=False)
    assert not claims.add("99", now=100.0, keep=False)
    assert claims.add("100", now=100.0, keep=False)
    assert not claims.add("100", now=100.0, keep=False)


def test_the_last_one_is_remembered_for_as_long_as_nothing_follows():
    claims = Claims(span=80.0)
    assert claims.add("only", now=0.0, keep=False)
    assert not claims.add("only", now=1000.0, keep=False)


def test_what_is_older_is_forgotten():
    claims = Claims(span=80.0)
    for second in range(1000):
        claims.add(str(second), now=float(second), keep=False)
    assert len(claims.all()) <= 110


def test_nothing_is_forgotten_while_a_reply_is_sought():
    claims = Claims(span=80.0)
    for second in range(1000):
        claims.add(str(second), now=float(second), keep=True)
    assert len(claims.all()) == 1000
