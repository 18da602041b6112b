from __future__ import annotations

import logging
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from decimal import Decimal
from itertools import chain
from pathlib import Path

import anyio
import psycopg
import pytest
from fake_pooler import run_pooler
from postgres_server import PASSWORD, run

from kling_async import JournalError
from kling_async._journal.entry import EntryState, Identity
from kling_async._journal.location import journal_location
from kling_async._journal.open_journal import journal_exists, open_journal, read_journal
from kling_async._journal.postgres import schema, statements
from kling_async._journal.postgres.connection import LOST_AFTER, translate
from kling_async._journal.postgres.database import NoSessionError
from kling_async._journal.postgres.rows import identity_digest
from kling_async._journal.postgres.store import PostgresStore
from kling_async._journal.shared_store import PlannedPost, PostDecision, WantedItem
from kling_async._journal.sharing import MAX_CONFIRMATION_AGE, TakenOverError, read_monotonic_clock
from kling_async._journal.store import Activity, PendingWrites
from kling_async._transport.base import MAX_POST_CONNECT_TIME

RAIN, SNOW, WIND = (Identity(None, name, 0) for name in ("rain", "snow", "wind"))
ALLOWED, BLOCKED, OVER_CAP, TAKEN_OVER = PostDecision


@pytest.fixture
def anyio_backend():
    return "asyncio"


def open_store(url, **options):
    return PostgresStore(journal_location(url, name="journal"), **options)


@pytest.fixture
def stores(journal_database):
    """Opens the store once more, as another process does."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(closing(open_store(journal_database, **options)))


def hold(store, *identities):
    return [
        claim.entry and claim.entry.number
        for claim in store.claim([WantedItem(identity=identity, model="m") for identity in identities])
    ]


def change(number, identity, **fields):
    whole = {
        "number": number,
        "identity": identity,
        "model": "m",
        "payload": {},
        "state": EntryState.INTENDED,
        "attempts": 1,
    }
    return PendingWrites({number: {**whole, **fields}}, {identity: number})


def reserve(store, number, *, look_alikes="rain", price="1", cap=None):
    post = PlannedPost(
        number=number,
        model="m",
        look_alikes=look_alikes,
        price_usd=Decimal(price),
        cap_usd=cap and Decimal(cap),
    )
    (permit,) = store.reserve_posts([post])
    return permit.decision


def end_session(store):
    """Cut the connection that holds the lock of a store, as the server does with one that it cannot reach."""
    session = store._session._connection.info.backend_pid
    run(store._url.secret.reveal(), "SELECT pg_terminate_backend(%s, 10000)", session)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def no_free_descriptor():
    """The process can open no further file, connection or poll; the block gets a function that takes what is freed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))

    def take_all():
        with suppress(OSError):
            while True:
                held.append(os.dup(0))

    try:
        take_all()
        yield take_all
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


CHANGED = [
    ("state", "done"),
    ("payload", "{"),
    ("payload", "[]"),
    ("payload", "null"),
    ("payload", "[" * 100_000),
    ("key", '"x'),
    ("model", '"x'),
    ("error", '"x'),
    ("path", '"x'),
    ("request_id", '"x'),
    ("occurrence", -1),
    ("attempts", -1),
    ("index", -1),
    ("size_bytes", -1),
    ("sent_at", "Infinity"),
    ("sent_at", 1e300),
    ("timeout", "NaN"),
    ("cost_usd", "NaN"),
    ("attempt_cost_usd", -1),
]
"""Columns, with values that kling_async does not write into them."""
CHANGED_IDENTITY = [("key", "other"), ("fingerprint", "other"), ("occurrence", 7)]
"""Columns of the identity, with values of other items."""


def change_row(database, table, column, value, number):
    statement = f'UPDATE {table} SET "{column}" = %s WHERE number = %s'  # noqa: S608 - our own names
    run(database, statement, value, number)


def holders(database):
    return dict(run(database, "SELECT number, holder IS NOT NULL FROM kling_async_entries").fetchall())


@pytest.mark.parametrize("column, value", CHANGED)
def test_a_row_that_another_program_has_changed_is_one_sentence(stores, journal_database, column, value):
    hold(stores(), RAIN)
    change_row(journal_database, "kling_async_entries", column, value, 1)
    with pytest.raises(JournalError, match=f"Entry 1 .* cannot be read: its column '{column}' holds"):
        list(read_journal(journal_database))


@pytest.mark.parametrize("column, value", CHANGED + CHANGED_IDENTITY)
def test_a_row_that_another_program_has_changed_spoils_no_other_claim(
    stores, journal_database, column, value
):
    with closing(stores()) as store:
        hold(store, RAIN, SNOW, WIND)
    change_row(journal_database, "kling_async_entries", column, value, 2)

    items = [WantedItem(identity=identity, is_known=True) for identity in (RAIN, SNOW, WIND)]
    store = stores()
    rain, snow, wind = store.claim(items)
    assert (rain.entry.number, wind.entry.number) == (1, 3)
    assert (snow.entry, rain.error, wind.error) == (None, None, None)
    assert str(snow.error).startswith("Entry 2 of the journal cannot be read")
    assert holders(journal_database) == {1: True, 2: False, 3: True}


@pytest.mark.parametrize("column, value", [("payload", "[]"), *CHANGED_IDENTITY])
def test_an_entry_that_another_program_has_changed_is_not_registered_again(
    stores, journal_database, column, value
):
    store = stores()
    store.register([WantedItem(identity=RAIN), WantedItem(identity=SNOW)])
    change_row(journal_database, "kling_async_entries", column, value, 2)
    with pytest.raises(JournalError, match="Entry 2 of the journal cannot be read"):
        store.register([WantedItem(identity=RAIN), WantedItem(identity=SNOW)])


