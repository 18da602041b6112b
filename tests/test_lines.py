"""Text of the service as people see it: in errors, in the log, in a terminal, in a command to copy."""

from __future__ import annotations

import io
import logging
import pickle
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text
from virtual_service import Service, VirtualLoop, always, reply

from kling_async import KlingClient, KlingError, PollingPolicy
from kling_async._engine.interrupted import describe_job, warn_interrupted
from kling_async.cli.app import _app
from kling_async.cli.jobs import print_jobs
from kling_async.cli.output import print_text, stderr
from kling_async.cli.run_config import RunConfig
from kling_async.cli.service import Service as ServiceOptions
from kling_async.jobs import Job, JobStatus
from kling_async.lines import count_text, error_text, id_line, nearest_name, one_line, quote_unprintable
from kling_async.notebook import Gallery

pytestmark = pytest.mark.unmeasured

STEERING = ["\x1b]0;title\x07", "a\r\nfake line", "\u202egnp.exe", "\x9b31m", "a\u2028b", "\u2066x\u061c"]
KEY = "key-of-the-tests"


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


def is_plain(text: str) -> bool:
    return one_line(text) == text and len(text.splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_one_line_of_the_same_length(text):
    line = one_line(text)
    assert is_plain(line)
    assert len(line) == len(text)
    assert one_line("two  spaces\u00a0and 猫") == "two  spaces\u00a0and 猫"


@pytest.mark.parametrize(
    "blank", [0x200B, 0xAD, 0xFEFF, 0x3164, 0xE0041, 0xA0, 0x2003, 0x180E, 0xFE0F, 0x2800]
)
def test_an_id_shows_each_character_that_has_no_shape(blank):
    assert id_line(f"job{chr(blank)}-1").isascii()
    assert id_line(f"job{chr(blank)}-1") != id_line("job-1") == "job-1"
    assert id_line("a b\u732b\x1b\u202e") == "a b\u732b\ufffd\ufffd"


def test_a_table_of_jobs_tells_apart_two_ids_that_differ_in_a_character_without_a_shape():
    jobs = [Job(request_id=id_, status=JobStatus.QUEUED) for id_ in ("job-1", "job\u200b-1")]
    file = io.StringIO()
    print_jobs(jobs, Console(file=file))
    assert [line.split()[0] for line in file.getvalue().splitlines()] == ["id", "job-1", "job\\u200b-1"]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1))
def test_a_quoted_word_is_printable_and_has_the_bytes_of_the_text(text):
    word = quote_unprintable(text)
    assert word.isascii()
    assert word.isprintable()
    quoted = word[2:-1].encode()
    assert b"'" not in quoted
    assert quoted.decode("unicode_escape").encode("latin-1") == text.encode()


