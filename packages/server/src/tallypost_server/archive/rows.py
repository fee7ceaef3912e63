"""From stored lines to rows.

Takes   lines of segments, and of each which indexes are wanted.
Gives   Arrow tables, sorted by the table's key.
Never   more Python objects at a time than a chunk of documents makes: what is done is packed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import UNSET

from tallypost_schema.documents import Batch, ProgramCounts, Report

from .. import limits
from ..clock import DAY, micros_of, moment_at
from ..errors import DataRefused
from ..segments.format import Line
from ..streams.ranges import Ranges
from ..streams.session import Part
from .columns import COUNTS, EVENTS, PROGRAM, PROGRAM_COUNTS, RANGES, REPORTS, SESSIONS, Table

_report = msgspec.json.Decoder(Report).decode
_batch = msgspec.json.Decoder(Batch).decode
_EPOCH_DAY = datetime.date(1970, 1, 1)


class _Rows:
    """Rows of one table, gathered column by column."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._documents = 0
        self._batches: list[pa.RecordBatch] = []
        self._columns: dict[str, list[Any]] = {}
        self._clear()

    def _clear(self) -> None:
        self._columns = {field.name: [] for field in self._table.schema}

    def _document_done(self) -> None:
        self._documents += 1
        if self._documents >= limits.archive_chunk_documents:
            self._pack()

    def _arrays(self) -> list[pa.Array]:
        return [pa.array(self._columns[field.name], field.type) for field in self._table.schema]

    def _pack(self) -> None:
        try:
            self._batches.append(pa.RecordBatch.from_arrays(self._arrays(), schema=self._table.schema))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as failure:
            raise DataRefused(str(failure)) from failure
        self._clear()
        self._documents = 0

    def table(self) -> pa.Table:
        """All rows, sorted by partition and key.

        Raises:
            DataRefused: a value does not fit its column.
        """
        if self._documents:
            self._pack()
        rows = pa.Table.from_batches(self._batches, self._table.schema)
        self._batches = []
        return rows.sort_by([("day", "ascending"), *((name, "ascending") for name in self._table.key)])


class ReportRows(_Rows):
    """A row a report."""

    def __init__(self) -> None:
        super().__init__(REPORTS)

    def _clear(self) -> None:
        super()._clear()
        self._programs: list[ProgramCounts] = []
        self._ends: list[int] = [0]

    def add(self, line: Line) -> None:
        """One report.

        Raises:
            DataRefused: the line holds none.
        """
        try:
            report = _report(line.doc)
            day, previous = _day(report.day), None if report.previous is None else _day(report.previous)
        except (msgspec.MsgspecError, ValueError) as failure:
            raise DataRefused(f"its document cannot be read: {failure}") from failure
        columns = self._columns
        columns["day"].append(day)
        columns["app"].append(report.app)
        columns["id"].append(report.id)
        columns["received"].append(micros_of(line.received))
        columns["sha256"].append(line.sha256)
        columns["x"].append(report.x)
        columns["previous"].append(previous)
        columns["config"].append(report.config)
        self._programs += report.programs
        self._ends.append(len(self._programs))
        self._document_done()

    def _arrays(self) -> list[pa.Array]:
        programs = self._programs
        columns = [pa.array([getattr(each, field.name) for each in programs], field.type) for field in PROGRAM]
        columns += [_counts([each.counters for each in programs]), _counts([each.stacks for each in programs])]
        nested = pa.StructArray.from_arrays(columns, fields=list(PROGRAM_COUNTS))
        simple = [
            pa.array(self._columns[field.name], field.type) for field in REPORTS.schema if field.name != "programs"
        ]
        return [*simple, pa.ListArray.from_arrays(pa.array(self._ends, pa.int32()), nested)]


def _counts(maps: list[dict[str, int]]) -> pa.Array:
    ends, keys, values = [0], list[str](), list[int]()
    for each in maps:
        keys += each.keys()
        values += each.values()
        ends.append(len(keys))
    offsets = pa.array(ends, pa.int32())
    return pa.MapArray.from_arrays(offsets, pa.array(keys, COUNTS.key_type), pa.array(values, COUNTS.item_type))


