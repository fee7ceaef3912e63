"""The coordinator's tables.

Takes   nothing.
Gives   the tables as SQLAlchemy Core has them, and the database's own clock.
Never   a query (``queries.py``, ``work.py``). What stands here follows from what is open and from the horizon, not
        from history.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

VERSION = 2

metadata = sa.MetaData()
_Key = sa.Integer().with_variant(sa.BigInteger, "postgresql")
# Names are compared byte by byte, as Python and SQLite do it, whatever language the database speaks.
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

facts = sa.Table(
    "facts",
    metadata,
    sa.Column("name", _Text, primary_key=True),
    sa.Column("value", _Text, nullable=False),
    comment="What holds for the whole: the schema's version, how many lanes, which archive.",
)

totals = sa.Table(
    "totals",
    metadata,
    sa.Column("name", _Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    comment="What was counted since the coordinator was made.",
)

segments = sa.Table(
    "segments",
    metadata,
    sa.Column("id", _Key, primary_key=True),
    sa.Column("name", _Text, nullable=False, unique=True),
    sa.Column("settled", sa.Boolean, nullable=False, default=False),
    comment="Sealed segments that were registered and are not removed yet.",
    sqlite_autoincrement=True,
)

entries = sa.Table(
    "entries",
    metadata,
    # Of where it was registered, so that none is ever given twice.
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", _Text, nullable=False),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("app", _Text, nullable=False),
    sa.Column("stream", _Text, nullable=False),
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Column("segment", _Key, sa.ForeignKey("segments.id"), nullable=False),
    sa.Column("line", sa.Integer, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("first", sa.BigInteger),
    sa.Column("last", sa.BigInteger),
    sa.Column("lost", sa.BigInteger),
    sa.Column("terminal", sa.BigInteger),
    sa.Column("task", _Text),
    comment="Documents that are not settled: where each lies, and the task that archives it.",
)
# Literals, for a database goes by an index of some rows only where it reads the same condition.
is_batch = entries.c.kind == sa.literal_column("'events'")
is_report = entries.c.kind == sa.literal_column("'report'")
# Of batches alone, for names are random, and so is the page that each touches: a report tells its entry itself.
sa.Index("batches_of_stream", entries.c.stream, entries.c.app, sqlite_where=is_batch, postgresql_where=is_batch)
sa.Index("entries_of_segment", entries.c.segment)
_has_task = entries.c.task.isnot(None)
sa.Index("entries_of_task", entries.c.task, sqlite_where=_has_task, postgresql_where=_has_task)
report_waits = sa.and_(is_report, entries.c.task.is_(None))
sa.Index(
    "reports_that_wait",
    entries.c.lane,
    entries.c.id,
    sqlite_where=report_waits,
    postgresql_where=report_waits,
)

reports = sa.Table(
    "reports",
    metadata,
    sa.Column("id", _Text, primary_key=True),  # First in the key: what comes in is looked for by its id.
    sa.Column("app", _Text, primary_key=True),
    sa.Column("last_entry", sa.BigInteger, nullable=False),
    sa.Column("entry", sa.BigInteger, comment="It is archived once there is no such entry any more."),
    comment="Reports of the horizon, by which a repetition is recognised.",
    sqlite_with_rowid=False,
)
sa.Index("reports_by_age", reports.c.last_entry)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("stream", _Text, primary_key=True),  # First in the key, as in `reports`.
    sa.Column("app", _Text, primary_key=True),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("known", sa.LargeBinary, nullable=False, comment="A session.Session."),
    sa.Column("state", _Text, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("last_entry", sa.BigInteger, nullable=False),
    sa.Column("oldest_waiting", sa.BigInteger, comment="Of its entries that are not archived; null without one."),
    sa.Column("rows", sa.BigInteger, nullable=False, comment="How many events wait."),
    sa.Column("bytes", sa.BigInteger, nullable=False, comment="How long the lines are that wait."),
    sa.Column("task", _Text),
    sa.Column("part", sa.LargeBinary, comment="A session.Part: what the running task archives."),
    comment="Sessions of the horizon, and older ones of which something waits.",
    sqlite_with_rowid=False,
)
_session_waits = sa.and_(sessions.c.oldest_waiting.isnot(None), sessions.c.task.is_(None))
sa.Index(
    "sessions_complete",
    sessions.c.complete,
    sessions.c.last_entry,
    sqlite_where=_session_waits,
    postgresql_where=_session_waits,
)
sa.Index("sessions_waiting", sessions.c.oldest_waiting, sqlite_where=_session_waits, postgresql_where=_session_waits)
_has_task = sessions.c.task.isnot(None)
sa.Index("sessions_of_task", sessions.c.task, sqlite_where=_has_task, postgresql_where=_has_task)
sa.Index("sessions_by_age", sessions.c.last_entry)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    sa.Column("kind", _Text, nullable=False),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("state", _Text, nullable=False, comment="gathering, waiting (its input is frozen), running."),
    sa.Column("number", sa.BigInteger, comment="The lane's number that it has, once it was claimed."),
    sa.Column("made", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column(
        "deaths", sa.Integer, nullable=False, server_default="0", comment="Who worked on it was not heard of again."
    ),
    sa.Column("not_before", sa.BigInteger, nullable=False, default=0),
    sa.Column("problem", sa.Text),
    comment="What is to be archived together.",
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", _Text, primary_key=True, comment="scan, or lane-N."),
    sa.Column("number", sa.BigInteger, nullable=False, default=0, comment="The highest that a task of the lane has."),
    sa.Column("holder", _Text),
    sa.Column("until", sa.BigInteger, nullable=False, default=0),
    comment="Who works on what, until when by the database's clock.",
)


class database_now(FunctionElement[int]):  # noqa: N801  It stands in queries as SQL's functions do.
    """The database's clock, in microseconds since 1970: leases go by it, since archivists' clocks may differ."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _now_in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "tallypost_now()"  # The database is this process; `database.py` defines it by the clock it is given.


@compiles(database_now, "postgresql")
def _now_in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