def test_an_earlier_attempt_that_another_program_has_changed_spoils_the_claim_of_its_entry_alone(
    stores, journal_database
):
    with closing(stores()) as store:
        for number, identity in zip(hold(store, RAIN, SNOW), (RAIN, SNOW), strict=True):
            for attempt in (1, 2, 3):
                before = [store.entry(number)] if attempt > 1 else []
                changes = change(number, identity, attempts=attempt)
                changes.earlier.extend(before)
                store.commit(changes)
    change_row(journal_database, "kling_async_earlier_attempts", "payload", "[]", 1)

    rain, snow = stores().claim([WantedItem(identity=identity) for identity in (RAIN, SNOW)])
    assert (rain.entry, len(snow.unknown_attempts)) == (None, 2)
    assert "Entry 1 of the journal cannot be read: its column 'payload'" in str(rain.error)
    assert holders(journal_database) == {1: False, 2: True}


@pytest.mark.parametrize("total", ["NaN", "-1"])
def test_a_total_that_another_program_has_changed_is_one_sentence(stores, journal_database, total):
    store = stores()
    with psycopg.connect(journal_database) as connection:
        connection.execute("UPDATE kling_async_journal SET spent_usd = %s", [total])
    with pytest.raises(JournalError, match=f"could not be read .'{total}' is no amount of money"):
        store.spent_usd()


def test_a_row_that_another_program_has_changed_is_lost_to_the_process_that_held_it(stores, journal_database):
    store = stores()
    (number,) = hold(store, RAIN)
    change_row(journal_database, "kling_async_entries", "payload", "[]", number)
    assert hold(store, RAIN) == [None]
    assert store.is_lost(number)
    change_row(journal_database, "kling_async_entries", "payload", "{}", number)
    assert hold(stores(), RAIN) == [number]


def test_a_session_outlives_a_time_without_free_descriptors(stores, journal_database):
    store = stores()
    hold(store, RAIN)
    former, confirmed_at = store._session._connection, store._session.confirmed_at

    with psycopg.connect(journal_database, autocommit=True) as connection:
        with no_free_descriptor() as take_all:
            store._session._wake.send(b"x")  # as after a notice
            wait_until(lambda: take_all() or store._session.confirmed_at > confirmed_at)
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", [former.info.backend_pid])
            wait_until(lambda: former.closed)
        wait_until(lambda: store._session._connection is not former)

    assert hold(store, RAIN) == [1]


# Items


def test_an_item_is_held_by_one_process_at_a_time(stores):
    first, second = stores(), stores()
    (number,) = hold(first, RAIN)

    (refused,) = second.claim([WantedItem(identity=RAIN)])
    assert (refused.entry, refused.is_held_elsewhere) == (None, True)
    assert second.find_claimable([RAIN]) == set()
    assert hold(second, RAIN, SNOW) == [None, number + 1]

    first.commit(PendingWrites(released={number}))
    assert second.find_claimable([RAIN]) == {RAIN}
    assert hold(second, RAIN) == [number]
    assert first.find(RAIN) is None
    assert hold(first, RAIN) == [None]


def test_a_process_finds_what_it_holds_after_the_answer_was_lost(stores):
    store = stores()
    assert hold(store, RAIN) == hold(store, RAIN) == [1]
    assert store.find_claimable([RAIN]) == {RAIN}


