from __future__ import annotations

import pytest

from kling_async._engine.batch.resume import Decision, NextStep, Plan, next_step, plan_item
from kling_async._engine.download.output_folder import saved_file
from kling_async._journal.entry import Entry, EntryState, Identity


def entry(state: EntryState, **fields) -> Entry:
    identity = Identity(key=None, fingerprint="f", occurrence=0)
    return Entry(
        number=1, identity=identity, model="kling-v2-6", payload={"prompt": "x"}, state=state, **fields
    )


@pytest.mark.parametrize(
    "known, step",
    [
        (None, NextStep.SUBMIT),
        (entry(EntryState.NOT_SUBMITTED), NextStep.SUBMIT),
        (entry(EntryState.DROPPED), NextStep.SUBMIT),
        (entry(EntryState.INTENDED), NextStep.RECONCILE),
        (entry(EntryState.AMBIGUOUS), NextStep.RECONCILE),
        (entry(EntryState.SUBMITTED, request_id="r"), NextStep.WAIT),
        (entry(EntryState.SUBMITTED, request_id="r", record={"status": "failed"}), NextStep.WAIT),
        (entry(EntryState.SUBMITTED, request_id="r", record={"status": "cancelled"}), NextStep.WAIT),
        (entry(EntryState.SUBMITTED, request_id="r", record={"status": "success"}), NextStep.WAIT),
        (entry(EntryState.TIMED_OUT, request_id="r", record={"status": "failed"}), NextStep.WAIT),
        (entry(EntryState.SUCCEEDED, request_id="r", record={"status": "failed"}), NextStep.REPORT),
        (entry(EntryState.FAILED), NextStep.RECONCILE),
        (entry(EntryState.TIMED_OUT, request_id="r", record={"status": "processing"}), NextStep.WAIT),
        (entry(EntryState.SUCCEEDED, request_id="r", record={"status": "success"}), NextStep.REPORT),
        (entry(EntryState.SUCCEEDED, request_id="r", record={"status": 5}), NextStep.WAIT),
        (entry(EntryState.FAILED, request_id="r", record={"status": "failed"}), NextStep.REPORT),
        (entry(EntryState.CANCELLED, request_id="r", record={"status": "cancelled"}), NextStep.REPORT),
    ],
)
def test_the_state_of_an_entry_decides_the_first_step(known, step):
    assert next_step(known, retry_failed=False) is step
    is_failed = known is not None and (
        known.state in {EntryState.FAILED, EntryState.CANCELLED}
        or (known.record or {}).get("status") in {"failed", "cancelled"}
    )
    is_failed = is_failed and known.state is not EntryState.SUCCEEDED
    assert next_step(known, retry_failed=True) is (NextStep.SUBMIT if is_failed else step)


@pytest.mark.parametrize(
    "known, plan, retrying",
    [
        (None, Plan(1), Plan(1)),
        (entry(EntryState.NOT_SUBMITTED), Plan(1), Plan(1)),
        (entry(EntryState.NOT_SUBMITTED, attempts=2), Plan(3), Plan(3)),
        (entry(EntryState.AMBIGUOUS, attempts=2), Plan(2), Plan(2)),
        (entry(EntryState.SUBMITTED, attempts=1, request_id="r"), Plan(1), Plan(1)),
        (entry(EntryState.FAILED, attempts=1, request_id="r"), Plan(1), Plan(2, retry_failed=True)),
        (entry(EntryState.CANCELLED, attempts=4, request_id="r"), Plan(4), Plan(5, retry_failed=True)),
    ],
)
def test_a_call_plans_one_attempt_for_each_item_that_it_submits(known, plan, retrying):
    assert plan_item(known, retry_failed=False) == plan
    assert plan_item(known, retry_failed=True) == retrying


@pytest.mark.parametrize(
    "plan, attempts, resubmits, is_retried",
    [
        (Plan(1), 0, 0, False),
        (Plan(1), 1, 0, False),
        (Plan(1), 2, 1, False),
        (Plan(1), 6, 5, False),
        (Plan(2, retry_failed=True), 1, 0, True),
        (Plan(2, retry_failed=True), 2, 0, False),
        (Plan(2, retry_failed=True), 3, 1, False),
    ],
)
def test_the_attempts_of_an_entry_say_what_earlier_runs_of_the_call_have_sent(
    plan, attempts, resubmits, is_retried
):
    decision = plan.decide(failed_entry(attempts), is_changed_elsewhere=False)

    step = NextStep.SUBMIT if is_retried else NextStep.REPORT
    assert decision == Decision(step=step, resubmits=resubmits, can_resend=not resubmits)


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_another_process_has_just_tried_is_not_sent_again(attempts):
    decision = Plan(2, retry_failed=True).decide(failed_entry(attempts), is_changed_elsewhere=True)

    assert decision == Decision(step=NextStep.REPORT, resubmits=0, can_resend=False)


def test_of_an_item_without_an_entry_nothing_was_sent():
    decision = Plan(1, retry_failed=True).decide(None, is_changed_elsewhere=False)

    assert decision == Decision(step=NextStep.SUBMIT, resubmits=0, can_resend=True)


def failed_entry(attempts: int) -> Entry:
    return entry(EntryState.FAILED, attempts=attempts, request_id="r", record={"status": "failed"})


def test_a_saved_video_is_searched_in_the_folder_of_the_run_or_else_where_it_was_saved(tmp_path):
    saved, folder = tmp_path / "a" / "v.mp4", tmp_path / "b"
    saved.parent.mkdir()
    folder.mkdir()
    saved.write_bytes(b"1234")
    made = entry(EntryState.SUCCEEDED, path=str(saved), size_bytes=4)
    assert saved_file(made, None) == saved
    assert saved_file(made, folder) is None
    saved.rename(folder / "v.mp4")
    assert saved_file(made, None) is None
    assert saved_file(made, folder) == folder / "v.mp4"
    assert saved_file(entry(EntryState.FAILED), folder) is None
