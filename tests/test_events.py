from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
from functools import partial

import attrs
import pytest

from kling_async import KlingClient, events
from kling_async.errors import KlingError
from kling_async.events import Event, Finished, Notifier, Retrying, StatusChanged
from kling_async.jobs import JobStatus
from kling_async.results import ResultState

CHANGED = StatusChanged(at=1.0, index=3, request_id="a", status=JobStatus.SUCCESS, previous=JobStatus.QUEUED)
NAMES = {
    "Submitted",
    "StatusChanged",
    "Finished",
    "Downloaded",
    "Downloading",
    "Retrying",
    "Throttled",
    "PollFailed",
    "SubmitLost",
    "SubmitReconciled",
    "NotSubmitted",
    "Resumed",
    "Spent",
}


def test_the_stream_has_every_event_and_each_says_when_which_and_whose():
    kinds = {
        name for name, value in vars(events).items() if inspect.isclass(value) and issubclass(value, Event)
    }
    assert kinds == NAMES | {"Event"}
    for name in kinds:
        fields = attrs.fields_dict(getattr(events, name))
        assert {"at", "index", "request_id"} <= set(fields)
        assert {field.name for field in fields.values() if not field.kw_only} == {"at"}


def test_an_event_is_frozen_and_survives_pickle():
    assert pickle.loads(pickle.dumps(CHANGED)) == CHANGED  # noqa: S301 - our own bytes
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        CHANGED.at = 2.0


def test_outside_a_batch_and_before_an_id_both_are_none():
    event = Retrying(at=1.0, call="status", attempt=1, delay=0.5, error=KlingError("x"))
    assert (event.index, event.request_id) == (None, None)


def test_every_listener_gets_every_event_in_order():
    first, second = [], []
    notify = Notifier(first.append, None, second.append)
    done = Finished(at=2.0, state=ResultState.SUCCEEDED)
    notify(CHANGED)
    notify(done)
    assert first == second == [CHANGED, done]


def test_a_notifier_is_true_only_with_listeners():
    assert not Notifier()
    assert not Notifier(None, None)
    assert Notifier(None, print)


def test_a_listener_that_raises_is_logged_and_the_others_are_called(caplog):
    def fail(event):
        raise RuntimeError("a broken bar")

    heard = []
    with caplog.at_level(logging.ERROR, logger="kling_async"):
        Notifier(fail, heard.append)(CHANGED)
    assert heard == [CHANGED]
    (entry,) = caplog.records
    assert entry.getMessage() == "on_event raised for StatusChanged; the batch continues"
    assert "a broken bar" in str(entry.exc_info[1])


async def hear_later(event):
    raise NotImplementedError


async def hear_in_steps(event):
    yield event


class HearsLater:
    async def __call__(self, event):
        raise NotImplementedError


@pytest.mark.parametrize(
    "listener, reason",
    [
        (5, "on_event=5 is not callable"),
        ("print", "on_event='print' is not callable"),
        (hear_later, "is async, and events are not awaited: give a plain function"),
        (partial(hear_later), "is async"),
        (HearsLater(), "is async"),
        (hear_in_steps, "is async"),
    ],
    ids=["number", "text", "function", "partial", "object", "generator"],
)
def test_a_listener_that_cannot_be_called_with_an_event_is_refused_when_given(listener, reason):
    client = KlingClient("any-key")
    for call in (
        lambda: Notifier(listener),
        lambda: KlingClient("any-key", on_event=listener),
        lambda: client.with_options(on_event=listener),
        lambda: client.stream_many(["a comet"], on_event=listener),
    ):
        with pytest.raises(TypeError, match=reason):
            call()


def test_a_listener_that_returns_a_coroutine_is_logged_as_one_that_raises(caplog):
    Notifier(lambda event, hear=hear_later: hear(event))(CHANGED)
    assert "on_event raised for StatusChanged; the batch continues" in caplog.text
    assert "on_event returned a coroutine, and events are not awaited" in caplog.text


def test_each_kind_of_error_of_a_listener_is_logged_once(caplog):
    def fail(event):
        raise (RuntimeError if event.index else asyncio.CancelledError)

    notify = Notifier(fail)
    for index in (0, 1, 0, 1):
        notify(attrs.evolve(CHANGED, index=index))
    notify(Finished(at=2.0, index=1, state=ResultState.SUCCEEDED))
    assert [(record.args, record.exc_info[0]) for record in caplog.records] == [
        (("StatusChanged",), asyncio.CancelledError),
        (("StatusChanged",), RuntimeError),
        (("Finished",), RuntimeError),
    ]


def test_a_listener_of_the_package_that_fails_is_logged(caplog):
    class Broken:
        _is_own = True

        def __call__(self, event):
            raise RuntimeError("a broken count")

    heard = []
    Notifier(Broken(), heard.append)(CHANGED)
    assert heard == [CHANGED]
    assert "a count of StatusChanged failed; the batch continues" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_listener_that_ends_the_program_is_not_called_again(kind):
    heard = []

    def leave(event):
        heard.append(event)
        raise kind

    notify = Notifier(leave)
    with pytest.raises(kind):
        notify(CHANGED)
    notify(CHANGED)
    Notifier(notify)(CHANGED)
    assert heard == [CHANGED]