def test_many_processes_that_claim_at_once_share_the_items(stores):
    identities = [Identity(None, f"item {number}", 0) for number in range(200)]
    opened = [stores() for _ in range(4)]
    held = {}

    def run(store):
        held[store] = [number for number in hold(store, *identities) if number is not None]

    threads = [threading.Thread(target=run, args=[store]) for store in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(chain.from_iterable(held.values())) == sorted(
        {number for numbers in held.values() for number in numbers}
    )
    assert sum(map(len, held.values())) == 200


def test_the_items_of_a_closed_store_can_be_claimed(stores):
    first, second = stores(), stores()
    hold(first, RAIN)
    first.close()
    first.close()

    assert hold(second, RAIN) == [1]


def test_a_known_item_is_not_made(stores):
    store = stores()
    (claim,) = store.claim([WantedItem(identity=RAIN, is_known=True)])
    assert (claim.entry, claim.is_held_elsewhere) == (None, False)
    assert store.page(0) == []


def test_registered_items_are_held_by_no_process(stores):
    first, second = stores(), stores()
    hold(first, RAIN)
    wanted = [
        WantedItem(identity=identity, model="m", payload={"prompt": "x"}, index=index)
        for index, identity in enumerate([SNOW, RAIN, WIND], 5)
    ]

    entries = second.register(wanted)
    again = second.register(list(reversed(wanted)))

    assert [entry.identity for entry in entries] == [SNOW, RAIN, WIND]
    assert [entry.index for entry in entries] == [5, 0, 7]  # an entry that is held is left alone
    assert [entry.number for entry in again] == [entry.number for entry in reversed(entries)]
    assert second.find_claimable([RAIN, SNOW, WIND]) == {SNOW, WIND}


def test_a_store_knows_what_another_process_wrote_since_it_was_opened(stores):
    first = stores()
    (number,) = hold(first, RAIN)
    first.commit(change(number, RAIN, state=EntryState.FAILED))
    second = stores()
    hold(first, SNOW)
    first.commit(change(number + 1, SNOW))
    first.close()

    claims = second.claim([WantedItem(identity=RAIN), WantedItem(identity=SNOW), WantedItem(identity=WIND)])

    assert [claim.is_changed_elsewhere for claim in claims] == [False, True, False]


@contextmanager
def shifted_clock(monkeypatch, statement, shift):
    """A block in which the clock of the server is wrong for a statement."""
    text = getattr(statements, statement).replace("clock_timestamp()", f"(clock_timestamp() + {shift})")
    with monkeypatch.context() as patch:
        patch.setattr(statements, statement, text)
        yield


def test_a_store_knows_what_another_process_wrote_also_if_the_clock_of_the_server_was_set_back(
    stores, monkeypatch
):
    first, second = stores(), stores()
    (number,) = hold(first, RAIN)
    with shifted_clock(monkeypatch, "WRITE", "interval '-1 hour'"):
        first.commit(change(number, RAIN, state=EntryState.FAILED))
    first.close()

    (claim,) = second.claim([WantedItem(identity=RAIN)])

    assert claim.is_changed_elsewhere


# The location


@pytest.mark.parametrize(
    "form",
    [
        "postgres://{user}:{password}@localhost:{port}/{name}",
        "postgresql://{user}@{host}:{port}/{name}",
        "postgresql://{user}:{password}@{host}/{name}?port={port}&sslmode=prefer",
        "postgresql://{user}:{password}@{host}/{name}?sslmode=prefer&port={port}",
        "postgresql:///{name}?user={user}&password={password}&host={host}&port={port}",
        "postgresql://{user}:{password}@{host}:{port}/{name}?options=-csearch_path%3Dpublic",
    ],
)
def test_each_spelling_of_the_url_of_a_journal_is_one_location(stores, journal_database, form, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    parts = re.fullmatch(
        r"\w+://(?P<user>\w+):(?P<password>[^@]+)@(?P<host>[\d.]+):(?P<port>\d+)/(?P<name>\w+)",
        journal_database,
    )
    with closing(open_store(form.format(**parts.groupdict()))) as other:
        assert other.location == stores().location


def test_each_schema_of_a_database_is_a_location_of_its_own(postgres_server, stores, journal_database):
    postgres_server.execute("CREATE SCHEMA other", journal_database.rpartition("/")[2])
    with closing(open_store(f"{journal_database}?options=-csearch_path%3Dother")) as other:
        assert other.location != stores().location
        assert hold(other, RAIN) == hold(stores(), RAIN) == [1]


# Writes


def test_a_write_of_a_lost_item_is_refused_and_known(stores):
    first, second = stores(), stores()
    (number,) = hold(first, RAIN)
    end_session(first)
    wait_until(lambda: hold(second, RAIN) == [number])

    (other,) = hold(second, SNOW)
    second.commit(change(other, SNOW, request_id="r-1"))
    first.commit(change(number, RAIN, request_id="r-1"))
    assert first.is_job_taken(number)
    first.commit(change(number, RAIN))

    assert not first.is_job_taken(number)
    assert first.is_lost(number)
    assert first.is_lost(99)
    assert second.page(0)[0].state is EntryState.NOT_SUBMITTED
    assert reserve(first, number) is TAKEN_OVER
    assert not first.begin_reconciliation(number, model="m", look_alikes=None)
    assert not first.begin_reconciliation(99, model="m", look_alikes=None)
    first.commit(PendingWrites(released={number}))
    assert second.find_claimable([RAIN]) == {RAIN}


def test_a_change_of_an_entry_that_is_not_held_is_an_error_and_nothing_is_written(stores):
    store = stores()
    (number,) = hold(store, SNOW)
    changes = change(5, RAIN).merge(change(number, SNOW))
    with pytest.raises(
        JournalError, match="cannot record a change of entry 5, which this process does not hold"
    ):
        store.commit(changes)
    assert store.page(0)[0].state is EntryState.NOT_SUBMITTED


def test_what_is_not_held_has_no_activity_and_nothing_to_release(stores):
    store = stores()
    store.commit(PendingWrites(released={5}, ended={(5, Activity.POST)}))
    assert store.page(0) == []
    assert not store.match_job(5, "r-1")
    assert reserve(store, 5) is TAKEN_OVER


def test_a_commit_that_is_written_twice_costs_once(stores):
    store = stores()
    (number,) = hold(store, RAIN)
    for _ in range(2):
        store.commit(change(number, RAIN, cost_usd=Decimal("0.35")))

    assert store.spent_usd() == Decimal("0.35")


def test_a_session_that_is_gone_is_opened_again_and_keeps_what_no_other_process_took(stores):
    store, notices = stores(), []
    store.subscribe(lambda: notices.append(1))
    (number,) = hold(store, RAIN)
    before = store._held.holder
    end_session(store)

    assert reserve(store, number) is ALLOWED  # waits for the session
    end_session(store)
    store.confirm()  # so does this

    assert store._held.holder != before
    assert notices
    assert not store.is_lost(number)
    assert reserve(store, number) is ALLOWED
    store.commit(change(number, RAIN))
    (entry,) = store.page(0)
    assert entry.state is EntryState.INTENDED


# POSTs


def test_a_post_has_left_before_another_process_can_take_the_item_of_a_process_that_is_cut_off():
    assert MAX_CONFIRMATION_AGE + MAX_POST_CONNECT_TIME < LOST_AFTER


def test_a_post_is_confirmed_by_the_server(stores):
    store = stores()
    before = read_monotonic_clock()
    store.confirm()
    assert store.confirmed_at() >= before


def test_a_store_proves_again_and_again_that_its_session_lives(stores, monkeypatch):
    monkeypatch.setattr("kling_async._journal.postgres.session._PING_INTERVAL", 0.01)
    store = stores()
    before = read_monotonic_clock()
    wait_until(lambda: store.confirmed_at() > before)


def test_look_alikes_wait_while_another_process_reconciles(stores):
    first, second = stores(), stores()
    rain, snow = hold(first, RAIN, SNOW)
    (wind,) = hold(second, WIND)
    first.commit(change(rain, RAIN))
    assert first.begin_reconciliation(rain, model="m", look_alikes="rain")

    assert reserve(second, wind) is BLOCKED
    assert reserve(second, wind, look_alikes=None) is BLOCKED
    assert reserve(second, wind, look_alikes="wind") is ALLOWED
    assert reserve(first, snow) is ALLOWED  # the own client takes care of its own

    first.commit(PendingWrites(ended={(rain, Activity.RECONCILIATION)}))
    assert reserve(second, wind) is ALLOWED
    first.begin_reconciliation(rain, model="m", look_alikes="rain")
    first.close()
    assert reserve(second, wind) is ALLOWED


def test_a_reconciliation_waits_while_a_look_alike_of_another_process_is_in_flight(stores):
    first, second = stores(), stores()
    (rain,), (snow,) = hold(first, RAIN), hold(second, SNOW)
    assert reserve(second, snow) is ALLOWED
    assert first.find_searchable([rain]) == set()  # not begun

    first.begin_reconciliation(rain, model="m", look_alikes="rain")

    assert first.find_searchable([rain]) == set()
    accepted = change(snow, SNOW, request_id="r-2", state=EntryState.SUBMITTED)
    accepted.ended.add((snow, Activity.POST))
    second.commit(accepted)
    assert first.find_searchable([rain]) == {rain}
    assert first.find_jobs(["r-2", "r-3"]) == {"r-2"}


def test_a_job_is_matched_to_one_entry_of_all_processes(stores):
    first, second = stores(), stores()
    (rain,), (snow,) = hold(first, RAIN), hold(second, SNOW)
    first.commit(change(rain, RAIN))
    second.commit(change(snow, SNOW))

    assert first.match_job(rain, "r-1")
    assert first.match_job(rain, "r-1")
    assert not second.match_job(snow, "r-1")
    assert second.match_job(snow, "r-2")
    assert not second.match_job(snow, "r-3")

    assert [(entry.request_id, entry.state) for entry in first.page(0)] == [
        ("r-1", EntryState.SUBMITTED),
        ("r-2", EntryState.SUBMITTED),
    ]
    assert (first.find(RAIN).request_id, first.find(RAIN).state) == ("r-1", EntryState.INTENDED)
    first.commit(PendingWrites({rain: {"index": 7, "state": EntryState.INTENDED}}))
    assert first.page(0)[0].request_id == "r-1"
    assert first.find_all_unknown("m") == []


def test_an_accepted_job_that_another_entry_has_is_not_written(stores):
    first, second = stores(), stores()
    (rain, wind), (snow,) = hold(first, RAIN, WIND), hold(second, SNOW)
    first.commit(change(rain, RAIN).merge(change(wind, WIND)))
    second.commit(change(snow, SNOW))
    assert second.match_job(snow, "r-1")

    accepted = {"request_id": "r-1", "state": EntryState.SUBMITTED}
    for _ in range(2):
        first.commit(
            PendingWrites({rain: dict(accepted), wind: {"request_id": "r-2", "state": EntryState.SUBMITTED}})
        )
    second.commit(PendingWrites({snow: dict(accepted)}))

    assert [(entry.request_id, entry.state) for entry in first.page(0)] == [
        (None, EntryState.INTENDED),
        ("r-2", EntryState.SUBMITTED),
        ("r-1", EntryState.SUBMITTED),
    ]
    assert [first.is_job_taken(number) for number in (rain, wind, 99)] == [True, False, False]
    assert [first.is_lost(number) for number in (rain, wind)] == [True, False]
    assert not second.is_job_taken(snow)
    end_session(first)
    first.confirm()
    assert first.is_lost(rain)
    assert hold(first, RAIN) == [rain]
    assert not first.is_lost(rain)
    assert not first.is_job_taken(rain)
    assert first.match_job(rain, "r-3")


def test_one_of_two_entries_that_are_written_together_with_one_job_has_it(stores):
    store = stores()
    rain, snow = hold(store, RAIN, SNOW)
    both = [change(number, one, request_id="r-1") for number, one in ((rain, RAIN), (snow, SNOW))]

    store.commit(both[0].merge(both[1]))

    assert [entry.request_id for entry in store.page(0)] == ["r-1", None]
    assert [store.is_job_taken(number) for number in (rain, snow)] == [False, True]


def test_processes_that_write_the_same_jobs_at_once_share_them(stores):
    opened = {stores(): [Identity(None, f"{name} {index}", 0) for index in range(50)] for name in "abc"}

    def run(store, identities):
        changes = PendingWrites()
        numbers = hold(store, *identities)
        for index, (number, identity) in enumerate(zip(numbers, identities, strict=True)):
            changes = changes.merge(change(number, identity, request_id=f"r-{index}"))
        barrier.wait()
        store.commit(changes)

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=run, args=pair) for pair in opened.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ids = [entry.request_id for entry in next(iter(opened)).page(0) if entry.request_id is not None]
    assert sorted(ids) == sorted(f"r-{index}" for index in range(50))


async def test_a_process_whose_accepted_job_another_entry_has_starts_again(journal_database):
    with open_journal(journal_database) as first, closing(open_store(journal_database)) as second:
        claim = await first.sharing.claim(RAIN, lambda: WantedItem(identity=RAIN, model="m"))
        rain = first.record_intent(RAIN, model="m", payload={}, at=1.0, cost_usd=None)
        assert rain == claim.entry.number
        await first.flush()
        (snow,) = hold(second, SNOW)
        second.commit(change(snow, SNOW))
        assert second.match_job(snow, "r-1")
        assert not await first.sharing.is_job_taken(rain)

        first.record_job(rain, request_id="r-1", record={})
        assert await first.sharing.is_job_taken(rain)
        with pytest.raises(TakenOverError):
            await first.sharing.reserve_post(rain, model="m", payload={}, price_usd=None, cap_usd=None)
        claim = await first.sharing.claim(RAIN, lambda: WantedItem(identity=RAIN))

    assert (claim.entry.state, claim.entry.request_id) == (EntryState.INTENDED, None)


async def test_a_write_from_before_a_take_over_does_not_change_the_entry_that_is_claimed_again(
    journal_database,
):
    with open_journal(journal_database) as first, closing(open_store(journal_database)) as second:
        await first.sharing.claim(RAIN, lambda: WantedItem(identity=RAIN, model="m"))
        number = first.record_intent(RAIN, model="m", payload={}, at=1.0, cost_usd=None)
        await first.flush()
        first.record_not_accepted(number, error="too many")
        end_session(first._store)
        wait_until(lambda: hold(second, RAIN) == [number])
        second.commit(change(number, RAIN, request_id="r-1", state=EntryState.SUBMITTED))
        second.commit(PendingWrites(released={number}))

        claim = await first.sharing.claim(RAIN, lambda: WantedItem(identity=RAIN))
        await first.flush()

        assert (claim.entry.request_id, claim.entry.state) == ("r-1", EntryState.SUBMITTED)
        assert second.page(0) == [claim.entry]


def test_the_money_is_reserved_for_all_processes_until_the_intent_has_it(stores):
    first, second = stores(), stores()
    (rain,), (snow, wind) = hold(first, RAIN), hold(second, SNOW, WIND)
    assert reserve(first, rain, cap="2") is ALLOWED
    assert reserve(first, rain, cap="2") is ALLOWED  # the same POST once more
    assert reserve(second, snow, cap="2") is ALLOWED
    assert reserve(second, wind, cap="2") is OVER_CAP

    first.commit(change(rain, RAIN, cost_usd=Decimal(1)))
    assert reserve(second, wind, cap="2") is OVER_CAP
    assert reserve(second, wind, cap="3") is ALLOWED
    second.close()
    first.commit(change(rain, RAIN, cost_usd=None, state=EntryState.NOT_SUBMITTED))
    assert first.spent_usd() == 0
    assert reserve(first, rain, cap="1") is ALLOWED  # what a process that is gone has reserved was never sent


def test_the_log_of_the_driver_is_hidden_in_our_calls_and_in_no_other(stores, caplog):
    log = logging.getLogger("psycopg")
    stores()._database.call(lambda _: log.warning("error ignored terminating"))
    assert not caplog.records
    log.warning("of another connection")
    assert [record.getMessage() for record in caplog.records] == ["of another connection"]


@pytest.mark.parametrize("prices", [["0.35"] * 10, ["0.35", "0.35", "0.70", "0.10"]])
def test_all_posts_above_the_cap_have_the_total_of_the_first_one(stores, prices):
    store = stores()
    identities = [Identity(key=str(place), fingerprint="f", occurrence=0) for place in range(len(prices))]
    posts = [
        PlannedPost(
            number=number,
            model="m",
            look_alikes=str(number),
            price_usd=Decimal(price),
            cap_usd=Decimal("0.5"),
        )
        for number, price in zip(hold(store, *identities), prices, strict=True)
    ]
    for _ in range(2):  # asked once more, the allowed POST is the same one
        first, *others = store.reserve_posts(posts)
        assert (first.decision, first.total_usd) == (ALLOWED, Decimal("0.35"))
        assert {(permit.decision, permit.total_usd) for permit in others} == {(OVER_CAP, Decimal("0.70"))}


def test_a_planned_post_whose_session_has_gone_needs_another_permit(stores, monkeypatch):
    first, second = stores(), stores()
    (rain, wind), (snow,) = hold(first, RAIN, WIND), hold(second, SNOW)
    assert reserve(first, rain, cap="2") is ALLOWED
    assert reserve(first, wind, cap="2", look_alikes="wind") is ALLOWED
    first.commit(change(wind, WIND, cost_usd=Decimal(1)))
    before = first._held.holder
    monkeypatch.setattr("kling_async._journal.postgres.session._RECONNECT_DELAY", 1.0)
    end_session(first)
    assert (
        reserve(second, snow, cap="2") is ALLOWED
    )  # for no session says any more that the money is reserved
    second.commit(change(snow, SNOW, cost_usd=Decimal(1)))
    wait_until(lambda: first._held.holder != before)

    first.commit(PendingWrites({rain: {"index": 7}}))
    first.commit(change(rain, RAIN, cost_usd=Decimal(1)))

    assert (first.is_lost(rain), first.is_lost(wind)) == (True, False)
    assert first.spent_usd() == 2
    assert hold(first, RAIN) == [rain]
    assert reserve(first, rain, cap="2") is OVER_CAP
    assert reserve(first, rain, cap="3") is ALLOWED
    first.commit(change(rain, RAIN, cost_usd=Decimal(1)))
    assert (first.is_lost(rain), first.spent_usd()) == (False, 3)


def test_a_database_with_other_defaults_decides_about_money_as_any_other(
    postgres_server, journal_database, stores
):
    name = journal_database.rpartition("/")[2]
    for default in (
        "default_transaction_isolation = 'repeatable read'",
        "DateStyle = 'German'",
        "client_encoding = 'LATIN1'",
    ):
        postgres_server.execute(f"ALTER DATABASE {name} SET {default}")
    first, second = stores(), stores()
    (rain,), (snow,) = hold(first, RAIN), hold(second, SNOW)
    first.commit(change(rain, RAIN, error="\N{SNOWFLAKE}"))
    decisions = []
    with psycopg.connect(journal_database) as other:
        # A process that reserves money at the same time: the second one waits, and then has to see what it did.
        other.execute(statements.LOCK_INTENTS.encode())
        waiting = threading.Thread(target=lambda: decisions.append(reserve(second, snow, cap="1")))
        waiting.start()
        with psycopg.connect(journal_database, autocommit=True) as looker:
            wait_until(
                lambda: (
                    looker.execute(
                        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                    ).fetchone()
                    == (1,)
                )
            )
        other.execute("UPDATE kling_async_journal SET spent_usd = 1")
    waiting.join()

    assert decisions == [OVER_CAP]
    assert [entry.error for entry in first.page(0)] == ["\N{SNOWFLAKE}", None]


def test_turns_of_one_rate_are_shared(stores):
    first, second = stores(), stores()
    waits = [*first.take_turns(2, rate=0.001, burst=2), *second.take_turns(2, rate=0.001, burst=2)]
    assert waits == [0.0, 0.0, pytest.approx(1000, abs=60), pytest.approx(2000, abs=60)]


def test_a_journal_that_cannot_be_read_after_it_was_opened_ends_its_session(journal_database):
    open_journal(journal_database).close()
    threads = threading.active_count()
    with psycopg.connect(journal_database, autocommit=True) as other:
        other.execute("ALTER TABLE kling_async_journal DROP COLUMN spent_usd")
        with pytest.raises(JournalError, match="spent_usd"):
            open_journal(journal_database)
        assert threading.active_count() == threads
        wait_until(lambda: not other.execute("SELECT FROM pg_locks WHERE locktype = 'advisory'").fetchall())


def test_turns_that_were_taken_while_the_clock_of_the_server_was_ahead_are_not_waited_for(
    stores, monkeypatch
):
    store = stores()
    with shifted_clock(monkeypatch, "TAKE_TURNS", "interval '1 day'"):
        store.take_turns(2, rate=0.001, burst=1)
    assert store.take_turns(1, rate=0.001, burst=1) == [pytest.approx(2000, abs=60)]


async def test_another_process_hears_of_a_release(journal_database):
    with open_journal(journal_database) as first, open_journal(journal_database) as second:
        claim = await first.sharing.claim(RAIN, lambda: WantedItem(identity=RAIN, model="m"))
        first.sharing.release(claim.entry.number)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.sharing.wait_claimable, RAIN)
            await anyio.sleep(0.01)
            await first.flush()


