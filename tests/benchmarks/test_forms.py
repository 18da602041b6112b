from __future__ import annotations

import json

import pytest

from benchmarks import forms
from benchmarks.jobs import Jobs, Workload

HOST = "http://service"


def ask(
    jobs: Jobs, form: str, method: str, path: str, body: object = None, *, now: float = 0.0, query: str = ""
):
    request = forms.Request(method, path, query, json.dumps(body).encode(), now, HOST)
    status, text = forms.FORMS[form](jobs, request)
    return status, json.loads(text)


GMI = "api/v1/ie/requestqueue/apikey/"


def submit(jobs: Jobs, prompt: str = "eagle") -> dict:
    _, record = ask(jobs, GMI, "POST", "requests", {"model": "kling-v2-6", "payload": {"prompt": prompt}})
    return record


def test_the_queue_echoes_model_and_payload():
    record = submit(Jobs(Workload()), "Adler ☂")
    assert (record["model"], record["payload"]) == ("kling-v2-6", {"prompt": "Adler ☂"})
    assert (record["status"], record["outcome"]) == ("processing", None)


def test_the_queue_shows_an_outcome_once_the_job_is_done():
    jobs = Jobs(Workload(median=10.0))
    path = f"requests/{submit(jobs)['request_id']}"
    assert ask(jobs, GMI, "GET", path)[1]["outcome"] is None
    record = ask(jobs, GMI, "GET", path, now=jobs.finish[0])[1]
    assert record["status"] == "success"
    assert record["outcome"]["media_urls"][0]["url"].endswith(".mp4")


def test_the_list_gives_no_more_rows_than_the_service_allows():
    jobs = Jobs(Workload(rows_per_call=2))
    ids = [submit(jobs)["request_id"] for _ in range(3)]
    page = ask(jobs, GMI, "GET", "requests", query="model_id=kling-v2-6&limit=100")[1]
    assert [row["request_id"] for row in page["requests"]] == ids[:0:-1]
    assert (page["total"], page["has_more"]) == (3, True)
    rest = ask(jobs, GMI, "GET", "requests", query="model_id=kling-v2-6&limit=100&offset=2")[1]
    assert ([row["request_id"] for row in rest["requests"]], rest["has_more"]) == (ids[:1], False)


def test_a_list_that_shows_a_final_job_has_told_the_client():
    jobs = Jobs(Workload())
    submit(jobs)
    ask(jobs, GMI, "GET", "requests", now=4.0)
    assert [told for *_, told in jobs.rows()] == [4.0]


def test_requests_are_counted_by_kind():
    jobs = Jobs(Workload())
    path = f"requests/{submit(jobs)['request_id']}"
    ask(jobs, GMI, "GET", path)
    ask(jobs, GMI, "GET", path)
    ask(jobs, GMI, "GET", "requests")
    assert (jobs.counts.submit, jobs.counts.get, jobs.counts.list) == (1, 2, 1)


@pytest.mark.parametrize(
    "form,path",
    [
        (GMI, "requests/{}"),
        ("fal/", "requests/{}/status"),
        ("replicate/", "v1/predictions/{}"),
        ("openai/", "videos/{}"),
        ("runwayml/", "v1/tasks/{}"),
    ],
)
def test_an_unknown_id_is_not_found_in_any_form(form, path):
    assert ask(Jobs(Workload()), form, "GET", path.format("no-such-id"))[0] == 404


@pytest.mark.parametrize(
    "form,create,look,unfinished,finished",
    [
        ("fal/", "kling/kling", "requests/{}/status", "IN_PROGRESS", "COMPLETED"),
        ("replicate/", "v1/models/kling/kling/predictions", "v1/predictions/{}", "processing", "succeeded"),
        ("openai/", "videos", "videos/{}", "in_progress", "completed"),
        ("runwayml/", "v1/text_to_video", "v1/tasks/{}", "RUNNING", "SUCCEEDED"),
    ],
)
def test_each_form_has_its_own_words_for_the_same_job(form, create, look, unfinished, finished):
    jobs = Jobs(Workload(median=10.0))
    ask(jobs, form, "POST", create, {"input": {}})
    path = look.format(jobs.id_of(0))
    assert ask(jobs, form, "GET", path)[1]["status"] == unfinished
    assert ask(jobs, form, "GET", path, now=jobs.finish[0])[1]["status"] == finished


def test_fal_fetches_the_result_apart_from_the_status():
    jobs = Jobs(Workload())
    _, created = ask(jobs, "fal/", "POST", "kling/kling", {})
    path = created["response_url"].removeprefix(f"{HOST}/fal/")
    assert ask(jobs, "fal/", "GET", path)[1]["video"]["url"].endswith(".mp4")
