"""The coordinator's database: a file of SQLite's, or what SQLAlchemy reaches by an address.

Takes   an address, and a clock, which is the database's where that is this process.
Gives   an engine whose transactions are durable when they are committed.
Never   a query.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .. import limits
from ..clock import Clock, micros


def engine_of(url: str, clock: Clock) -> Engine:
    """The database; for SQLite a path as ``sqlite:///…``."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # Transactions begin as said below.
            connection.execute("PRAGMA busy_timeout = 60000")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            # Streams' names are random, and so are the pages that each of them touches in the indexes: what is
            # changed is written once a transaction, if memory holds it, and into the database not after each.
            connection.execute(f"PRAGMA cache_size = -{limits.coordinator_cache_bytes >> 10}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {limits.coordinator_log_bytes >> 12}")
            connection.create_function("tallypost_now", 0, lambda: micros(clock.now()))

        @sa.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that reads first and writes later would be refused where another wrote in between.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def url_of(place: str) -> str:
    """The address of a database as SQLAlchemy has it: of a file, if it is none already."""
    return place if "://" in place else f"sqlite:///{Path(place).absolute()}"
