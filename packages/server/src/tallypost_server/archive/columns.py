"""The tables' columns.

Takes   nothing.
Gives   each table's schema, what it is partitioned and sorted by, and what stands in its statistics.
Never   JSON text in a column: engines read maps, and only slow functions of theirs read JSON.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import pyarrow as pa

TableName: TypeAlias = Literal["reports", "events", "sessions"]

MOMENT = pa.timestamp("us", "UTC")
_TEXT, _COUNT = pa.string(), pa.int64()
COUNTS = pa.map_(_TEXT, _COUNT)
RANGES = pa.list_(pa.struct([pa.field("first", _COUNT), pa.field("last", _COUNT)]))
PROGRAM = [pa.field(name, _TEXT) for name in ("program", "version", "python", "os", "arch")]
PROGRAM_COUNTS = pa.struct([*PROGRAM, pa.field("counters", COUNTS), pa.field("stacks", COUNTS)])


class Table(NamedTuple):
    """A table: its columns, and those that tell two rows apart, by which rows lie sorted."""

    name: TableName
    schema: pa.Schema
    key: tuple[str, ...]

    @property
    def inside(self) -> pa.Schema:
        """The columns that lie in the files; the partition stands in their path."""
        return pa.schema([field for field in self.schema if field.name != PARTITION])


PARTITION = "day"

REPORTS = Table(
    "reports",
    pa.schema(
        [
            (PARTITION, pa.date32()),  # The day that was counted.
            ("app", _TEXT),
            ("id", _TEXT),
            ("received", MOMENT),
            ("sha256", _TEXT),  # Of the document as posted.
            ("x", pa.float64()),
            ("previous", pa.date32()),
            ("config", _TEXT),
            ("programs", pa.list_(PROGRAM_COUNTS)),
        ]
    ),
    ("app", "id"),
)

EVENTS = Table(
    "events",
    pa.schema(
        [
            (PARTITION, pa.date32()),  # When the session was first seen.
            ("app", _TEXT),
            ("session", _TEXT),
            ("index", _COUNT),
            ("name", _TEXT),  # Null: an event that keeps its place and says nothing.
            ("at", MOMENT),
            ("received", MOMENT),
            *PROGRAM,
            ("words", pa.map_(_TEXT, _TEXT)),
            ("numbers", pa.map_(_TEXT, pa.float64())),
            ("flags", pa.map_(_TEXT, pa.bool_())),
        ]
    ),
    ("app", "session", "index"),
)

SESSIONS = Table(
    "sessions",
    pa.schema(
        [
            (PARTITION, pa.date32()),  # As in `events`.
            ("app", _TEXT),
            ("session", _TEXT),
            ("part", pa.int32()),  # Counted from 1: the highest tells what holds.
            ("lane", pa.int32()),
            ("task", _COUNT),
            ("state", _TEXT),  # complete or sparse
            ("terminal", _COUNT),  # Null where it was not reached.
            ("told_terminal", _COUNT),  # The same, reached or not.
            ("written", RANGES),  # What this task has written.
            ("content", RANGES),  # All that is archived.
            ("lost", RANGES),
            ("gaps", RANGES),
            ("first_seen", MOMENT),
            ("last_entry", MOMENT),
            ("files", pa.list_(_TEXT)),  # In `events`, of this task.
        ]
    ),
    ("app", "session", "part"),
)

TABLES: dict[TableName, Table] = {table.name: table for table in (REPORTS, EVENTS, SESSIONS)}