@pytest.mark.parametrize(
    "name", [*STEERING, "-h", "--base-url=https://evil.example", "a b;c", "it's\x1b\\", "猫\x07"]
)
def test_the_command_that_is_printed_names_the_ids_and_nothing_else(name):
    ids = ["plain-1", name]
    service = ServiceOptions(base_url="https://service.example")
    command = RunConfig(folder=Path("my videos"), service=service).download_command(ids)
    assert is_plain(command)
    read = subprocess.run(  # noqa: S603
        ["/bin/bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True
    ).stdout.decode()
    words = read.split("\0")[:-1]
    assert words[:2] == ["kling-async", "download"]
    _, bound, _ = _app().parse_args(words[1:], print_error=False, exit_on_error=False)
    assert bound.arguments["request_ids"] == ids
    assert bound.arguments["service"].base_url == service.base_url
    assert bound.arguments["out"] == Path("my videos")


def test_a_command_without_odd_ids_begins_with_the_ids():
    command = RunConfig(folder=Path("v"), service=ServiceOptions()).download_command(["a", "b"])
    assert shlex.split(command) == ["kling-async", "download", "a", "b", "--out", "v"]


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "success"])
async def test_no_call_shows_the_characters_of_an_id_or_a_reason(name, status, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    record = {"request_id": name, "status": status, "model": name, "error": name, "outcome": {"error": name}}
    service = Service(before=[always("submit", reply(200, record)), always("status", reply(200, record))])
    heard = []
    client = KlingClient(
        KEY, transport=service, polling=PollingPolicy(wait_timeout=30), on_event=heard.append
    )
    with pytest.raises(KlingError) as caught:
        job = await client.generate("a cat")
        await client.download(job, tmp_path)
    shown = [str(caught.value), caught.value.message, repr(caught.value), repr(caught.value.job)]
    shown += [str(pickle.loads(pickle.dumps(caught.value)))]  # noqa: S301
    shown += [line.getMessage() for line in caplog.records if line.name.startswith("kling_async")]
    shown += map(repr, heard)
    assert all(map(is_plain, shown))
    assert caught.value.job.request_id == name


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "success", "strange"])
async def test_no_page_shows_the_characters_of_an_id_a_state_or_a_reason(name, status, tmp_path):
    word = name if status == "strange" else status
    url = f"https://storage.example/{name}.mp4"
    record = {
        "request_id": name,
        "status": word,
        "model": name,
        "org_id": name,
        "error": name,
        "outcome": {"error": name, "media_urls": [{"id": name, "url": url}], "thumbnail_image_url": url},
    }
    page = {"requests": [record]}
    answers = {"submit": record, "status": record, "list": page}
    service = Service(before=[always(kind, reply(200, answer)) for kind, answer in answers.items()])
    client = KlingClient(KEY, transport=service, polling=PollingPolicy(wait_timeout=30))
    batch = await client.generate_many(["a cat"], output=tmp_path, progress=False)
    jobs = [job async for job in client.list_jobs()]
    batch.write_report(tmp_path / "report.html")
    pages = [
        (tmp_path / "report.html").read_text(encoding="utf-8"),
        *(Gallery(items)._repr_html_() for items in (batch, jobs)),
        *(repr(shown) for shown in (batch, *batch, *jobs)),
    ]
    assert jobs[0].request_id == name
    for text in pages:
        assert all(map(is_plain, text.split("\n")))
        assert name not in text


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("code", [400, 404, 418, 500])
async def test_a_refusal_about_any_id_is_one_line(name, code):
    service = Service(before=[always("status", reply(code, {"error": name, "request_id": name}))])
    with pytest.raises(KlingError) as caught:
        await KlingClient(KEY, transport=service).get_job(name)
    assert is_plain(str(caught.value))
    assert caught.value.status_code == code


class UnspeakableError(Exception):
    def __str__(self):
        raise ValueError


def test_the_text_of_an_error_of_the_caller():
    assert error_text(ValueError("no number.")) == "ValueError: no number"
    assert error_text(TimeoutError()) == "TimeoutError"
    assert error_text(UnspeakableError("x")) == "UnspeakableError"


def test_a_note_about_an_interrupted_call_is_one_line(caplog):
    error = KlingError("it stopped")
    warn_interrupted(describe_job("a\x1b\nb", call="generate"), error)
    assert is_plain(caplog.records[-1].getMessage())
    assert is_plain(error.__notes__[-1])


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("styled", [False, True])
def test_no_line_for_people_steers_their_terminal(name, styled, capfd):
    print_text(Text.assemble(("id ", "bold"), name) if styled else f"id {name}", stderr())
    shown = capfd.readouterr().err
    assert shown.startswith("id ")
    assert shown.endswith("\n")
    assert is_plain(shown[:-1])


@pytest.mark.parametrize(
    "count, text", [(0, "0 items"), (1, "1 item"), (2, "2 items"), (1_200, "1,200 items")]
)
def test_one_thing_is_written_as_one(count, text):
    assert count_text(count, "item") == text


@pytest.mark.parametrize(
    "given, near",
    [
        ("kling-v26", "kling-v2-6"),
        (" KLING-V2.6", "kling-v2-6"),
        ("kling-text2video-v2.1-mastr", "Kling-Text2Video-V2.1-Master"),
        ("kling-nope", None),
        ("nope", None),
        ("", None),
        (7, None),
    ],
)
def test_only_a_name_that_is_close_is_offered(given, near):
    assert (
        nearest_name(given, ["kling-v3-omni", "kling-v2-6", "Kling-Text2Video-V2.1-Master", "kling-o1-flfv"])
        == near
    )
