"""The commands on a journal in a database, whose password no command prints."""

from __future__ import annotations

import shlex

import pytest
from postgres_server import PASSWORD

from kling_async.emulator import Fault
from tests.cli.conftest import FAILING

pytestmark = pytest.mark.unmeasured

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("pydantic")  # where it is imported, cyclopts checks each value with it


@pytest.fixture
def shared(database, cli):
    """Runs a command, and checks that it does not print the password of the database."""

    def run(*tokens: str):
        done = cli(*tokens)
        assert PASSWORD not in done.out + done.err
        return done

    return run


def name_of(database):
    return database.replace(f":{PASSWORD}@", "@")


def test_what_one_command_began_another_finishes_and_shows(shared, serve, database, home):
    emulator = serve()
    begun = shared("generate", "a cat", "a dog", "--journal", database, "--out", "v", "--quiet")
    assert begun.status == 0
    next((home / "v").glob("*cat*")).unlink()

    done = shared("resume", database, "--out", "v")
    assert done.err == f"Resuming {name_of(database)}: 2 made before, 0 of 2 to submit.\n"
    assert done.out.startswith("2 of 2 videos saved in v/ (1 of them before; ")
    assert len(emulator.stats.accepted) == 2

    again = shared("resume", database, "--out", "v")
    assert again.err == f"Nothing to do: {name_of(database)} holds 2 made before.\n"

    status = shared("status", database)
    assert [line.split("\t")[1] for line in status.out.splitlines()] == ["succeeded", "succeeded"]
    assert status.err == f"{name_of(database)}: 2 succeeded\n"


def test_the_videos_of_a_database_go_to_the_usual_folder(shared, serve, database, home):
    serve()
    shared("generate", "a cat", "--journal", database, "--quiet")
    next((home / "videos").glob("*cat*")).unlink()

    assert shared("resume", database).out.startswith("1 of 1 videos saved in videos/ (")


def test_a_command_that_is_repeated_buys_nothing_again(shared, serve, database):
    emulator = serve()
    for _ in range(2):
        assert shared("generate", "a cat", "--journal", database, "--quiet").status == 0
    assert len(emulator.stats.accepted) == 1


def test_a_dry_run_counts_what_the_database_has_and_makes_nothing(shared, serve, database):
    serve()
    first = shared("generate", "a cat", "--journal", database, "--dry-run", "--price", "0.35")
    assert "1 of 1 would be submitted" in first.err
    assert "There is no journal" in shared("status", database).error_line
    shared("generate", "a cat", "--journal", database, "--quiet")

    second = shared("generate", "a cat", "a dog", "--journal", database, "--dry-run")
    assert f"{name_of(database)}: 1 made before." in second.err
    assert shared("resume", database, "--dry-run").err.startswith(f"{name_of(database)}: 1 made before.")


def test_a_failure_names_the_command_without_the_password(shared, serve, database):
    serve(faults=(Fault("submit", FAILING),))
    done = shared("generate", "a cat", "--journal", database)
    assert done.status == 1
    assert f"kling-async resume {name_of(database)}" in done.out + done.err


def test_the_command_to_resume_names_the_schema_of_the_journal_too(shared, serve, database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA videos")
    serve(faults=(Fault("submit", FAILING),))
    url = f"{database}?options=-csearch_path%3Dvideos"

    done = shared("generate", "a cat", "--journal", url)

    command = next(line for line in (done.out + done.err).splitlines() if "kling-async resume" in line)
    journal = shlex.split(command[command.index("kling-async resume") :])[2]
    assert journal == name_of(url)
    assert shared("status", url).err.startswith(f"{journal}: 1 failed")


@pytest.mark.parametrize("command", [["resume"], ["status"], ["generate", "a cat", "--journal"]])
def test_a_database_that_cannot_be_reached_is_one_line(shared, serve, command):
    serve()
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/videos"
    done = shared(*command, url)
    assert done.status == 2
    assert "The journal 'postgresql://me@127.0.0.1:1/videos' could not be" in done.error_line


def test_a_url_with_one_slash_is_one_line(shared, serve):
    serve()
    line = shared("resume", f"postgresql:/me:{PASSWORD}@127.0.0.1/videos").error_line
    assert "is a URL: give the path of a file" in line


def test_two_commands_with_the_same_prompts_both_succeed(start_process, serve, database, home):
    emulator = serve(instant_rate=0.0, time_scale=200.0)
    prompts = [f"a cat on wall number {number}" for number in range(6)]
    command = ["generate", *prompts, "--journal", database, "--max-concurrency", "2", "--out"]
    both = [start_process(*command, place) for place in ("m1", "m2")]
    told = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "not saved" not in "".join(text for pair in told for text in pair)
    assert len(emulator.stats.accepted) == len([*home.glob("m?/*.mp4")]) == 6
