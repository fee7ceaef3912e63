"""Reading the archive beside those who write it.

Takes   the name of a stream.
Gives   what the archive tells of it.
Never   writes; never reads a file whose statistics say that the stream is not in it.
"""

from __future__ import annotations

import contextlib
import datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from .. import limits
from ..clock import micros
from ..segments.told import Told
from .columns import TableName
from .rows import ranges_in
from .tables import Tables


class ArchiveReader:
    """Reads the three tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def tell(self, stream: str, told: Told) -> None:
        """Add what the archive has of a stream."""
        for row in self._rows("reports", "id", stream):
            told.add_report(document_of(row))
        parts = sorted(self._rows("sessions", "session", stream), key=lambda row: row["part"])
        if not parts:
            return
        days = sorted({part["day"] for part in parts})
        for row in self._rows("events", "session", stream, days):
            told.add_event(row["index"], event_of(row))
        last = parts[-1]
        for first, high in ranges_in(last["lost"]):
            told.add_range(first, high, lost=high - first + 1, terminal=None)
        for first, high in ranges_in(last["gaps"]):
            told.add_range(first, high, lost=0, terminal=None)
        if last["terminal"] is not None:
            told.add_range(last["terminal"], last["terminal"], lost=0, terminal=last["terminal"])

    def _rows(
        self, name: TableName, column: str, value: str, days: list[datetime.date] | None = None
    ) -> list[dict[str, Any]]:
        if not self._tables.is_there(name):
            return []
        found = ds.field(column) == value
        if days is not None:  # The index tells in which partitions its rows lie.
            found = found & ds.field("day").isin(days)
        rows: list[dict[str, Any]]
        for left in reversed(range(limits.verify_looks)):
            with contextlib.suppress(*([OSError, pa.ArrowException] if left else [])):
                rows = self._tables.dataset(name).to_table(filter=found).to_pylist()
                break  # Else a file of it was replaced meanwhile.
        return rows


def document_of(row: dict[str, Any]) -> dict[str, Any]:
    """The report that a row of `reports` was made of."""
    return {
        "v": 1,
        "kind": "report",
        "x": row["x"],
        "id": row["id"],
        "app": row["app"],
        "day": str(row["day"]),
        "previous": None if row["previous"] is None else str(row["previous"]),
        "config": row["config"],
        "programs": [
            {**program, "counters": dict(program["counters"]), "stacks": dict(program["stacks"])}
            for program in row["programs"]
        ],
    }


def event_of(row: dict[str, Any]) -> dict[str, Any]:
    """The event that a row of `events` was made of."""
    if row["name"] is None:
        return {}
    numbers = {key: int(value) if value.is_integer() else value for key, value in row["numbers"]}
    return {
        "name": row["name"],
        "at": _at(row["at"]),
        "fields": {**dict(row["words"]), **numbers, **dict(row["flags"])},
    }


def _at(moment: datetime.datetime) -> str:
    text = moment.astimezone(datetime.timezone.utc).isoformat(
        timespec="microseconds" if micros(moment) % 1000 else "milliseconds"
    )
    return text.replace("+00:00", "Z")
