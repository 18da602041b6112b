"""What holds for every store: a file of SQLite, and the tables of PostgreSQL."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_async import JobStatus
from kling_async._journal.entry import EntryState, Identity
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.open_journal import open_journal, read_journal
from kling_async._journal.shared_store import WantedItem
from kling_async._policy.visible_text import visible_text

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ODD_TEXTS = ["", "雨 🌧", "a\0b", "\ud800", "</script>", "\u202e", '"quoted"', '"', "\\", "\n\t", "'; --"]


@attrs.frozen
class Journals:
    """Opens one journal again and again, and holds an item before it is written, as a shared journal wants it."""

    place: str

    def open(self) -> WriteAheadJournal:
        return open_journal(self.place)

    @staticmethod
    def record_intent(journal, identity, **fields) -> int:
        Journals.find(journal, identity)
        fields = {"model": "m", "payload": {}, "at": 1.0, "cost_usd": None, **fields}
        return journal.record_intent(identity, **fields)

    @staticmethod
    def find(journal, identity):
        if journal.sharing.is_shared and journal._store.find(identity) is None:
            (claim,) = journal._store.claim([WantedItem(identity=identity, model="m")])
            journal._entries.note_claim(claim)
        return journal.find(identity)

    def read(self):
        return list(read_journal(self.place))


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
def journals(request, tmp_path):
    if request.param == "sqlite":
        return Journals(str(tmp_path / "run.db"))
    return Journals(request.getfixturevalue("journal_database"))


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_any_text_survives(journals, text):
    identity = Identity(text, "f", 0)
    with journals.open() as journal:
        number = journals.record_intent(
            journal, identity, model=text, payload={"prompt": text}, at=1.5, timeout=2.5
        )
        journal.record_job(number, request_id=text, record={"status": text})
        journal.record_end(number, state=EntryState.SUCCEEDED, record=None, error=None)
        journal.record_file(number, path=text, size_bytes=1 << 40, sha256=None)
        journal.record_end(number, state=EntryState.FAILED, record=None, error=text)

    with journals.open() as journal:
        entry = journals.find(journal, identity)
        assert journal.has_job(text)
    assert journals.read() == [entry]
    assert entry.identity == identity
    assert (entry.model, entry.payload, entry.request_id) == (text, {"prompt": text}, text)
    assert (entry.path, entry.error, entry.record) == (text, text, {"status": text})
    assert (entry.sent_at, entry.timeout, entry.size_bytes) == (1.5, 2.5, 1 << 40)


@settings(max_examples=20)
@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
def test_any_generated_text_survives_in_a_database(postgres_server, text, payload):
    from postgres_server import make_journal

    from kling_async._journal.postgres.rows import decode_text, encode_text  # where psycopg is installed

    assert decode_text(encode_text(text)) == text
    with postgres_server.make_database(make_journal) as url:
        with open_journal(url) as journal:
            number = Journals.record_intent(journal, Identity(text, "f", 0), payload=payload)
            journal.record_job(number, request_id="r-1", record=payload)
        (entry,) = read_journal(url)
    record = {key: value for key, value in payload.items() if key != "payload"}  # which the entry has already
    assert (entry.identity.key, entry.payload, entry.record) == (visible_text(text), payload, record)


@pytest.mark.parametrize("cost", [None, Decimal("0.350"), Decimal("1E-9"), Decimal(0)])
def test_money_keeps_every_digit(journals, cost):
    with journals.open() as journal:
        journals.record_intent(journal, Identity(None, "f", 0), cost_usd=cost)

    (entry,) = journals.read()
    assert str(entry.cost_usd) == str(cost)


def test_a_record_too_deep_for_json_keeps_its_id(journals):
    deep: dict = {}
    for _ in range(200_000):
        deep = {"x": deep}
    with journals.open() as journal:
        number = journals.record_intent(journal, Identity(None, "f", 0))
        journal.record_job(number, request_id="r-1", record={"status": "queued", "outcome": deep})

    (entry,) = journals.read()
    assert (entry.record, entry.job.request_id, entry.job.status) == (None, "r-1", JobStatus.UNKNOWN)


def test_the_spend_is_that_of_all_entries_after_a_restart(journals):
    with journals.open() as journal:
        for number in range(3):
            journals.record_intent(journal, Identity(None, f"f{number}", 0), cost_usd=Decimal("0.35"))
        journal.record_not_accepted(2, error="no")
        assert journal.spent_usd_at_start == 0

    with journals.open() as journal:
        assert journal.spent_usd_at_start == Decimal("0.70")


@pytest.mark.unmeasured
def test_all_entries_come_in_the_order_of_their_numbers(journals):
    with journals.open() as journal:
        for number in range(1_100):
            journals.record_intent(journal, Identity(None, f"f{number}", 0))
        assert [entry.identity.fingerprint for entry in journal.entries()][-1] == "f1099"

    assert [entry.identity.fingerprint for entry in journals.read()] == [
        f"f{number}" for number in range(1_100)
    ]


def test_an_earlier_attempt_that_is_unknown_is_there_after_a_restart(journals):
    identity = Identity(None, "f", 0)
    with journals.open() as journal:
        number = journals.record_intent(journal, identity, payload={"prompt": "one"}, at=1.0, timeout=300.0)
        journals.record_intent(journal, identity, payload={"prompt": "two"}, at=2.0, timeout=10.0)

    with journals.open() as journal:
        journals.find(journal, identity)
        journal.record_not_accepted(number, error="refused")
        entry = journal.find(identity)
        assert (entry.state, entry.attempts) == (EntryState.AMBIGUOUS, 1)
        assert (entry.sent_at, entry.timeout) == (1.0, 300.0)


async def test_the_job_of_an_earlier_attempt_is_no_job_without_an_owner(journals):
    identity = Identity(None, "f", 0)
    with journals.open() as journal:
        number = journals.record_intent(journal, identity)
        journal.record_job(number, request_id="r-1", record={})
        journal.record_end(number, state=EntryState.FAILED, record=None, error="no")
        journals.record_intent(journal, identity)
        journal.record_job(number, request_id="r-2", record={})

    with journals.open() as journal:
        assert await journal.sharing.find_jobs({"r-1", "r-2", "r-3"}) == {"r-1", "r-2"}


async def test_unknown_attempts_are_read_by_model_and_not_once_they_are_known(journals):
    with journals.open() as journal:
        for number in range(3):
            journals.record_intent(journal, Identity(None, f"f{number}", 0))
        journals.record_intent(journal, Identity(None, "other", 0), model="other")
        journals.record_intent(journal, Identity(None, "f2", 0))
        await journal.flush()
        journal.record_job(1, request_id="r-1", record={})

        unknown = await journal.sharing.find_unknown("m")

    assert [(entry.number, entry.attempts) for entry in unknown] == [(2, 1), (3, 1), (3, 2)]


async def test_an_item_has_the_entry_that_an_earlier_run_wrote(journals):
    identity = Identity(None, "f", 0)
    with journals.open() as journal:
        journals.record_intent(journal, identity)

    with journals.open() as journal:
        entry = journals.find(journal, identity)

    assert entry.state is EntryState.INTENDED
