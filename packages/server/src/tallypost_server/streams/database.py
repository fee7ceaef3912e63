"""The coordinator's database: a file of SQLite's, or PostgreSQL, reached by an address.

Takes   an address, and a clock, which is the database's where that is this process.
Gives   an engine whose transactions come one after the other; what ends the process takes none of them, and a power cut
        none before the last one that was to be durable.
Never   a query.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from .. import limits
from ..clock import Clock, micros
from ..errors import CoordinatorUnusable
from ..settings import without_password

# What all who are in one database wait for in turn; any number would do, so long as it is always the same.
_TURN = 0x74616C6C79

# The option of a connection whose transactions are durable, with all before them, when they are committed.
DURABLE = "tallypost_durable"

# A server that is gone without a word is noticed, instead of being waited for as long as the system likes.
_REACHED = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def engine_of(url: str, clock: Clock, *, wait_seconds: float = limits.coordinator_wait_seconds) -> Engine:
    """The database; for SQLite a path as ``sqlite:///…``. So long others are waited for that are in a transaction."""
    address = sa.make_url(url)
    if address.get_backend_name() == "postgresql":
        return _postgresql(address, round(wait_seconds * 1000))
    return _sqlite(address, clock, round(wait_seconds * 1000))


def url_of(place: str) -> str:
    """The address of a database as SQLAlchemy has it: of a file, if it is none already."""
    return place if "://" in place else f"sqlite:///{Path(place).absolute()}"


def is_made(engine: Engine) -> bool:
    """Whether there are tables of a coordinator.

    Raises:
        CoordinatorUnusable: the database is away.
    """
    try:
        return sa.inspect(engine).has_table("facts")
    except sa.exc.DBAPIError as failure:
        raise CoordinatorUnusable(address_of(engine), failure) from failure


def address_of(engine: Engine) -> str:
    """The database's address, without a password."""
    return without_password(engine.url.render_as_string(hide_password=False))


def scrub(engine: Engine) -> None:
    """Return once the tables' files hold nothing of what was deleted.

    PostgreSQL's write-ahead log, and what it knows of a table's values for its plans, are renewed in their time.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM (FULL, ANALYZE) entries, reports, sessions")
        return
    with contextlib.closing(engine.raw_connection()) as file:
        # Made anew from what is there; then the log, which has the pages of before, begins anew too.
        file.cursor().execute("VACUUM")
        if file.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise sqlite3.OperationalError("others read all the time")


def _sqlite(address: URL, clock: Clock, wait_ms: int) -> Engine:
    engine = sa.create_engine(address, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # Transactions begin as said below.
        connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        # Streams' names are random, and so are the pages that each of them touches in the indexes: what is
        # changed is written once a transaction, if memory holds it, and into the database not after each.
        connection.execute(f"PRAGMA cache_size = -{limits.coordinator_cache_bytes >> 10}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {limits.coordinator_log_bytes >> 12}")
        connection.create_function("tallypost_now", 0, lambda: micros(clock.now()))

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # What a power cut takes is the end of what was done, and the tables tell it: it is done again. Only what others
        # are about to do for good waits for the disk, since a large sync holds up those of ingestion.
        durable = connection.get_execution_options().get(DURABLE, False)
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        # A transaction that reads first and writes later would be refused where another wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(address: URL, wait_ms: int) -> Engine:
    engine = sa.create_engine(
        address,
        hide_parameters=True,  # Names of streams are not for logs.
        # Each statement sees what was committed before it began, whatever the database's own default is. Stricter
        # ones would look at a moment before the turn below, and be refused.
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,  # A server that was started again is found again, without a task that fails for it.
        connect_args={name: value for name, value in _REACHED.items() if name not in address.query},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = {wait_ms}")
        # Who sleeps in a transaction is thrown out of it: it holds nobody up, and finds that when it wakes.
        connection.execute(f"SET idle_in_transaction_session_timeout = {wait_ms}")
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.autocommit = False

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # As with SQLite, one transaction after the other: each reads, decides and writes, and nobody may come in
        # between. They are short; the work itself is done outside of them. It ends with the transaction.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TURN})")

    return engine
