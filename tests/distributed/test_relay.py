from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from kling_async import events
from kling_async._distributed.relay import MAX_PAYLOAD_BYTES, dump_event, pack_events, unpack_events
from kling_async.errors import AmbiguousSubmitError, AuthenticationError, RateLimitError
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.results import ResultState

JOB = Job(request_id="j1", status=JobStatus.PROCESSING, model="kling-v2-6")
MADE = Job(
    request_id="j2",
    status=JobStatus.SUCCESS,
    outcome=Outcome(media=(Media("https://x.example/v.mp4"),), thumbnail_url="https://x.example/t.jpg"),
)
FAILED = Job(request_id="j3", status=JobStatus.FAILED, outcome=Outcome(error="policy"))
ERROR = AmbiguousSubmitError("It may have been taken.", absent=True, advice="Look.")
EVENTS = [
    events.Submitted(1.5, index=0, request_id="j1", job=JOB),
    events.StatusChanged(
        2.0, index=0, request_id="j1", status=JobStatus.PROCESSING, previous=JobStatus.QUEUED
    ),
    events.Finished(3.0, index=0, request_id="j2", state=ResultState.SUCCEEDED, job=MADE),
    events.Finished(3.5, index=1, request_id="j3", state=ResultState.FAILED, job=FAILED, error=ERROR),
    events.Downloading(4.0, index=0, request_id="j2", size_bytes=10, total_bytes=20),
    events.Downloaded(5.0, index=0, request_id="j2", path=Path("/v/a.mp4"), size_bytes=20),
    events.Retrying(6.0, call="status", attempt=2, delay=0.5, error=RateLimitError("Slow.", status_code=429)),
    events.Throttled(7.0, delay=3.0, error=RateLimitError("Slow.", retry_after=3.0)),
    events.PollFailed(8.0, index=0, request_id="j1", delay=1.0, error=ERROR),
    events.SubmitLost(9.0, index=2, error=ERROR),
    events.SubmitReconciled(10.0, index=2, request_id="j1", job=JOB),
    events.Resumed(11.0, index=3, request_id="j2", job=MADE, path=Path("/v/b.mp4")),
    events.Spent(12.0, index=0, cost_usd=Decimal("0.35"), total_usd=Decimal("0.70")),
    events.NotSubmitted(13.0, index=4, error=AuthenticationError("Wrong key.", status_code=401)),
]


def plain(event):
    """The event with its errors as values that can be compared."""
    error = getattr(event, "error", None)
    fields = attrs.asdict(event, recurse=False)
    return type(event), {**fields, "error": error and (type(error), vars(error))}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{type(event).__name__} at {event.at:g}")
def test_an_event_survives_the_way_to_the_caller(event):
    (payload,) = pack_events([dump_event(7, event)])

    ((number, relayed),) = unpack_events(payload)

    assert number == 7
    assert plain(relayed) == plain(event)


def test_every_kind_of_event_is_among_the_examples():
    kinds = {name for name in events.__all__ if name not in {"Event", "Listener"}}

    assert kinds == {type(event).__name__ for event in EVENTS}


def test_what_is_long_stays_out_of_an_event():
    job = Job(
        request_id="j" * 500,
        status=JobStatus.SUCCESS,
        payload={"prompt": "x" * 5_000},
        raw={"a": "x" * 9_000},
        outcome=Outcome(media=(Media("https://x.example/" + "v" * 500),)),
    )
    error = RateLimitError("m" * 5_000, body="b" * 500)

    event = events.Finished(1.0, state=ResultState.FAILED, job=job, error=error)
    ((_, finished),) = unpack_events(next(pack_events([dump_event(7, event)])))

    assert finished.job == Job(request_id="j" * 500, status=JobStatus.SUCCESS)
    assert finished.error.message == "m" * 400
    assert finished.error.body is None


def test_payloads_are_short_enough_for_the_database_and_keep_the_order():
    texts = [dump_event(n, events.NotSubmitted(float(n), index=n, error=ERROR)) for n in range(300)]

    packs = list(pack_events(texts))

    assert all(len(pack.encode()) <= MAX_PAYLOAD_BYTES for pack in packs)
    assert len(packs) < 20
    unpacked = [event for pack in packs for event in unpack_events(pack)]
    assert [(number, event.index) for number, event in unpacked] == [(n, n) for n in range(300)]


def test_an_event_that_is_too_long_is_left_out():
    texts = ['{"kind":"' + "x" * MAX_PAYLOAD_BYTES + '"}', dump_event(7, EVENTS[0])]

    assert [len(unpack_events(pack)) for pack in pack_events(texts)] == [1]
    assert list(pack_events([])) == []


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{",
        "{}",
        "7",
        "[7]",
        json.dumps([{"kind": "Resumed", "at": 1.0}]),
        json.dumps([{"number": None, "kind": "Resumed", "at": 1.0}]),
        json.dumps([{"number": 7, "kind": "Submitted"}]),
        json.dumps([{"number": 7, "kind": "NoSuchEvent", "at": 1.0}]),
        json.dumps([{"number": 7, "kind": "Finished", "at": 1.0, "state": "no such state"}]),
        json.dumps([{"number": 7, "kind": "Spent", "at": 1.0, "cost_usd": "much", "total_usd": "1"}]),
        json.dumps([{"number": 7, "kind": "Throttled", "at": 1.0, "delay": 1.0, "error": {}}]),
        json.dumps([{"number": 7, "kind": "Throttled", "at": 1.0, "delay": 1.0, "new_field": 1}]),
    ],
)
def test_what_this_release_cannot_read_is_no_event(payload):
    assert unpack_events(payload) == []