class EventRows(_Rows):
    """A row an event."""

    def __init__(self) -> None:
        super().__init__(EVENTS)

    def add(self, line: Line, first_seen: int, wanted: Ranges) -> None:
        """The wanted indexes of a batch, of a session that was first seen then (microseconds since 1970).

        Raises:
            DataRefused: the line holds no batch that has them.
        """
        try:
            batch = _batch(line.doc)
            begin = batch.first + batch.lost
            events = [(index, batch.events[index - begin]) for low, high in wanted for index in range(low, high + 1)]
        except (msgspec.MsgspecError, ValueError, IndexError) as failure:
            raise DataRefused(f"its document cannot be read: {failure}") from failure
        columns, number, program = self._columns, len(events), batch.program
        columns["day"] += [_day_at(first_seen)] * number
        columns["app"] += [batch.app] * number
        columns["session"] += [batch.session] * number
        columns["received"] += [micros_of(line.received)] * number
        for field in PROGRAM:
            columns[field.name] += [getattr(program, field.name)] * number
        for index, event in events:
            fields = {} if event.fields is UNSET else event.fields
            columns["index"].append(index)
            columns["name"].append(None if event.name is UNSET else event.name)
            columns["at"].append(None if event.at is UNSET else _micros_at(event.at))
            # A flag is a number to Python, and none to the archive.
            columns["words"].append([(key, value) for key, value in fields.items() if type(value) is str])
            columns["numbers"].append([(key, value) for key, value in fields.items() if type(value) in (int, float)])
            columns["flags"].append([(key, value) for key, value in fields.items() if type(value) is bool])
        self._document_done()


def session_rows(
    lane: int, number: int, parts: Mapping[tuple[str, str], Part], files: Mapping[datetime.date, str]
) -> pa.Table:
    """The index's rows of a task, by its lane and number, that wrote these files, by partition."""
    columns: dict[str, list[Any]] = {field.name: [] for field in SESSIONS.schema}
    for (app, session), part in sorted(parts.items()):
        day = _day_at(part.first_seen)
        row = {
            "day": day,
            "app": app,
            "session": session,
            "part": part.number,
            "lane": lane,
            "task": number,
            "state": part.state,
            "terminal": part.terminal,
            "told_terminal": part.told_terminal,
            "written": _pairs(part.content),
            "content": _pairs(part.total),
            "lost": _pairs(part.lost),
            "gaps": _pairs(part.gaps),
            "first_seen": part.first_seen,
            "last_entry": part.last_entry,
            "files": [files[moment_at(part.first_seen).date()]] if part.content else [],
        }
        for name, value in row.items():
            columns[name].append(value)
    arrays = [pa.array(columns[field.name], field.type) for field in SESSIONS.schema]
    rows = pa.Table.from_arrays(arrays, schema=SESSIONS.schema)
    return rows.sort_by([("day", "ascending"), *((name, "ascending") for name in SESSIONS.key)])


def by_partition(rows: pa.Table) -> dict[datetime.date, pa.Table]:
    """Rows that are sorted by partition, apart, without the partition's column."""
    found: dict[datetime.date, pa.Table] = {}
    begin = 0
    for part in rows.column("day").value_counts().to_pylist() if rows.num_rows else ():
        found[part["values"]] = rows.slice(begin, part["counts"]).drop_columns(["day"])
        begin += part["counts"]
    return found


def ranges_in(value: Iterable[Mapping[str, int]]) -> Ranges:
    """The ranges that a column tells."""
    return tuple((pair["first"], pair["last"]) for pair in value)


def _pairs(of: Ranges) -> list[dict[str, int]]:
    return [{"first": first, "last": last} for first, last in of]


def _day(text: str) -> int:
    return (datetime.date.fromisoformat(text) - _EPOCH_DAY).days


def _day_at(micros: int) -> int:
    return micros // DAY


def _micros_at(text: str) -> int:
    fraction = text[20:-1]
    return micros_of(text[:19] + ".000Z") + (int(fraction.ljust(6, "0")) if fraction else 0)


assert RANGES.value_type.num_fields == 2