# Servers that are away


def test_a_restart_of_the_server_is_ridden_out(postgres_server, stores):
    store = stores()
    (number,) = hold(store, RAIN)
    for how in (signal.SIGINT, signal.SIGQUIT):
        postgres_server.stop(how)
        starting = threading.Thread(target=postgres_server.start)
        starting.start()
        store.commit(change(number, RAIN))
        starting.join()
        assert reserve(store, number) is ALLOWED

    assert not store.is_lost(number)
    assert [entry.state for entry in store.page(0)] == [EntryState.INTENDED]


def test_a_server_that_stays_away_is_one_clear_error(postgres_server, stores):
    store = stores(max_outage=0.5)
    (number,) = hold(store, RAIN)
    postgres_server.stop()
    try:
        for call in (store.confirm, lambda: store.commit(change(number, RAIN))):
            # The last thing heard is that the server ended a connection, or that it refuses one.
            with pytest.raises(
                JournalError,
                match=r"could not be reached \(.*(refused|closed).*\): when the server is back, run",
            ):
                call()
    finally:
        postgres_server.start()
    store.commit(change(number, RAIN))


def test_a_session_that_cannot_be_opened_again_is_one_clear_error(stores, monkeypatch):
    store = stores(max_outage=0.5)
    (number,) = hold(store, RAIN)
    monkeypatch.setattr("kling_async._journal.postgres.statements.LOCK_SESSION", "SELECT 1 / 0, %s")
    end_session(store)

    with pytest.raises(JournalError, match="its session cannot be opened again"):
        reserve(store, number)


