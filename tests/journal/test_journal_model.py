"""Whatever is written, and wherever the journal is closed or killed, it reads as a plain dictionary would."""

from __future__ import annotations

import asyncio
import tempfile
from decimal import Decimal

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.journal import Journal

IDENTITIES = st.builds(
    Identity, st.sampled_from([None, "a", "b"]), st.sampled_from(["f", "g"]), st.integers(0, 1)
)
ENDS = [state for state in EntryState if state not in {EntryState.INTENDED, EntryState.SUBMITTED}]
UNSENT = {EntryState.NOT_SUBMITTED, EntryState.DROPPED}
IN_DOUBT = {EntryState.INTENDED, EntryState.AMBIGUOUS}
COSTS = st.sampled_from([None, Decimal("0.35"), Decimal("0.1")])
WRITTEN = {"prompt": "雨\0"}


def attempt(entry):
    return entry.number, entry.attempts, entry.state, entry.sent_at


class AgainstADictionary(RuleBasedStateMachine):
    """The model holds each entry as it must read, and all ids there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[Identity, Entry] = {}
        self.ids: set[str] = set()
        self.unknown_attempts: dict[tuple[Identity, int], Entry] = {}
        self.journal: Journal | None = None

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.journal = Journal(f"{self.folder.name}/run.db")

    @rule(identity=IDENTITIES, cost=COSTS, at=st.floats(0, 2e9))
    def record_intent(self, identity, cost, at):
        before = self.entries.get(identity)
        total, attempts = cost, 1
        if before is not None:
            if before.state in IN_DOUBT and before.request_id is None:
                self.unknown_attempts[identity, before.attempts] = before
            attempts = before.attempts + 1
            if before.cost_usd is not None:
                total = before.cost_usd + (cost or 0)
        number = self.journal.record_intent(identity, model="m", payload=WRITTEN, at=at, cost_usd=cost)
        self.entries[identity] = Entry(
            number=before.number if before else len(self.entries) + 1,
            identity=identity,
            model="m",
            payload=WRITTEN,
            state=EntryState.INTENDED,
            sent_at=at,
            cost_usd=total,
            attempt_cost_usd=cost,
            attempts=attempts,
        )
        assert number == self.entries[identity].number

    def without_an_id(self):
        return sorted((each for each, entry in self.entries.items() if entry.request_id is None), key=repr)

    def change(self, identity, **fields):
        self.entries[identity] = attrs.evolve(self.entries[identity], **fields)
        return self.entries[identity].number

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), error=st.text(max_size=3))
    def record_rejected(self, data, error):
        identity = data.draw(st.sampled_from(sorted(self.entries, key=repr)))
        before = self.entries[identity]
        taken: dict = {}
        if before.state not in UNSENT and before.request_id is None:
            total = (before.cost_usd and (before.cost_usd - (before.attempt_cost_usd or 0))) or None
            taken = {"attempts": before.attempts - 1, "cost_usd": total, "attempt_cost_usd": None}
        state, doubt = EntryState.NOT_SUBMITTED, None
        if taken:
            doubt = self.unknown_attempts.pop((identity, before.attempts - 1), None)
        if doubt is not None:
            state, taken["sent_at"] = EntryState.AMBIGUOUS, doubt.sent_at
        said = (doubt and doubt.error) or error
        number = self.change(identity, state=state, error=said, **taken)
        self.journal.record_rejected(number, error=error)

    @precondition(lambda self: self.without_an_id())
    @rule(data=st.data())
    def record_accepted(self, data):
        identity = data.draw(st.sampled_from(self.without_an_id()))
        request_id = f"r-{len(self.ids)}"
        self.ids.add(request_id)
        record = {"request_id": request_id, "status": "queued"}
        state = EntryState.SUBMITTED
        number = self.change(identity, state=state, request_id=request_id, record=record, error=None)
        self.journal.record_accepted(
            number, request_id=request_id, record={**record, "payload": {"prompt": "echo"}}
        )

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), state=st.sampled_from(ENDS[:-1]), status=st.sampled_from([None, "success"]))
    def end(self, data, state, status):
        identity = data.draw(st.sampled_from(sorted(self.entries, key=repr)))
        record = {"status": status} if status else None
        told = {"record": record} if record else {}
        number = self.change(identity, state=state, error="why", **told)
        if state is EntryState.AMBIGUOUS:
            self.unknown_attempts.pop((identity, self.entries[identity].attempts), None)
        self.journal.end(number, state=state, record=record, error="why")

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), size=st.integers(0, 2**40))
    def save(self, data, size):
        identity = data.draw(st.sampled_from(sorted(self.entries, key=repr)))
        number = self.change(identity, path="x.mp4", size_bytes=size, sha256="ab", error=None)
        self.journal.save(number, path="x.mp4", size_bytes=size, sha256="ab")

    @rule()
    def flush(self):
        asyncio.run(self.journal.flush())

    @rule()
    def open_again(self):
        unknown_attempts = list(map(attempt, self.journal.unresolved()))
        self.journal.close()
        self.journal = Journal(self.journal.path)
        assert list(map(attempt, self.journal.unresolved())) == unknown_attempts

    @rule()
    def kill_and_open_again(self):
        asyncio.run(self.journal.flush())
        self.journal._store.close()
        self.journal = Journal(self.journal.path)

    @invariant()
    def it_reads_as_the_dictionary(self):
        if self.journal is None:
            return
        assert list(self.journal.entries()) == sorted(self.entries.values(), key=lambda entry: entry.number)
        for identity, entry in self.entries.items():
            assert self.journal.find(identity) == entry
        assert self.journal.find(Identity("stranger", "f", 0)) is None
        assert all(self.journal.has_job(request_id) for request_id in self.ids)
        assert not self.journal.has_job("stranger")
        spent = sum((entry.cost_usd or Decimal(0) for entry in self.entries.values()), Decimal(0))
        assert self.journal.spent_usd() == spent
        unresolved = [entry for entry in self.journal.unresolved() if entry == self.entries[entry.identity]]
        assert {entry.identity for entry in unresolved} == {
            each
            for each, entry in self.entries.items()
            if entry.state in IN_DOUBT and entry.request_id is None
        }

    def teardown(self):
        if self.journal is not None:
            self.journal.close()
            self.folder.cleanup()


AgainstADictionary.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_it_reads_as_a_dictionary_would = AgainstADictionary.TestCase
