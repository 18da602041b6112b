from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

# The benchmarks are not part of the wheel: they are found at the end of the path, after what is installed.
sys.path.append(str(Path(__file__).parents[1]))

# `pytest --hypothesis-profile=long` looks much longer for what these rules do not hold for, and `nox -s fuzz` longest.
# `nox -s pythons` asks only whether the rules hold at all.
for profile, examples in (("few", 20), ("short", 200), ("long", 5_000), ("fuzz", 25_000)):
    settings.register_profile(
        profile, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("short")

UNMEASURED = ("unmeasured", "slow", "hypothesis")
"""A test with one of these marks repeats what others cover; Hypothesis marks its tests itself. To measure doubles the time."""

TRACER = pytest.StashKey[object]()
"""What coverage measures this thread with, while it does not."""


@contextmanager
def measure(config):
    """A block that is measured, unless nothing is or its test is `UNMEASURED`."""
    tracer = config.stash.get(TRACER, None)
    if tracer is None:
        yield
        return
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(None)


def measure_blocks(config):
    """From here on measure in this thread what is in a block of `measure` alone."""
    config.stash[TRACER] = sys.gettrace()
    sys.settrace(None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session):
    """Measure nothing of pytest, and nothing in a process that only hands tests to others."""
    measured = Coverage.current()
    if measured is None:
        return
    if session.config.getoption("dist", "no") == "no":
        measure_blocks(session.config)
    else:
        measured.stop()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Measure the import of a file of tests, in the first process for all."""
    if isinstance(collector, pytest.Module) and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        # The collection raises it again.
        with suppress(Exception, pytest.skip.Exception), measure(collector.config):
            collector.obj  # noqa: B018 - imports the file
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Measure neither a test with a mark of `UNMEASURED` nor the threads and the Python processes that it starts."""
    measured = Coverage.current()
    if measured is None or not any(map(item.get_closest_marker, UNMEASURED)):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # coverage sets it for each Python that starts
        measured.stop()
        del item.config.stash[TRACER]
        try:
            return (yield)
        finally:
            measured.start()
            measure_blocks(item.config)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item):
    """Measure a step of a test: its fixtures, the test itself, or what its fixtures do after it."""
    with measure(item.config):
        return (yield)


pytest_runtest_call = pytest_runtest_teardown = pytest_runtest_setup


def pytest_collection_finish():
    """Keep what was imported and collected out of garbage collections, which go through all of it again and again.

    A test leaves more to collect than the usual thresholds are made for.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    """Save what was measured: pytest-xdist kills a process that takes more than ten seconds to end after this."""
    if (measured := Coverage.current()) is not None:
        measured.save()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run the slow tests first, some in each process: they wait more than they work, so all in one would be the longest way.

    `--dist worksteal` gives each process one piece of the list, from which others take only the end.
    """
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    quick = [item for item in items if item.get_closest_marker("slow") is None]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ordered = []
    for number in range(processes):
        first = slow[number::processes]
        rest = max(0, (len(items) - len(ordered)) // (processes - number) - len(first))
        ordered += [*first, *quick[:rest]]
        del quick[:rest]
    items[:] = ordered


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def interruptible():
    """Ctrl-C is heard, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def tiny_films(monkeypatch):
    """The emulator makes videos of 64 pixels, because to encode 640 is what costs most in a test that saves some."""
    sizes = {"16:9": (64, 36), "9:16": (36, 64), "1:1": (48, 48)}
    monkeypatch.setattr("kling_async.emulator.media.SIZES", sizes)


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    """An empty folder for temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def store(monkeypatch, temporary):
    """An object store on this machine, which the environment names."""
    from independent_store import IndependentStore, run_store  # most tests need none

    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    with run_store(IndependentStore()) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-store")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-store")
        yield store


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server of our own, for all tests of this process."""
    pytest.importorskip("psycopg")
    from postgres_server import find_programs, run_server  # most tests need none

    programs = find_programs()
    if programs is None:
        reason = (
            "no PostgreSQL server: install Debian's postgresql, or name the folder of initdb in POSTGRES_BIN"
        )
        if os.environ.get("SERVERS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with run_server(programs) as server:
        yield server


@pytest.fixture
def database(postgres_server):
    """The URL of an empty database."""
    with postgres_server.make_database() as url:
        yield url


@pytest.fixture
def journal_database(postgres_server):
    """The URL of a database with the tables of a journal, and no entry."""
    from postgres_server import make_journal  # most tests need none

    with postgres_server.make_database(make_journal) as url:
        yield url