@pytest.mark.parametrize(
    "error,reason",
    [
        (NoSessionError(), "its session cannot be opened again"),
        (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), "statement timeout"),
        (psycopg.OperationalError("SSL connection has been closed"), "has been closed"),
    ],
)
def test_a_call_that_always_fails_gives_up_also_while_others_succeed(stores, error, reason):
    store = stores(max_outage=0.5)
    deadline = time.monotonic() + 20

    def fail(_):
        assert time.monotonic() < deadline, "this call does not give up"
        store.find_claimable([])
        raise error

    with pytest.raises(JournalError, match=reason):
        store._database.call(fail)
    assert store.find_claimable([]) == set()


def test_an_outage_that_ended_a_call_is_not_that_of_a_call_an_hour_later(stores):
    store = stores(max_outage=0.5)
    failures = 0

    def fail(work):
        nonlocal failures
        failures += 1
        raise psycopg.errors.AdminShutdown("the server restarts")

    with pytest.raises(JournalError, match="the server restarts"):
        store._database.call(fail)
    store._database._failed_at -= 3600
    failures = 0
    with pytest.raises(JournalError, match="the server restarts"):
        store._database.call(fail)
    assert failures > 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows numbers its sockets otherwise")
def test_a_process_with_more_open_files_than_a_select_takes_keeps_its_items(stores):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            files.enter_context(Path(os.devnull).open())
        store = stores()
        (number,) = hold(store, RAIN)
        end_session(store)

        assert reserve(store, number) is ALLOWED
        assert store._session._connection.fileno() > 1024
        store.close()


