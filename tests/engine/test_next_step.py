from __future__ import annotations

import pytest

from kling_async._engine.batch.resume import NextStep, next_step
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
        (entry(EntryState.TIMED_OUT, request_id="r", record={"status": "processing"}), NextStep.WAIT),
        (entry(EntryState.SUCCEEDED, request_id="r", record={"status": "success"}), NextStep.REPORT),
        (entry(EntryState.SUCCEEDED, request_id="r", record={"status": 5}), NextStep.WAIT),
        (entry(EntryState.FAILED, request_id="r", record={"status": "failed"}), NextStep.REPORT),
        (entry(EntryState.CANCELLED, request_id="r", record={"status": "cancelled"}), NextStep.REPORT),
    ],
)
def test_the_state_of_an_entry_decides_the_first_step(known, step):
    assert next_step(known, retry_failed=False) is step
    is_failed = known is not None and known.state in {EntryState.FAILED, EntryState.CANCELLED}
    assert next_step(known, retry_failed=True) is (NextStep.SUBMIT if is_failed else step)


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
