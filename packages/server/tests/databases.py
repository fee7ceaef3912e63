"""Where a test's coordinator lies: in a file, or on a real PostgreSQL server that the tests start for themselves.

Takes   Debian's PostgreSQL; where ``TALLYPOST_TOOLS`` is ``required`` its absence is a failure.
Gives   a database for each test, with a clock that the test sets.
Never   listens on the network; never touches a server that was there before.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tallypost_server.clock import Clock, micros
from tallypost_server.streams.database import engine_of, url_of

KINDS = ["file", pytest.param("postgres", marks=pytest.mark.postgres)]
LONG_KINDS = ["file", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.long])]
CONFIGURATION = {
    "listen_addresses": "",
    "fsync": "off",  # The system outlives what these tests kill.
    # What an operator may have set for other uses, and what would break ours.
    "default_transaction_isolation": "serializable",
    "synchronous_commit": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "16MB",
}
# Stands before the server's own clock in a test's search path, and tells what the test's clock told last.
CLOCK = """
CREATE SCHEMA IF NOT EXISTS fake;
CREATE OR REPLACE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
$$ SELECT timestamptz 'epoch' + current_setting('tallypost.now')::bigint * interval '1 microsecond' $$;
"""


class Database(Protocol):
    """Where a coordinator lies. An engine is of the clock that it is given, also where the database has its own."""

    place: str
    """What ``--coordinator`` is told."""

    def engine(self, clock: Clock) -> Engine:
        """The database, opened once more."""

    def lose(self) -> None:
        """Remove all of it, while nothing runs."""

    def damage(self) -> None:
        """Let it be so that it cannot be read any more."""

    def copy(self) -> None:
        """Keep a copy, while nothing runs."""

    def put_back(self) -> None:
        """Put the copy in the place of what is there, while nothing runs."""


class File:
    """A file of SQLite's."""

    def __init__(self, path: Path) -> None:
        self.place, self._path = str(path), path
        self._copy = path.with_name("copy.sqlite")

    def engine(self, clock: Clock) -> Engine:
        return engine_of(url_of(self.place), clock)

    def lose(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    def damage(self) -> None:
        self.lose()
        self._path.write_bytes(b"no database" * 400)

    def copy(self) -> None:
        shutil.copy(self._path, self._copy)

    def put_back(self) -> None:
        self.lose()
        shutil.move(self._copy, self._path)


class Schema:
    """A schema of the server's, which is as good as a database, and made and dropped in a moment."""

    def __init__(self, server: Postgres, name: str) -> None:
        self._server, self.name = server, name
        self.place = server.place(f"{name},pg_catalog")
        self._in_fake_time = server.place(f"{name},fake,pg_catalog")
        self.make()

    def make(self) -> None:
        self._server.run(f"CREATE SCHEMA {self.name}")

    def engine(self, clock: Clock) -> Engine:
        engine = engine_of(self._in_fake_time, clock)

        @sa.event.listens_for(engine, "begin")
        def tell(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT set_config('tallypost.now', '{micros(clock.now())}', true)")

        return engine

    def lose(self) -> None:
        self._server.run(f"DROP SCHEMA {self.name} CASCADE")
        self.make()

    def damage(self) -> None:
        self._server.run(f"DROP TABLE {self.name}.sessions")

    def copy(self) -> None:
        self._server.run(f"CREATE SCHEMA {self.name}_copy")
        for table in self._tables():
            self._server.run(f"CREATE TABLE {self.name}_copy.{table} AS TABLE {self.name}.{table}")

    def put_back(self) -> None:
        tables = self._tables()
        self._server.run("TRUNCATE " + ", ".join(f"{self.name}.{table}" for table in tables))
        for table in tables:
            self._server.run(f"INSERT INTO {self.name}.{table} TABLE {self.name}_copy.{table}")
        self._server.run(f"DROP SCHEMA {self.name}_copy CASCADE")

    def drop(self) -> None:
        self._server.run(f"DROP SCHEMA {self.name} CASCADE")

    def _tables(self) -> list[str]:
        """In an order in which each refers to earlier ones alone."""
        return ["facts", "totals", "segments", "entries", "reports", "sessions", "tasks", "leases"]


class Postgres:
    """A server of its own in a folder, which listens on a socket there."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._data = folder / "data"
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        # It refuses to be the administrator's.
        self._user = _nobody() if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user, -1)

    def make(self) -> None:
        """Make its data, in a language that sorts otherwise than by bytes."""
        command = [str(self._programs / "initdb"), "--pgdata", str(self._data), "--username", "tallypost"]
        command += ["--auth", "trust", "--encoding", "UTF8", "--no-sync", "--no-instructions", "--wal-segsize", "1"]
        command += ["--locale-provider", "icu", "--icu-locale", "en", "--locale", "C.UTF-8"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._folder, user=self._user)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Return once it answers."""
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self._folder)]
        for name, value in CONFIGURATION.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                user=self._user,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        for _ in range(200):
            if self._answers():
                self.run(CLOCK)
                return
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    def _answers(self) -> bool:
        try:
            self.run("SELECT 1")
        except sa.exc.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """Let it die with all its processes, in the middle of whatever it does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def place(self, search_path: str = "public") -> str:
        """An address of it."""
        path = search_path.replace(",", "%2C")
        return f"postgresql+psycopg://tallypost@/postgres?host={self._folder}&options=-csearch_path%3D{path}"

    def run(self, sql: str) -> list[Any]:
        """Run a statement in a connection of its own; its rows."""
        engine = sa.create_engine(self.place(), poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            result = connection.exec_driver_sql(sql)
            return list(result) if result.returns_rows else []

    def schema(self) -> Schema:
        """A new place for a coordinator."""
        return Schema(self, f"test_{next(self._names)}")

    @property
    def files(self) -> Path:
        """Where the tables' files lie."""
        return self._data / "base"


def programs() -> Path:
    """Where PostgreSQL's programs lie; skips the test, or fails it, where they are missing."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    if os.environ.get("TALLYPOST_TOOLS") == "required":
        pytest.fail("PostgreSQL is not installed", pytrace=False)
    pytest.skip("PostgreSQL is not installed")


def _nobody() -> int:
    """Who is not the administrator, and best Debian's own user for it."""
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall()}
    return users.get("postgres", users["nobody"])


def _die_with_parent() -> None:
    """Let the server end at once with the tests, however those end."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGQUIT))
