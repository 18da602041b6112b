from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from kling_async import ConfigurationError
from kling_async._engine.batch.settings import BatchSettings
from kling_async._journal.location import DatabaseUrl, journal_location
from kling_async._journal.open_journal import open_journal, read_journal


def test_a_path_is_a_file():
    assert journal_location(Path("run.db"), name="journal") == "run.db"


@pytest.mark.parametrize(
    "url, name",
    [
        ("postgresql://me:pw1@db.example:5433/videos", "postgresql://me@db.example:5433/videos"),
        ("postgres://db.example/videos", "postgres://db.example/videos"),
        ("POSTGRESQL://me@db.example/videos?sslpassword=pw1", "POSTGRESQL://me@db.example/videos"),
        ("postgresql://me:pw1@a.example,b.example/videos", "postgresql://me@a.example,b.example/videos"),
        ("postgresql://me:p@pw1@db.example/videos", "postgresql://me@db.example/videos"),
        ("postgresql://me:pw1?x@db.example/videos", "postgresql://***"),
        ("postgresql:///videos?host=/run&password=pw1", "postgresql:///videos?host=/run"),
        ("postgresql:///videos?password=pw1", "postgresql:///videos"),
        ("postgresql:///videos?pw1", "postgresql:///videos"),
        ("postgresql:///videos?sslmod=pw1&sslmode=require", "postgresql:///videos?sslmode=require"),
        ("postgresql://a@me:p?sslmode=pw1@db.example/videos", "postgresql://a@me:p"),
        (
            "postgresql://me:pw1@db.example/videos?sslmode=verify-full&options=-csearch_path%3Dvideos",
            "postgresql://me@db.example/videos?sslmode=verify-full&options=-csearch_path%3Dvideos",
        ),
    ],
)
def test_a_url_is_a_database_and_shows_its_options_and_no_password(url, name):
    location = journal_location(url, name="journal")

    assert isinstance(location, DatabaseUrl)
    assert (location.name, str(location), location.secret.reveal()) == (name, name, url)
    assert "pw1" not in repr(location)
    assert "pw1" not in repr(pickle.dumps(location))
    assert journal_location(location, name="journal") is location


def test_white_space_around_a_url_is_no_part_of_it():
    location = journal_location(" postgresql://me:pw1@db.example/videos\n", name="journal")
    assert (location.name, location.secret.reveal()) == (
        "postgresql://me@db.example/videos",
        "postgresql://me:pw1@db.example/videos",
    )


@pytest.mark.parametrize(
    "given",
    [
        "mysql://me:pw1@db.example/videos",
        " mysql://me:pw1@db.example/videos",
        "postgresql+asyncpg://me:pw1@db.example/videos",
        "jdbc:postgresql://db.example/videos?password=pw1",
        "postgresql:/me:pw1@db.example/videos",
    ],
)
def test_another_url_is_refused_without_its_password(given):
    with pytest.raises(ConfigurationError, match=r"nor the URL of a PostgreSQL database, such as") as refusal:
        journal_location(given, name="journal")
    assert "pw1" not in str(refusal.value)


@pytest.mark.parametrize("given", ["", 5, None, "mysql://me@db.example/videos", "s3://bucket/run.db"])
def test_what_is_neither_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"^journal="):
        journal_location(given, name="journal")


def test_a_database_in_a_path_is_refused_without_its_password():
    with pytest.raises(ConfigurationError, match="give the URL as text") as refusal:
        journal_location(Path("postgresql://me:pw1@db.example/videos"), name="journal")
    assert "pw1" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "host=db.example password=pw1",
        "password = 'pw1' host=db.example",
        " dbname=videos",
        "user=me password=pw1",
    ],
)
def test_a_connection_string_is_refused_and_names_no_file(text):
    with pytest.raises(ConfigurationError, match="give the URL, such as 'postgresql://") as refusal:
        journal_location(text, name="journal")
    assert "pw1" not in str(refusal.value)


@pytest.mark.parametrize("text", ["passwords.db", "host.db", "runs/a=b.db", "the password.db"])
def test_a_file_with_a_name_that_looks_a_little_like_one_is_a_file(text):
    assert journal_location(text, name="journal") == text


def test_the_settings_of_a_batch_do_not_show_the_password():
    assert "pw1" not in repr(BatchSettings(journal="postgresql://me:pw1@db.example/videos"))


@pytest.mark.parametrize("use", [open_journal, read_journal])
def test_a_database_without_its_driver_says_how_to_get_it(monkeypatch, use):
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(
        ConfigurationError, match=r'postgresql://me@.* needs psycopg: python -m pip install "\.\[postgres'
    ) as no:
        use("postgresql://me:pw1@db.example/videos")
    assert "pw1" not in str(no.value)


def test_the_driver_is_not_imported_until_a_database_is_opened():
    code = "import sys; sys.modules['psycopg'] = None; import kling_async, kling_async._engine.batch.batch"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
