"""Commands whose videos go to an object store."""

from __future__ import annotations

import json
import sys

import pytest
from independent_store import error


def test_generate_stores_the_videos_and_keeps_the_journal_in_the_working_folder(cli, serve, home, store):
    emulator = serve()
    done = cli("generate", "a cat", "the sea", "--out", "s3://videos/clips", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert len(store.videos) == 2
    assert [path.name for path in home.iterdir() if path.suffix == ".db"] == ["run.db"]
    again = cli("generate", "a cat", "the sea", "--out", "s3://videos/clips")
    assert "2 of 2 videos saved in s3://videos/clips/ (2 of them before" in again.out
    assert len(emulator.stats.accepted) == 2
    shown = cli("status", "run.db", "--json").records
    assert [record["path"] for record in shown] == [f"s3://videos/{key}" for key in sorted(store.videos)]
    assert "\ts3://videos/clips/00000-a-cat-" in cli("status", "run.db").out


def test_resume_goes_to_the_store_that_has_the_other_videos(cli, serve, home, store):
    emulator = serve()
    assert cli("generate", "a cat", "the sea", "--out", "s3://videos/clips/").status == 0
    (sea,) = [key for key in store.videos if "sea" in key]
    del store.objects[sea]
    done = cli("resume", "run.db", "--json")
    assert done.status == 0
    assert sea in store.videos
    assert [record["path"] for record in done.records] == [
        f"s3://videos/{key}" for key in sorted(store.videos)
    ]
    assert len(emulator.stats.accepted) == 2


def test_the_command_that_resumes_names_the_store(cli, serve, home, store):
    serve()
    store.faults.append(lambda request: error(403, "AccessDenied") if "cat" in request.path else None)
    done = cli("generate", "a cat", "--out", "s3://videos/clips")
    assert done.status == 1
    assert "may not read from it (it answered 403)" in done.err
    assert "kling-async resume run.db --out s3://videos/clips" in done.err


def test_download_prints_the_url_of_each_video(cli, serve, home, store):
    serve()
    made = cli("generate", "a cat", "--no-journal", "--json").records
    done = cli("download", made[0]["request_id"], "--out", "s3://videos/clips/")
    assert done.out == f"s3://videos/{next(iter(store.videos))}\n"
    record = json.loads(cli("download", made[0]["request_id"], "--out", "s3://videos/clips/", "--json").out)
    assert record["path"] == done.out.strip()


def test_without_the_right_to_delete_one_probe_stays_and_is_named_once(cli, serve, home, store, caplog):
    serve()
    store.faults.append(lambda request: error(403, "AccessDenied") if "delete" in request.query else None)
    done = cli("generate", "a cat", "--out", "s3://videos/clips")
    assert done.status == 0
    [probe] = [key for key in store.videos if not key.endswith(".mp4")]
    [warning] = [each.getMessage() for each in caplog.records if "stays in the store" in each.getMessage()]
    assert warning.startswith(f"The probe 's3://videos/{probe}' stays")


@pytest.mark.parametrize("out", ["s3://no-such-bucket", "s3://key:secret@videos", "s3:/videos"])
def test_a_store_that_takes_no_videos_is_one_sentence_and_nothing_is_sent(cli, serve, home, store, out):
    emulator = serve()
    done = cli("generate", "a cat", "--out", out)
    assert done.status == 2
    assert "secret" not in done.error_line
    assert not emulator.stats.accepted
    assert list(home.iterdir()) == []


def test_a_file_url_is_a_folder(cli, serve, home):
    serve()
    assert cli("generate", "a cat", "--out", (home / "clips").as_uri()).status == 0
    assert {path.suffix for path in (home / "clips").iterdir()} >= {".db", ".mp4"}


def test_a_report_plays_the_objects_for_as_long_as_it_is_signed(cli, serve, home, store):
    serve()
    options = ("--out", "s3://videos", "--report", "r.html", "--sign-report", "600")
    assert cli("generate", "a cat", *options).status == 0
    assert "X-Amz-Expires=600&amp;" in (home / "r.html").read_text()
    assert b"X-Amz" not in (home / "run.db").read_bytes()
    store.objects.clear()
    store.faults.append(lambda request: error(403, "AccessDenied") if "cat" in request.path else None)
    done = cli("resume", "run.db", "--report", "r.html", "--sign-report", "600")
    assert "--report r.html --sign-report 600" in done.err
    assert "--sign-report" in cli("generate", "a cat", "--sign-report", "0").error_line


def test_a_direct_upload_needs_a_store_and_is_kept_for_the_resumption(cli, serve, home, store):
    emulator = serve()
    assert "--direct-upload needs the URL" in cli("generate", "a cat", "--direct-upload").error_line
    assert not emulator.stats.accepted
    store.faults.append(lambda request: error(403, "AccessDenied") if "cat" in request.path else None)
    done = cli("generate", "a cat", "--out", "s3://videos", "--direct-upload")
    assert "kling-async resume run.db --out s3://videos --direct-upload" in done.err
    store.faults.clear()
    assert cli("resume", "run.db", "--out", "s3://videos", "--direct-upload").status == 0
    assert len(store.videos) == 1


def test_without_the_client_of_stores_nothing_is_made(cli, serve, home, monkeypatch):
    serve()
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    assert "needs obstore" in cli("generate", "a cat", "--out", "s3://videos/x").error_line
    assert list(home.iterdir()) == []
