from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import anyio
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config
from virtual_service import Service, VirtualLoop

from kling_async import KlingClient, PollingPolicy
from kling_async._display.cell import PERIOD, is_notebook, live_cell
from kling_async._display.progress_counts import ProgressCounts
from kling_async.events import Submitted


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


class Output:
    """The output of a cell: what was put into it, and each thing that was put in its stead."""

    def __init__(self, *, breaks_after: int | None = None) -> None:
        self.bundles, self.times = [], []
        self.breaks_after = breaks_after

    def display_bundle(self, bundle):
        self.update(bundle, raw=True)
        return self

    def update(self, bundle, *, raw):
        assert raw
        if self.breaks_after == len(self.bundles):
            raise OSError("the front end went away")
        self.bundles.append(bundle)
        self.times.append(anyio.current_time())

    @property
    def texts(self):
        return [bundle["text/plain"] for bundle in self.bundles]


@pytest.fixture
def shell():
    """An IPython shell that has a kernel, as a notebook's has."""
    made = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    made.kernel = object()
    yield made
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    "ipython, is_one",
    [
        (None, False),
        (SimpleNamespace(get_ipython=lambda: None), False),
        (SimpleNamespace(get_ipython=SimpleNamespace), False),
        (SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())), True),
    ],
)
def test_a_notebook_is_where_a_shell_has_a_kernel(monkeypatch, ipython, is_one):
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert is_notebook() is is_one


async def test_a_change_is_shown_soon_and_in_the_same_place():
    counts, output = ProgressCounts(total=3), Output()
    with live_cell(counts, display=output.display_bundle):
        await anyio.sleep(0.3)
        counts.queued = 2
        await anyio.sleep(0.3)
        counts.queued, counts.succeeded = 0, 3
    assert "3 waiting" in output.texts[0]
    assert "2 queued" in output.texts[-2]
    assert output.texts[-1].startswith("3 of 3 videos made")


async def test_the_view_is_updated_at_most_four_times_a_second():
    counts, output = ProgressCounts(total=1_000), Output()
    with live_cell(counts, display=output.display_bundle):
        for number in range(1_000):
            counts.succeeded = number
            await anyio.sleep(0.01)
    gaps = [after - before for before, after in zip(output.times[:-1], output.times[1:-1], strict=False)]
    assert len(output.bundles) > 30
    assert min(gaps) >= PERIOD - 1e-9


async def test_an_update_that_changes_nothing_is_not_sent():
    output = Output()
    with live_cell(ProgressCounts(total=1), display=output.display_bundle):
        await anyio.sleep(10.2)
    assert len(output.bundles) <= 12


async def test_nothing_is_shown_after_the_end():
    output = Output()
    with live_cell(ProgressCounts(total=1), display=output.display_bundle):
        pass
    ended = len(output.bundles)
    await anyio.sleep(5)
    assert len(output.bundles) == ended


@pytest.mark.parametrize("error", [KeyboardInterrupt, anyio.get_cancelled_exc_class, OSError])
async def test_an_error_that_ends_a_batch_is_raised_and_shown_as_a_stop(error):
    kind = error() if error is anyio.get_cancelled_exc_class else error
    output = Output()
    with (
        pytest.raises(kind),
        live_cell(ProgressCounts(total=3), display=output.display_bundle),
    ):
        raise kind
    assert output.texts[-1].startswith("Stopped: 0 of 3")


async def test_a_block_that_ends_while_jobs_are_in_flight_is_a_stop():
    counts, output = ProgressCounts(total=3), Output()
    with live_cell(counts, display=output.display_bundle):
        counts.running = 1
    assert output.texts[-1].startswith("Stopped")


@pytest.mark.parametrize("breaks_after", [0, 1])
async def test_a_view_that_cannot_be_shown_is_logged_once_and_the_batch_continues(breaks_after, caplog):
    counts, output = ProgressCounts(total=3), Output(breaks_after=breaks_after)
    with caplog.at_level(logging.ERROR), live_cell(counts, display=output.display_bundle):
        for number in range(5):
            counts.queued = number
            await anyio.sleep(0.3)
        counts.queued = 0
    assert len(output.bundles) == breaks_after
    assert [record.message for record in caplog.records] == [
        "the view of a batch cannot be shown; the batch goes on"
    ]


@pytest.mark.parametrize("progress", [True, "auto"])
async def test_a_batch_in_a_notebook_has_one_output_that_changes(shell, progress):
    with capture_output() as captured:
        batch = await KlingClient("key", transport=Service(run_time=5.0)).generate_many(
            ["a", "b"], progress=progress
        )
    assert len(batch.succeeded) == 2
    first, *updates = [output._repr_mimebundle_()[0] for output in captured.outputs]
    assert "0 of 2 ended" in first["text/plain"]
    assert updates[-1]["text/plain"].startswith("2 of 2 videos made")
    assert (captured.stdout, captured.stderr) == ("", "")


async def test_two_batches_at_once_keep_to_their_own_outputs(shell, monkeypatch):
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda **message: published.append(message))
    client = KlingClient("key", transport=Service(run_time=5.0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.generate_many, ["a"])
        tasks.start_soon(client.generate_many, ["b", "c"])
    places = {}
    for message in published:
        places.setdefault(message["transient"]["display_id"], []).append(message)
    ends = sorted(messages[-1]["data"]["text/plain"].split(" ·")[0] for messages in places.values())
    assert ends == ["1 of 1 videos made", "2 of 2 videos made"]
    assert all(
        [m.get("update", False) for m in ms] == [False] + [True] * (len(ms) - 1) for ms in places.values()
    )


async def test_a_notebook_shows_nothing_if_it_is_not_wanted(shell):
    with capture_output() as captured:
        await KlingClient("key", transport=Service(run_time=5.0)).generate_many(["a"], progress=False)
    assert captured.outputs == []


async def test_an_interrupted_batch_names_the_jobs_that_go_on(shell):
    client = KlingClient("key", transport=Service(run_time=500.0))
    with capture_output() as captured:
        with anyio.move_on_after(60):
            await client.generate_many(["a", "b"])
    page = captured.outputs[-1]._repr_mimebundle_()[0]["text/html"]
    assert "2 jobs go on at the service" in page
    assert "job-0" in page


async def test_with_a_journal_an_interrupted_batch_advises_to_run_the_cell_again(shell, tmp_path):
    client = KlingClient("key", transport=Service(run_time=1e9), polling=PollingPolicy(wait_timeout=None))
    with capture_output() as captured, anyio.CancelScope() as scope:

        def interrupt(event):
            if isinstance(event, Submitted):
                scope.cancel()

        await client.generate_many(["a"], journal=tmp_path / "run.db", on_event=interrupt)
    page = captured.outputs[-1]._repr_mimebundle_()[0]["text/html"]
    assert "1 job goes on at the service." in page
    assert "Run the cell again" in page
