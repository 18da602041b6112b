from __future__ import annotations

import pytest

from kling_async.emulator import JobScript, LogNormal
from tests.cli.conftest import wait_until


@pytest.fixture
def submit(serve, cli):
    """An emulator with jobs that a first run left behind, and their ids."""

    def submit(count: int, **settings):
        emulator = serve(**settings)
        done = cli("generate", *(f"prompt {number}" for number in range(count)), "--out", "first", "--quiet")
        assert done.status == (0 if emulator.stats.jobs_in_flight == 0 else 1), done
        return emulator, [job.request_id for job in emulator.stats.accepted]

    return submit


def test_videos_are_saved_and_their_paths_are_printed_in_the_order_asked_for(cli, submit, home):
    _, ids = submit(2)
    done = cli("download", *reversed(ids), ids[0], "--out", "second")
    assert (done.status, done.err) == (0, "")
    paths = done.out.splitlines()
    assert [path.partition("-prompt-")[2][:1] for path in paths] == ["1", "0"]
    assert all((home / path).read_bytes()[4:8] == b"ftyp" for path in paths)


def test_file_names_are_ascii_if_wanted(cli, serve, home):
    emulator = serve()
    done = cli("generate", "雨 in the city", "--out", "videos", "--quiet")
    assert done.status == 0, done
    assert cli("generate", "雪 in the city", "--out", "plain", "--ascii-names", "--quiet").status == 0
    tags = [job.request_id[:8] for job in emulator.stats.accepted]
    assert (home / "videos" / f"00000-雨-in-the-city-{tags[0]}.mp4").exists()
    assert (home / "plain" / f"00000-in-the-city-{tags[1]}.mp4").exists()
    for options, name in [((), "kling-雨-in-the-city"), (("--ascii-names",), "kling-in-the-city")]:
        done = cli("download", emulator.stats.accepted[0].request_id, "--out", "more", *options)
        assert done.out == f"more/{name}-{tags[0]}.mp4\n"


def test_jobs_of_an_interrupted_run_are_downloaded(serve, cli, interrupt):
    emulator = serve(instant_rate=0.0, time_scale=100.0, run_time=LogNormal(100.0))
    assert interrupt(lambda: emulator.stats.accepted, "generate", "a cat").status == 130
    wait_until(lambda: emulator.stats.jobs_in_flight == 0)
    done = cli("download", emulator.stats.accepted[0].request_id)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("videos/kling-a-cat-")


def test_one_that_fails_leaves_the_others_alone(cli, submit):
    _, (good,) = submit(1)
    done = cli("download", "nonsense", good, "--json")
    assert done.status == 1
    by_id = {record["request_id"]: record for record in done.records}
    assert by_id["nonsense"]["error_type"] == "NotFoundError"
    assert by_id["nonsense"]["path"] is None
    assert by_id[good]["error"] is None
    assert by_id[good]["path"].startswith("videos/")
    assert "nonsense" in done.error_line


def test_a_folder_that_cannot_be_written_is_refused_before_any_call(cli, serve, home):
    emulator = serve()
    (home / "taken").write_text("a file")
    done = cli("download", "r1", "--out", "taken")
    assert done.status == 2
    assert "Videos cannot be saved in 'taken'" in done.error_line
    assert not emulator.stats.requests


def test_ctrl_c_prints_the_command_for_videos_that_are_not_saved(serve, interrupt):
    emulator = serve(script=lambda *_: JobScript(ending="stuck_processing"))
    interrupt(lambda: emulator.stats.accepted, "generate", "a cat")
    (job,) = emulator.stats.accepted
    asked = emulator.stats.requests["status"]
    done = interrupt(
        lambda: emulator.stats.requests["status"] > asked,
        *("download", job.request_id, "--base-url", emulator.url),
    )
    assert done.status == 130
    headline, _, command = done.err.splitlines()
    assert headline == "kling-async download: interrupted: 0 saved, 0 failed, 1 in flight, 0 not sent."
    assert command == f"  kling-async download {job.request_id} --out videos --base-url {emulator.url}"
