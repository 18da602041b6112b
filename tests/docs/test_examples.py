from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from kling_async.emulator import Fault, Reply

pytestmark = pytest.mark.unmeasured

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run_example(name):
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_first_video_saves_one_file(reader, capsys):
    run_example("first_video.py")

    assert (reader / "eagle.mp4").stat().st_size > 0
    assert capsys.readouterr().out == "saved eagle.mp4\n"


def test_many_prompts_saves_a_file_for_each_in_order(reader, capsys):
    run_example("many_prompts.py")

    saved = sorted(path.name for path in (reader / "videos").iterdir())
    assert [name[:5] for name in saved] == ["00000", "00001", "00002"]
    assert capsys.readouterr().out.splitlines()[-1] == "3 of 3 videos were made"


def test_as_they_finish_reports_each_item_once(reader, capsys):
    run_example("as_they_finish.py")

    lines = capsys.readouterr().out.splitlines()
    assert sorted(int(line.split()[0]) for line in lines) == list(range(8))
    assert all(line.split()[1] == "succeeded" for line in lines)


def test_two_asyncio_runs_share_one_client(reader, capsys, kling_emulator):
    run_example("two_asyncio_runs.py")

    first, second = capsys.readouterr().out.splitlines()
    assert second == first.replace("submitted", "finished")
    assert len(kling_emulator.stats.accepted) == 1


def test_with_a_journal_run_again_buys_nothing(reader, capsys, kling_emulator):
    run_example("with_a_journal.py")
    run_example("with_a_journal.py")

    first, second = capsys.readouterr().out.splitlines()
    assert first == second == "6 of 6 videos, $2.10 in all"
    assert len(kling_emulator.stats.accepted) == 6
    assert len(list((reader / "night").glob("*.mp4"))) == 6


def test_from_a_picture_sends_its_address(reader, kling_emulator):
    run_example("from_a_picture.py")

    sent = [job.payload["image"] for job in kling_emulator.stats.accepted]
    assert sent == ["https://example.com/harbour.jpg"] * 2
    assert len(list(reader.glob("harbour-*.mp4"))) == 2


async def test_web_handler_serves_many_visitors_with_one_client(reader, kling_emulator):
    served = runpy.run_path(str(EXAMPLES / "web_handler.py"))
    server = TestServer(served["make_app"]())
    # aiohttp waits so long for a connection that opens while it stops and sends nothing; its default is 60 s.
    await server.start_server(shutdown_timeout=1.0)
    async with TestClient(server) as visitor:
        begun = [await visitor.post("/videos", json={"prompt": f"scene {number}"}) for number in range(5)]
        assert {answer.status for answer in begun} == {202}
        told = [await (await visitor.get(answer.headers["Location"])).json() for answer in begun]
        assert {one["status"] for one in told} == {"success"}
        assert all(one["video_url"] for one in told)
        for body in (b'{"prompt": ""}', b'{"prompt": 5}', b"{}", b"[1]", b"not JSON"):
            assert (await visitor.post("/videos", data=body)).status == 400
        assert (await visitor.get("/videos/unknown")).status == 404
        kling_emulator.faults.add(Fault("submit", Reply(402, {"error": "no credits"})))
        kling_emulator.faults.add(Fault("status", Reply(403, {"error": "no"})))
        assert (await visitor.post("/videos", json={"prompt": "x"})).status == 503
        assert (await visitor.get(begun[0].headers["Location"])).status == 503
    assert len(kling_emulator.stats.accepted) == 5


def test_own_code_is_tested_against_the_fixture():
    plugin = ["-p", "no:kling_async_emulator", "-p", "kling_async.emulator.fixture"]
    path = str(EXAMPLES / "test_with_the_emulator.py")
    tests = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", "-q", path]
    run = subprocess.run(tests, check=False, capture_output=True, text=True)  # noqa: S603

    assert run.returncode == 0, run.stdout
    assert "3 passed" in run.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_run_by_a_test(path):
    assert f'"{path.name}"' in Path(__file__).read_text()
