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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psycopg

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


@attrs.define
class Server:
    """A server in a folder of its own; it can be stopped, killed and started again at the same port."""

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    used: list[str] = attrs.field(factory=list)
    """The databases that no test uses any more."""

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        place = ["-D", self.folder / "data", "-k", self.folder, "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own
                [self.programs / "postgres", *place, *options], stdout=log, stderr=log, **_as_other_user()
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
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    @contextmanager
    def make_database(self) -> Iterator[str]:
        """The URL of an empty database, which has this name for the block.

        It is that of an earlier block, which takes the server a fifth of the work of a new one.
        """
        name = f"test_{time.monotonic_ns()}"
        if self.used:
            self._take_over(self.used.pop(), name)
        else:
            self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.used.append(name)

    def _take_over(self, used: str, name: str) -> None:
        """Give a database another name, no connection, and the defaults and the one empty schema of a new one."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [used]
            )
            connection.execute(f"ALTER DATABASE {used} RESET ALL")
            connection.execute(f"ALTER DATABASE {used} RENAME TO {name}")
        self.execute(
            """
            DO $$ DECLARE name text; BEGIN
                FOR name IN SELECT nspname FROM pg_namespace
                    WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
                LOOP EXECUTE format('DROP SCHEMA %I CASCADE', name); END LOOP;
            END $$;
            CREATE SCHEMA public;
            GRANT USAGE ON SCHEMA public TO PUBLIC;
            """,
            name,
        )


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
