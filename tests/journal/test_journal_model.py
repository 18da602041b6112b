"""Whatever is written, and wherever the journal is closed or killed, it reads as a plain dictionary would."""

from __future__ import annotations

import asyncio
import tempfile
from decimal import Decimal
from functools import partial

import attrs
import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kling_async import JournalError
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.open_journal import open_journal

IDENTITIES = st.builds(
    Identity, st.sampled_from([None, "a", "b"]), st.sampled_from(["f", "g"]), st.integers(0, 1)
)
OF_A_JOB = [EntryState.SUCCEEDED, EntryState.FAILED, EntryState.CANCELLED, EntryState.TIMED_OUT]
ENDS = [*OF_A_JOB, EntryState.AMBIGUOUS, EntryState.DROPPED]
UNSENT = {EntryState.NOT_SUBMITTED, EntryState.DROPPED}
WITHDRAWABLE = UNSENT | {EntryState.INTENDED}
ACCEPTABLE = {EntryState.INTENDED, EntryState.AMBIGUOUS}
ENDS_OF = {
    **dict.fromkeys((EntryState.SUBMITTED, *OF_A_JOB), OF_A_JOB),
    **{state: [EntryState.AMBIGUOUS] for state in (EntryState.INTENDED, EntryState.AMBIGUOUS)},
    **{state: [EntryState.DROPPED] for state in UNSENT},
}
UNKNOWN = {EntryState.INTENDED, EntryState.AMBIGUOUS}
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
        self.jobs: dict[tuple[Identity, int], str] = {}
        """The id of the job of each attempt."""
        self.unknown_attempts: dict[tuple[Identity, int], Entry] = {}
        self.journal: WriteAheadJournal | None = None

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.journal = open_journal(f"{self.folder.name}/run.db")

    @rule(identity=IDENTITIES, cost=COSTS, at=st.floats(0, 2e9), index=st.integers(0, 99))
    def record_intent(self, identity, cost, at, index):
        before = self.entries.get(identity)
        assume(before is None or before.state is not EntryState.SUCCEEDED)
        price, earlier, attempts = cost, Decimal(0), 1
        if before is not None:
            if before.state in UNKNOWN and before.request_id is None:
                self.unknown_attempts[identity, before.attempts] = before
            attempts = before.attempts + 1
            if before.cost_usd is None:
                earlier = (cost or 0) * before.attempts
            else:
                earlier = before.cost_usd
                price = earlier / before.attempts if cost is None else cost
        number = self.journal.record_intent(
            identity, model="m", payload=WRITTEN, at=at, cost_usd=cost, index=index
        )
        self.entries[identity] = Entry(
            number=before.number if before else len(self.entries) + 1,
            index=index,
            identity=identity,
            model="m",
            payload=WRITTEN,
            state=EntryState.INTENDED,
            sent_at=at,
            cost_usd=None if price is None else earlier + price,
            attempt_cost_usd=price,
            attempts=attempts,
        )
        assert number == self.entries[identity].number

    def in_states(self, states):
        return sorted((each for each, entry in self.entries.items() if entry.state in states), key=repr)

    def change(self, identity, **fields):
        self.entries[identity] = attrs.evolve(self.entries[identity], **fields)
        return self.entries[identity].number

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), index=st.integers(0, 99))
    def record_index(self, data, index):
        identity = data.draw(st.sampled_from(sorted(self.entries, key=repr)))
        self.journal.record_index(self.change(identity, index=index), index)

    @precondition(lambda self: self.in_states(WITHDRAWABLE))
    @rule(data=st.data(), error=st.text(max_size=3), by_end=st.booleans())
    def record_not_accepted(self, data, error, by_end):
        identity = data.draw(st.sampled_from(self.in_states(WITHDRAWABLE)))
        before = self.entries[identity]
        taken_back: dict = {}
        if before.state not in UNSENT:
            total = (before.cost_usd and (before.cost_usd - (before.attempt_cost_usd or 0))) or None
            taken_back = {"attempts": before.attempts - 1, "cost_usd": total, "attempt_cost_usd": None}
        state, unknown = EntryState.NOT_SUBMITTED, None
        if taken_back:
            unknown = self.unknown_attempts.pop((identity, before.attempts - 1), None)
        if unknown is not None:
            state, taken_back["sent_at"] = EntryState.AMBIGUOUS, unknown.sent_at
        reason = (unknown and unknown.error) or error
        number = self.change(identity, state=state, error=reason, **taken_back)
        if by_end:
            self.journal.record_end(number, state=EntryState.NOT_SUBMITTED, record=None, error=error)
        else:
            self.journal.record_not_accepted(number, error=error)

    @precondition(lambda self: self.in_states(ACCEPTABLE))
    @rule(data=st.data())
    def record_job(self, data):
        identity = data.draw(st.sampled_from(self.in_states(ACCEPTABLE)))
        request_id = f"r-{len(self.ids)}"
        self.ids.add(request_id)
        self.jobs[identity, self.entries[identity].attempts] = request_id
        self.accept(identity, request_id)

    def with_a_job_to_restore(self):
        unsent = self.in_states({EntryState.NOT_SUBMITTED})
        return [identity for identity in unsent if (identity, self.entries[identity].attempts) in self.jobs]

    @precondition(lambda self: self.with_a_job_to_restore())
    @rule(data=st.data())
    def restore_the_job_before(self, data):
        identity = data.draw(st.sampled_from(self.with_a_job_to_restore()))
        self.accept(identity, self.jobs[identity, self.entries[identity].attempts])

    def accept(self, identity, request_id):
        record = {"request_id": request_id, "status": "queued"}
        state = EntryState.SUBMITTED
        number = self.change(identity, state=state, request_id=request_id, record=record, error=None)
        self.journal.record_job(
            number, request_id=request_id, record={**record, "payload": {"prompt": "echo"}}
        )

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), status=st.sampled_from([None, "success"]))
    def end(self, data, status):
        identity = data.draw(st.sampled_from(sorted(self.entries, key=repr)))
        before = self.entries[identity].state
        state = data.draw(st.sampled_from(ENDS_OF[before]))
        record = {"status": status} if status else None
        fields = {"record": record} if record else {}
        number = self.change(identity, state=state, error="why", **fields)
        self.journal.record_end(number, state=state, record=record, error="why")

    @precondition(lambda self: self.in_states({EntryState.SUCCEEDED}))
    @rule(data=st.data(), size=st.integers(0, 2**40))
    def save(self, data, size):
        identity = data.draw(st.sampled_from(self.in_states({EntryState.SUCCEEDED})))
        number = self.change(identity, path="x.mp4", size_bytes=size, sha256="ab", error=None)
        self.journal.record_file(number, path="x.mp4", size_bytes=size, sha256="ab")

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def refuse_what_no_entry_can_meet(self, data):
        entry = self.entries[data.draw(st.sampled_from(sorted(self.entries, key=repr)))]
        refused = [state for state in ENDS if state not in ENDS_OF[entry.state]]
        actions = [
            partial(self.journal.record_end, entry.number, state=state, record=None, error=None)
            for state in refused
        ]
        if entry.state not in ACCEPTABLE:
            actions.append(partial(self.journal.record_job, entry.number, request_id="other", record={}))
        if entry.state not in WITHDRAWABLE:
            actions.append(partial(self.journal.record_not_accepted, entry.number, error="no"))
        if entry.state is EntryState.SUCCEEDED:
            again = {"model": "m", "payload": WRITTEN, "at": 1.0, "cost_usd": None}
            actions.append(partial(self.journal.record_intent, entry.identity, **again))
        else:
            actions.append(
                partial(self.journal.record_file, entry.number, path="x", size_bytes=1, sha256=None)
            )
        with pytest.raises(JournalError, match="cannot record"):
            data.draw(st.sampled_from(actions))()

    @rule()
    def flush(self):
        asyncio.run(self.journal.flush())

    @rule()
    def open_again(self):
        unknown_attempts = list(map(attempt, self.journal._entries.find_unknown()))
        self.journal.close()
        self.journal = open_journal(self.journal.name)
        assert list(map(attempt, self.journal._entries.find_unknown())) == unknown_attempts

    @rule()
    def kill_and_open_again(self):
        asyncio.run(self.journal.flush())
        self.journal._store.close()
        self.journal = open_journal(self.journal.name)
        spent = sum((entry.cost_usd or Decimal(0) for entry in self.entries.values()), Decimal(0))
        assert self.journal.spent_usd_at_start == spent

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
        unresolved = [
            entry for entry in self.journal._entries.find_unknown() if entry == self.entries[entry.identity]
        ]
        assert {entry.identity for entry in unresolved} == {
            each
            for each, entry in self.entries.items()
            if entry.state in UNKNOWN and entry.request_id is None
        }

    def teardown(self):
        if self.journal is not None:
            self.journal.close()
            self.folder.cleanup()


AgainstADictionary.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_the_journal_reads_like_a_dictionary = AgainstADictionary.TestCase
