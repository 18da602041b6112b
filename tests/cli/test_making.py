from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kling_async.cli.errand import Errand
from kling_async.cli.making import Making
from kling_async.cli.service import Service
from kling_async.errors import JournalError
from kling_async.models import Job, JobStatus, Result, ResultState, VideoRequest

SAVED = Result(
    index=0,
    request=VideoRequest("a cat"),
    state=ResultState.SUCCEEDED,
    job=Job(request_id="r1", status=JobStatus.SUCCESS),
    path=Path("v/a.mp4"),
)


@asynccontextmanager
async def batch(*results: Result | Exception):
    async def stream():
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result

    yield stream()


@pytest.mark.parametrize("lost, status", [([], 0), ([JournalError("The disk is full.")], 1)])
async def test_a_journal_that_could_not_be_kept_is_told_beside_the_results(capfd, home, lost, status):
    making = Making(errand=Errand(folder=Path("v"), service=Service()), total=1)
    assert await making.run(batch(SAVED, *lost)) == status
    told = capfd.readouterr()
    assert told.out.startswith("1 of 1 videos saved in v/ (")
    assert told.err == "".join(f"kling-async: {error}\n" for error in lost)


async def test_what_is_remarked_is_wanted(capfd, home):
    errand = Errand(folder=Path("v"), service=Service())
    Making(errand=errand, total=1).remark("one")
    Making(errand=errand, total=1).remark("")
    Making(errand=errand, total=1, is_quiet=True).remark("two")
    assert capfd.readouterr().err == "one\n"
