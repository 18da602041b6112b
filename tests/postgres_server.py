"""A PostgreSQL server of our own on this machine, for one run of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psycopg

KEPT: dict[str, psycopg.Connection] = {}
"""By URL, the connections of `run`."""

USER, PASSWORD = "tester", "s3cret-of-the-database"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # kills of the server process lose nothing: the system has the writes
    "full_page_writes": "off",  # as above
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum_naptime": "10s",
    "log_min_messages": "warning",
}


def find_programs() -> Path | None:
    """The folder of the server's programs: that in `POSTGRES_BIN`, on the path, or where Debian puts them."""
    if (given := os.environ.get("POSTGRES_BIN")) is not None:
        return Path(given)
    on_path = shutil.which("initdb")
    if on_path is not None and shutil.which("postgres") is not None:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


_DROP_EVERYTHING = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT nspname FROM pg_namespace
            WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
        LOOP EXECUTE format('DROP SCHEMA %I CASCADE', name); END LOOP;
    END $$;
    CREATE SCHEMA public;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
"""
"""Leaves the one empty schema that a new database has."""
_KEEP_ROWS = """
    DO $$ DECLARE name text; BEGIN
        CREATE SCHEMA kept;
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
        LOOP EXECUTE format('CREATE TABLE kept.%1$I AS TABLE public.%1$I', name); END LOOP;
    END $$
"""
_RESTORE_ROWS = """
    DO $$ DECLARE name text; BEGIN
        SET LOCAL session_replication_role = replica;  -- no trigger, no foreign key
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
        LOOP EXECUTE format('DELETE FROM public.%I', name); END LOOP;
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'kept'
        LOOP EXECUTE format('INSERT INTO public.%1$I OVERRIDING SYSTEM VALUE TABLE kept.%1$I', name); END LOOP;
        PERFORM setval(seqrelid::regclass, seqstart, false) FROM pg_sequence;
        UPDATE kling_async_journal SET id = gen_random_uuid();  -- to this process it is another journal
    END $$
"""
_READ_CATALOG = " UNION ALL ".join(
    f"SELECT count(*), max(xmin::text::bigint) FROM {table} WHERE {key} >= {first}"  # noqa: S608 - our own names
    for table, key, first in (
        ("pg_class", "oid", 16384),  # the first number that no object of the system has
        ("pg_attribute", "attrelid", 16384),
        ("pg_attrdef", "oid", 16384),
        ("pg_constraint", "oid", 16384),
        ("pg_proc", "oid", 16384),
        ("pg_trigger", "oid", 16384),
        ("pg_type", "oid", 16384),
        ("pg_namespace", "oid", 0),
    )
)
"""Rows that are others after any change of a table, a function or a right: it writes a row, or removes one."""


def run(url: str, statement: str, *values: object) -> psycopg.Cursor:
    """The result of a statement, over a connection that the next ones use too: a new one costs the server 4 ms of work."""
    kept = KEPT.get(url)
    if kept is not None:
        try:
            return kept.execute(statement, values or None)
        except psycopg.OperationalError:
            if not kept.closed:
                raise
    KEPT[url] = psycopg.connect(url, autocommit=True)
    return KEPT[url].execute(statement, values or None)


def close_connections(*, but: str | None = None) -> None:
    """Close the connections of `run`, but that with one URL."""
    for url in KEPT.keys() - {but}:
        KEPT.pop(url).close()


@attrs.frozen
class _Used:
    """A database that no test uses any more."""

    name: str
    catalog: list[tuple]
    """What `_READ_CATALOG` found when its tables had been made; empty for a database without tables."""


@attrs.define
class Server:
    """A server in a folder of its own; it can be stopped, killed and started again at the same port."""

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    used: dict[Callable[[str], None] | None, list[_Used]] = attrs.field(factory=dict)
    """By what made their tables, the databases that no test uses any more."""

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        place = ["-D", self.folder / "data", "-k", self.folder, "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own
                [self.programs / "postgres", *place, *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "LD_BIND_NOW": "1"},  # link the libraries once, and not in each session
                **_as_other_user(),
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT closes all connections, SIGQUIT ends it as a crash does."""
        if self.process is not None:
            close_connections()
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def execute(self, statement: str, database: str = "postgres") -> psycopg.Cursor:
        return run(self.url(database), statement)

    @contextmanager
    def make_database(self, make_tables: Callable[[str], None] | None = None) -> Iterator[str]:
        """The URL of a database, which has this name for the block. It is empty, or has the tables that the function makes.

        It is that of an earlier block: to empty it takes the server a fifth of the work of a new one, and to make the tables
        takes more than that. Tables that the earlier block has changed are made again.
        """
        used = self.used.setdefault(make_tables, [])
        url = self.url(name := f"test_{time.monotonic_ns()}")
        earlier = used.pop() if used else None
        if earlier is None:
            self.execute(f"CREATE DATABASE {name}")
        else:
            self._take_over(earlier.name, name)
        catalog = _restore(url, make_tables, earlier)
        try:
            yield url
        finally:
            close_connections(but=self.url())
            used.append(_Used(name, catalog))

    def _take_over(self, used: str, name: str) -> None:
        """Give a database another name, no connection, and the defaults of a new one."""
        url = self.url()
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        while run(url, end, used).fetchall():
            time.sleep(0.002)  # the server itself would look ten times a second whether they have ended
        run(url, f"ALTER DATABASE {used} RESET ALL")
        run(url, f"ALTER DATABASE {used} RENAME TO {name}")


def _restore(url: str, make_tables: Callable[[str], None] | None, earlier: _Used | None) -> list[tuple]:
    """Bring a database back to where its tables had just been made; what `_READ_CATALOG` finds there."""
    if earlier and earlier.catalog and run(url, _READ_CATALOG).fetchall() == earlier.catalog:
        run(url, _RESTORE_ROWS)
        return earlier.catalog
    if earlier is not None:
        run(url, _DROP_EVERYTHING)
    if make_tables is None:
        return []
    make_tables(url)
    run(url, _KEEP_ROWS)
    return run(url, _READ_CATALOG).fetchall()


def make_journal(url: str) -> None:
    """Make the tables of a journal in a database."""
    from kling_async._journal.open_journal import open_journal  # most users of this module need none

    open_journal(url).close()


@contextmanager
def run_server(programs: Path) -> Iterator[Server]:
    """A server that runs for the block."""
    # Not in a folder of pytest: the user who runs the server could not enter it.
    with tempfile.TemporaryDirectory(dir="/tmp") as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        (folder / "password").write_text(PASSWORD)
        (folder / "data").mkdir()
        user = _as_other_user()
        if user:
            for path in (folder, folder / "data", folder / "password"):
                shutil.chown(path, user["user"], user["group"])
        subprocess.run(  # noqa: S603 - our own
            [
                programs / "initdb",
                "-D",
                folder / "data",
                "-U",
                USER,
                "--auth=md5",  # scram-sha-256 takes 5 ms of each side for each of thousands of connections
                f"--pwfile={folder / 'password'}",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **user,
        )
        server = Server(programs, folder, port)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def _as_other_user() -> dict:
    """The user who runs the server, if this one is root, which the server refuses."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")  # the package of the server makes it
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
