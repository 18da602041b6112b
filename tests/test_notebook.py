from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from html_page import Page

from kling_async import BatchResult, Job, JobStatus, Media, Outcome, Result, ResultState, VideoRequest
from kling_async._display.progress_counts import ProgressCounts
from kling_async._display.progress_view import BatchPhase, ProgressView
from kling_async._policy.job_end import error_of
from kling_async._secrets import Secret
from kling_async.errors import AmbiguousSubmitError
from kling_async.events import Finished, Resumed, Submitted
from kling_async.history import HistoryRecorder
from kling_async.notebook import Gallery, register_formatters, render_html


def job_of(index: int, **fields) -> Job:
    outcome = Outcome(media=(Media(f"https://storage.example/{index}.mp4"),))
    return Job(**{"request_id": f"job-{index}", "status": JobStatus.SUCCESS, "outcome": outcome, **fields})


def result_of(index: int, **fields) -> Result:
    request = VideoRequest(f"prompt {index}")
    return Result(
        **{"index": index, "request": request, "state": ResultState.SUCCEEDED, "job": job_of(index), **fields}
    )


def failed_result(index: int) -> Result:
    return Result(index=index, request=VideoRequest(f"prompt {index}"), state=ResultState.FAILED)


def batch_of(number: int, **fields) -> BatchResult:
    return BatchResult(tuple(result_of(index) for index in range(number)), **fields)


def page_of(value) -> Page:
    return Page(render_html(value) if isinstance(value, Job | Result) else value._repr_html_())


def saved_batch(folder, number: int, size_bytes: int) -> BatchResult:
    results = []
    for index in range(number):
        path = folder / f"{index}.mp4"
        path.write_bytes(b"x" * size_bytes)
        results.append(result_of(index, path=path))
    return BatchResult(tuple(results))


@pytest.mark.parametrize("value", [job_of(0), result_of(0), batch_of(1), Gallery([job_of(0)])], ids=type)
def test_a_value_at_the_end_of_a_cell_shows_its_video(value):
    (video,) = page_of(value).all("video")
    assert video["src"] == "https://storage.example/0.mp4"
    assert "\n" not in repr(value)


CELL = """
from kling_async import BatchResult, Job, JobStatus, Media, Outcome, Result, ResultState
outcome = Outcome(media=(Media("https://storage.example/0.mp4"),))
job = Job(request_id="a", status=JobStatus.SUCCESS, outcome=outcome)
result = Result(index=0, request=None, state=ResultState.SUCCEEDED, job=job)
batch = BatchResult((result,))
"""
IN_A_SHELL = f"""
import json
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell({CELL!r}).raise_error()
formats = [shell.display_formatter.format(shell.user_ns[name])[0] for name in ("job", "result", "batch")]
print(json.dumps(formats))
"""