def test_a_move_that_fails_is_tried_again(stores, monkeypatch):
    store = stores()
    (number,) = hold(store, RAIN)
    monkeypatch.setattr(
        "kling_async._journal.postgres.statements.MOVE_ACTIVITIES", "SELECT 1 / 0, %s, %s::int[]"
    )
    end_session(store)
    time.sleep(1)
    monkeypatch.undo()

    assert reserve(store, number) is ALLOWED


# Databases that cannot be used


def refuse(url):
    """The error of opening a journal, which shows no password."""
    with pytest.raises(JournalError) as refusal:
        open_journal(url)
    shown = str(refusal.value) + repr(refusal.value.__cause__) + repr(refusal.value.__context__)
    assert "s3cret" not in shown
    assert "\n" not in refusal.value.message
    return refusal.value.message


def test_a_url_that_the_driver_cannot_read_says_how_to_write_it():
    assert "is not the URL of a database: write postgresql://user" in refuse(
        "postgresql://me:s3cret@db.example:port/videos?wrong=1"
    )


def test_an_at_sign_in_a_password_is_no_part_of_a_host():
    message = refuse("postgresql://me:p@s3cret@127.0.0.1:1/videos")
    assert "with %40 for an @ in the password" in message


def test_a_wrong_password_says_so(database):
    message = refuse(database.replace(PASSWORD, "s3cret-and-wrong"))
    assert 'could not be opened (password authentication failed for user "tester")' in message


