from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kling_async import Job, JobStatus
from kling_async._policy.list_evidence import explain_unmatched
from kling_async._policy.matching import LostSubmit

CAT = {"prompt": "a cat"}
LOST = LostSubmit(payload=CAT, since=40.0, until=160.0)


def row(request_id, at=100.0, payload=CAT):
    return Job(
        request_id=request_id,
        status=JobStatus.QUEUED,
        payload=payload,
        created_at=None if at is None else datetime.fromtimestamp(at, UTC),
    )


def explain(*rows, owned=(), is_clock_known=True):
    return explain_unmatched(LOST, rows, has_owner=lambda id_: id_ in owned, is_clock_known=is_clock_known)


@pytest.mark.parametrize(
    "rows, says",
    [
        ([], "does not show it"),
        ([row("a", payload={"prompt": "a dog"}), row("b", at=161), row("c", at=None)], "does not show it"),
        ([row("mine")], "does not show it"),
        ([row("mine"), row("a")], "shows a job that could match, and may be that of another submit"),
        ([row("a"), row("b")], "shows more than one job that could match"),
    ],
)
def test_the_reason_says_what_the_list_shows(rows, says):
    assert explain(*rows, owned={"mine"}).endswith(says)


def test_without_the_service_clock_the_reason_says_so_unless_the_list_shows_a_job_that_could_match():
    assert "Date header" in explain(is_clock_known=False)
    assert "Date header" not in explain(row("a"), is_clock_known=False)