def run_python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(  # noqa: S603
        command, env=os.environ | environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_after_a_plain_import_in_a_cell_a_job_and_a_result_show_their_video(tmp_path):
    formats = json.loads(run_python(IN_A_SHELL, IPYTHONDIR=str(tmp_path)))
    for bundle, text in zip(formats, ("<Job a", "<Result 0", "<BatchResult"), strict=True):
        (video,) = Page(bundle["text/html"]).all("video")
        assert video["src"] == "https://storage.example/0.mp4"
        assert bundle["text/plain"].startswith(text)


def test_a_plain_program_imports_neither_ipython_nor_the_pages():
    heavy = {"IPython", "markupsafe", "kling_async.notebook", "kling_async.report"}
    code = f"import sys, kling_async; print(sorted({heavy} & set(sys.modules)))"
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize("shell", [None, SimpleNamespace(display_formatter=None)], ids=["none", "bare"])
def test_where_ipython_shows_nothing_no_formatter_is_registered(monkeypatch, shell):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    register_formatters()
    assert not hasattr(job_of(0), "_repr_html_")


def test_a_video_alone_is_larger():
    (alone,), (among,) = page_of(result_of(0)).all("video"), page_of(batch_of(1)).all("video")
    assert int(alone["width"]) > int(among["width"])


def test_a_gallery_begins_with_the_counts_and_the_cost():
    results = (
        result_of(0, cost_usd=Decimal("0.35")),
        result_of(1, cost_usd=Decimal("0.70")),
        failed_result(2),
        failed_result(3),
    )
    assert page_of(BatchResult(results)).text.startswith("2 of 4 videos made · 2 failed · $1.05")


def test_an_empty_gallery_says_so():
    assert page_of(BatchResult(())).text == "0 of 0 videos made"


def test_with_a_history_the_times_are_those_that_the_client_measured():
    recorder = HistoryRecorder()
    recorder(Submitted(at=100.0, index=0, job=job_of(0)))
    recorder(Finished(at=142.0, index=0, state=ResultState.SUCCEEDED))
    recorder(Finished(at=160.0, index=1, state=ResultState.SUCCEEDED))
    text = page_of(batch_of(2, history=recorder.build())).text
    assert text.startswith("2 of 2 videos made · 1 min 00 s")
    assert text.count("42 s") == 1


def test_the_time_of_a_resumed_job_is_the_services_and_that_of_the_batch_is_of_the_last_run():
    recorder = HistoryRecorder()
    job = job_of(0, status=JobStatus.PROCESSING, outcome=None)
    recorder(Resumed(at=100.0, index=0, request_id="job-0", job=job, path=None))
    recorder(Finished(at=160.0, index=0, state=ResultState.SUCCEEDED))
    text = page_of(batch_of(1, history=recorder.build())).text
    assert text.startswith("1 of 1 videos made · 1 min 00 s in the last run")
    assert text.count("1 min 00 s") == 1


def test_a_gallery_of_a_thousand_shows_the_first_36_and_says_so():
    page = page_of(batch_of(1_000))
    assert len(page.all("video")) == 36
    assert "1,000 of 1,000 videos made" in page.text
    assert "36 of 1,000 shown. kling_async.notebook.Gallery(…[36:72]) shows the next." in page.text


def test_a_gallery_shows_any_slice_and_any_number():
    batch = batch_of(40)
    chosen = page_of(Gallery(batch[36:72]))
    assert [video["src"][-6:] for video in chosen.all("video")] == ["36.mp4", "37.mp4", "38.mp4", "39.mp4"]
    assert "shown" not in chosen.text
    assert len(page_of(Gallery(batch, limit=3)).all("video")) == 3
    assert len(page_of(Gallery(result for result in batch)).all("video")) == 36


def test_a_gallery_of_less_than_one_is_refused():
    with pytest.raises(ValueError, match="limit"):
        Gallery([], limit=0)


@pytest.mark.parametrize(
    "gallery, text",
    [
        (Gallery(batch_of(2)), "<Gallery: 2 shown>"),
        (Gallery(batch_of(1_000)), "<Gallery: 36 of 1,000 shown>"),
    ],
)
def test_a_gallery_is_one_line_of_text_where_no_html_is_shown(gallery, text):
    assert repr(gallery) == text


def test_jobs_that_run_are_counted_by_their_status():
    running = Job(request_id="a", status=JobStatus.PROCESSING)
    assert page_of(Gallery([job_of(0), running, running])).text.startswith(
        "1 of 3 videos made · 2 processing"
    )


def test_small_files_are_part_of_the_notebook_and_large_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (small,) = page_of(saved_batch(tmp_path, 1, 500_000)).all("video")
    (large,) = page_of(saved_batch(tmp_path, 1, 600_000)).all("video")
    assert small["src"].startswith("data:video/mp4;base64,")
    assert large["src"] == "0.mp4"


def test_an_output_stays_below_the_limit_of_jupyter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    html = saved_batch(tmp_path, 36, 200_000)._repr_html_()
    sources = [video["src"] for video in Page(html).all("video")]
    inlined = [source for source in sources if source.startswith("data:")]
    assert len(inlined) == 7
    assert sources[7:] == [f"{index}.mp4" for index in range(7, 36)]
    assert len(html) < 2_900_000


class Stripped(HTMLParser):
    """The text and the addresses that are left where a front end takes away all that may run, shape or play."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.links = "", set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        assert tag not in {"script", "style", "link", "iframe", "object", "embed"}
        assert not [name for name, _ in attributes if name.startswith("on") or name == "id"]
        # No style sheet of a front end has these classes, which shape nothing.
        assert dict(attributes).get("class") in {None, "mathjax_ignore tex2jax_ignore"}
        self.links |= {value for name, value in attributes if tag == "a" and name == "href"}

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("show", [BatchResult, lambda results: Gallery([one.job or one for one in results])])
def test_every_fact_is_left_where_scripts_styles_and_players_are_removed(show):
    broken = job_of(1, status=JobStatus.FAILED, outcome=Outcome(error="Content refused"))
    lost = AmbiguousSubmitError("it may have been taken", request_id="job-2")
    page = Stripped(
        show(
            (
                result_of(
                    0, request=VideoRequest("first " * 60), job=job_of(0, payload={"prompt": "first " * 60})
                ),
                result_of(
                    1, state=ResultState.FAILED, job=broken, error=error_of(broken, secret=Secret("key"))
                ),
                result_of(2, state=ResultState.AMBIGUOUS, job=None, error=lost),
            )
        )._repr_html_()
    )
    assert page.links == {"https://storage.example/0.mp4"}
    for fact in ("1 of 3 videos made", "1 failed", "1 ambiguous", "first " * 59 + "first", "Content refused"):
        assert fact in page.text
    assert "it may have been taken" in page.text
    assert "prompt 2" in page.text


@pytest.mark.parametrize("phase", BatchPhase)
def test_the_progress_is_left_as_text_where_styles_are_removed(phase):
    counts = ProgressCounts(total=3, saves=True)
    counts(Submitted(at=0.0, index=0, request_id="job-0", job=job_of(0, status=JobStatus.QUEUED)))
    page = Stripped(ProgressView(counts=counts, seconds=5.0, phase=phase).html())
    assert "2 waiting" in page.text
    assert "1 queued" in page.text
    assert ("job-0" in page.text) is (phase is BatchPhase.STOPPED)
    assert page.links == set()