def test_no_server_says_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    message = refuse(f"postgresql://me:s3cret@127.0.0.1:{port}/videos")
    assert "could not be opened (Connection refused" in message
    assert "check the URL, that the server runs" in message


def test_no_database_says_so(postgres_server):
    assert 'database "missing" does not exist' in refuse(postgres_server.url("missing"))


def test_a_user_who_may_make_no_tables_is_told_so(postgres_server, database, guest):
    postgres_server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database.rpartition("/")[2])

    message = refuse(guest)
    assert "permission denied for schema public" in message
    assert message.endswith("let this user make tables there, by GRANT USAGE, CREATE ON SCHEMA.")


@pytest.fixture
def guest(postgres_server, database):
    """The URL of the same database for a user without any rights there."""
    postgres_server.execute("DROP ROLE IF EXISTS guest")
    postgres_server.execute("CREATE ROLE guest LOGIN PASSWORD 's3cret'")
    name = database.rpartition("/")[2]
    yield postgres_server.url(name, user="guest", password="s3cret")
    postgres_server.execute("DROP OWNED BY guest", name)
    postgres_server.execute("DROP ROLE guest")


def test_a_user_who_did_not_make_the_tables_is_told_which_rights_to_get_and_they_are_enough(database, guest):
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA"
    open_store(database).close()
    message = refuse(guest)
    assert "permission denied for table" in message
    assert f"let this user use what another one has made there, by GRANT {rights} and" in message
    with psycopg.connect(database) as owner:
        owner.execute(f"GRANT {rights} public TO guest")
    message = refuse(guest)
    assert "permission denied for sequence kling_async_writes" in message
    assert message.endswith("GRANT USAGE ON ALL SEQUENCES IN SCHEMA.")
    with psycopg.connect(database) as owner:
        owner.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO guest")
    with closing(open_store(guest)) as store:
        (number,) = hold(store, RAIN)
        assert reserve(store, number) is ALLOWED
        store.commit(change(number, RAIN))
        assert store.match_job(number, "job")


def test_an_older_journal_is_brought_up_to_date_by_the_user_who_made_it(old_journal, guest):
    with psycopg.connect(old_journal) as owner:
        owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest")
        owner.execute("GRANT CREATE ON SCHEMA public TO guest")
    message = refuse(guest)
    assert "must be owner of" in message
    assert ": open the journal once as the user who made its tables" in message
    assert [entry.state for entry in read_journal(guest)] == [EntryState.FAILED]


def test_a_missing_schema_names_the_statement_that_makes_it(database):
    message = refuse(f"{database}?options=-csearch_path%3Dmissing")
    assert message.endswith("make the schema that the URL names, by CREATE SCHEMA.")


@pytest.mark.parametrize("reason", ["no password supplied", "password authentication failed for user"])
def test_a_password_that_is_missing_or_wrong_names_where_it_goes(reason):
    url = journal_location("postgresql://me@db.example/videos", name="journal")
    error = psycopg.OperationalError(f'connection to server at "x" failed: FATAL:  {reason}')
    message = translate(url, error, "opened", "check the URL").message
    assert "): set PGPASSWORD, or put the password into ~/.pgpass" in message


@pytest.mark.parametrize(
    "reason, step",
    [
        ('role "me" does not exist', "make this user, by CREATE USER"),
        ('database "videos" does not exist', "make the database, by CREATE DATABASE"),
        ('permission denied for database "videos"', "check the URL"),
    ],
)
def test_a_user_or_a_database_that_does_not_exist_is_to_be_made(reason, step):
    url = journal_location("postgresql://me@db.example/videos", name="journal")
    error = psycopg.OperationalError(f'connection to server at "x" failed: FATAL:  {reason}')
    assert f"): {step}" in translate(url, error, "opened", "check the URL").message


@pytest.mark.parametrize("table", ["kling_async_entries (x int)", "kling_async_journal (x int)"])
def test_foreign_tables_are_left_alone(postgres_server, database, table):
    postgres_server.execute(f"CREATE TABLE {table}", database.rpartition("/")[2])

    assert "has tables named kling_async_* that are not those of a journal" in refuse(database)


@pytest.mark.parametrize(
    "version, sentence",
    [
        (
            9,
            r"was made by a newer version of kling_async \(format 9, this one knows format 2\).*: update kling_async, or",
        ),
        (
            0,
            r"was made by an older version of kling_async \(format 0, this one knows format 2\).*: use that version, or",
        ),
    ],
)
def test_a_journal_of_another_version_is_left_alone(
    postgres_server, stores, journal_database, version, sentence
):
    stores()
    with psycopg.connect(journal_database) as connection:
        connection.execute("UPDATE kling_async_journal SET version = %s", [version])

    assert re.search(sentence, refuse(journal_database))
    with pytest.raises(JournalError, match=sentence):
        read_journal(journal_database)


@pytest.fixture
def old_journal(database):
    """A journal of the first format, with one entry."""
    with psycopg.connect(database) as connection:
        for statement in schema._TABLES:
            connection.execute(statement)
        connection.execute(
            "INSERT INTO kling_async_entries (identity, fingerprint, occurrence, model, payload, state, writer, written_at)"
            " VALUES (%s, 'rain', 0, 'm', '{}', 'failed', 7, now())",
            [identity_digest(RAIN)],
        )
    return database


def test_an_older_journal_is_read_as_it_is_also_while_an_older_version_uses_it(old_journal):
    with psycopg.connect(old_journal, autocommit=True) as older:
        older.execute(statements.LOCK_SESSION, [7])
        assert [entry.state for entry in read_journal(old_journal)] == [EntryState.FAILED]
        assert older.execute("SELECT version FROM kling_async_journal").fetchone() == (1,)


def test_an_older_journal_is_brought_up_to_date(old_journal):
    with closing(open_store(old_journal)) as store:
        (claim,) = store.claim([WantedItem(identity=RAIN)])

    assert (claim.entry.identity, claim.is_changed_elsewhere) == (RAIN, False)
    with psycopg.connect(old_journal) as connection:
        assert connection.execute("SELECT version FROM kling_async_journal").fetchone() == (schema.VERSION,)


def test_a_process_waits_while_another_brings_the_journal_up_to_date(old_journal):
    opened = []
    waiting = threading.Thread(target=lambda: opened.append(open_store(old_journal)))
    with psycopg.connect(old_journal, autocommit=True) as other, schema._lock_tables(other):
        waiting.start()
        find = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: other.execute(find).fetchone()[0])
        schema._migrate(other, version=1)
    waiting.join()

    (store,) = opened
    with closing(store):
        assert hold(store, RAIN) == [1]


def test_a_journal_that_an_older_version_uses_is_left_alone(old_journal):
    with psycopg.connect(old_journal, autocommit=True) as older:
        older.execute(statements.LOCK_SESSION, [7])
        assert "Processes with an older version of kling_async use the journal" in refuse(old_journal)

        assert older.execute("SELECT version FROM kling_async_journal").fetchone() == (1,)


def test_an_interrupted_migration_leaves_the_older_journal(old_journal, monkeypatch):
    steps = (*schema._MIGRATIONS[:1], (*schema._MIGRATIONS[1], "SELECT 1 / 0"))
    monkeypatch.setattr(schema, "_MIGRATIONS", steps)
    assert "division by zero" in refuse(old_journal)
    monkeypatch.undo()

    assert [entry.state for entry in read_journal(old_journal)] == [EntryState.FAILED]


def test_a_journal_without_its_row_is_left_alone(postgres_server, stores, journal_database):
    stores()
    postgres_server.execute("DELETE FROM kling_async_journal", journal_database.rpartition("/")[2])
    assert "is damaged: its table kling_async_journal is empty" in refuse(journal_database)


def test_reading_a_missing_journal_says_so(database):
    with pytest.raises(JournalError, match="There is no journal in 'postgresql://tester@"):
        read_journal(database)


def test_reading_without_a_server_says_so():
    with pytest.raises(JournalError, match="could not be read"):
        read_journal("postgresql://me@127.0.0.1:1/videos")


def test_a_journal_that_breaks_while_it_is_read_says_so(postgres_server, stores, journal_database):
    hold(stores(), RAIN)
    entries = read_journal(journal_database)
    postgres_server.execute(
        "ALTER TABLE kling_async_entries RENAME TO gone", journal_database.rpartition("/")[2]
    )
    with pytest.raises(JournalError, match="has tables named"):
        next(entries)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server, encoding):
    name = f"test_{encoding.lower()}"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    try:
        assert f"has the encoding {encoding}" in refuse(postgres_server.url(name))
        with pytest.raises(JournalError, match=f"has the encoding {encoding}"):
            journal_exists(postgres_server.url(name))
    finally:
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_two_processes_that_make_the_journal_at_once_make_one(database):
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(open_store(database))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [hold(store, Identity(None, str(index), 0)) for index, store in enumerate(opened)] == [
        [1],
        [2],
        [3],
        [4],
    ]
    for store in opened:
        store.close()


def test_a_pooler_is_refused_before_anything_is_made_there(postgres_server, database):
    with run_pooler(postgres_server.port) as port:
        url = database.replace(f":{postgres_server.port}/", f":{port}/")
        assert "is a pooler such as PgBouncer" in refuse(url)
        with pytest.raises(JournalError, match="is a pooler"):
            read_journal(url)

    assert not journal_exists(database)
