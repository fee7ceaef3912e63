"""From stored lines to rows.

Takes   lines of segments, and of each which indexes are wanted.
Gives   Arrow tables, sorted by the table's key.
Never   more Python objects at a time than a chunk of documents makes: what is done is packed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET

from tallypost_schema.documents import Batch, Event, ProgramCounts, Report

from .. import limits
from ..clock import DAY, moment_at
from ..errors import DataRefused
from ..segments.format import Line
from ..streams.ranges import Ranges
from ..streams.session import Part
from .columns import COUNTS, EVENTS, PARTITION, PROGRAM, PROGRAM_COUNTS, RANGES, REPORTS, SESSIONS, Table

_report = msgspec.json.Decoder(Report).decode
_batch = msgspec.json.Decoder(Batch).decode


class _Rows:
    """Rows of one table, gathered column by column."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._documents = 0
        self._batches: list[pa.RecordBatch] = []
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {field.name: [] for field in self._table.schema}

    def _document_done(self) -> None:
        self._documents += 1
        if self._documents >= limits.archive_chunk_documents:
            self._pack()

    def _array(self, field: pa.Field) -> pa.Array:
        """A column, of what was gathered for it."""
        return _array(self._columns[field.name], field.type)

    def _pack(self) -> None:
        try:
            arrays = [self._array(field) for field in self._table.schema]
            self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._table.schema))
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
        return _in_order(rows, self._table)


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
        except msgspec.MsgspecError as failure:
            raise DataRefused(f"its document cannot be read: {failure}") from failure
        columns = self._columns
        columns["day"].append(report.day)
        columns["app"].append(report.app)
        columns["id"].append(report.id)
        columns["received"].append(line.received)
        columns["sha256"].append(line.sha256)
        columns["x"].append(report.x)
        columns["previous"].append(report.previous)
        columns["config"].append(report.config)
        self._programs += report.programs
        self._ends.append(len(self._programs))
        self._document_done()

    def _array(self, field: pa.Field) -> pa.Array:
        if field.name != "programs":
            return super()._array(field)
        programs = self._programs
        columns = [pa.array([getattr(each, field.name) for each in programs], field.type) for field in PROGRAM]
        columns += [_counts([each.counters for each in programs]), _counts([each.stacks for each in programs])]
        nested = pa.StructArray.from_arrays(columns, fields=list(PROGRAM_COUNTS))
        return pa.ListArray.from_arrays(pa.array(self._ends, pa.int32()), nested)


class _Entries:
    """A column of maps, gathered as one run of keys, one of values, and where each map ends."""

    def __init__(self) -> None:
        self.keys, self.values, self.ends = list[str](), list[Any](), [0]

    def array(self, kind: pa.MapType) -> pa.Array:
        """The column."""
        keys, values = pa.array(self.keys, kind.key_type), pa.array(self.values, kind.item_type)
        return pa.MapArray.from_arrays(pa.array(self.ends, pa.int32()), keys, values)


def _counts(maps: list[dict[str, int]]) -> pa.Array:
    entries = _Entries()
    for each in maps:
        entries.keys += each.keys()
        entries.values += each.values()
        entries.ends.append(len(entries.keys))
    return entries.array(COUNTS)


class EventRows(_Rows):
    """A row an event."""

    def __init__(self) -> None:
        super().__init__(EVENTS)

    def _clear(self) -> None:
        super()._clear()
        self._maps = {name: _Entries() for name in ("words", "numbers", "flags")}
        self._ends: list[int] = []  # Of each batch: what all its events share is gathered once.

    def add(self, line: Line, first_seen: int, wanted: Ranges) -> None:
        """The wanted indexes of a batch, of a session that was first seen then (microseconds since 1970).

        Raises:
            DataRefused: the line holds no batch that has them.
        """
        try:
            batch = _batch(line.doc)
        except msgspec.MsgspecError as failure:
            raise DataRefused(f"its document cannot be read: {failure}") from failure
        columns, begin = self._columns, batch.first + batch.lost
        for low, high in wanted:
            if not begin <= low <= high <= batch.last:
                raise DataRefused(f"its document has no events {low} to {high}")
            columns["index"] += range(low, high + 1)
            self._add_events(batch.events[low - begin : high - begin + 1])
        columns["day"].append(_day_at(first_seen))
        columns["app"].append(batch.app)
        columns["session"].append(batch.session)
        columns["received"].append(line.received)
        for field in PROGRAM:
            columns[field.name].append(getattr(batch.program, field.name))
        self._ends.append(len(columns["index"]))
        self._document_done()

    def _add_events(self, events: list[Event]) -> None:
        columns = self._columns
        columns["name"] += [None if event.name is UNSET else event.name for event in events]
        columns["at"] += [None if event.at is UNSET else event.at for event in events]
        words, numbers, flags = self._maps["words"], self._maps["numbers"], self._maps["flags"]
        for event in events:
            if event.fields is not UNSET:
                for key, value in event.fields.items():
                    # A flag is a number to Python, and none to the archive.
                    entries = words if type(value) is str else flags if type(value) is bool else numbers
                    entries.keys.append(key)
                    entries.values.append(value)
            words.ends.append(len(words.keys))
            numbers.ends.append(len(numbers.keys))
            flags.ends.append(len(flags.keys))

    def _array(self, field: pa.Field) -> pa.Array:
        if field.name in self._maps:
            return self._maps[field.name].array(field.type)
        array = super()._array(field)
        if field.name in _OF_AN_EVENT:
            return array
        return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(pa.array(self._ends, pa.int32()), array))


_OF_AN_EVENT = ("index", "name", "at")


def session_rows(
    lane: int, number: int, parts: Mapping[tuple[str, str], Part], file_of: Callable[[datetime.date], str]
) -> pa.Table:
    """The index's rows of a task, by its lane and number; `file_of` tells where it wrote the events of a partition."""
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
            "files": [file_of(moment_at(part.first_seen).date())] if part.content else [],
        }
        for name, value in row.items():
            columns[name].append(value)
    arrays = [pa.array(columns[field.name], field.type) for field in SESSIONS.schema]
    return _in_order(pa.Table.from_arrays(arrays, schema=SESSIONS.schema), SESSIONS)


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


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A column; days and moments may be given as documents spell them."""
    if (pa.types.is_date(kind) or pa.types.is_timestamp(kind)) and any(isinstance(value, str) for value in values):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)


def _in_order(rows: pa.Table, table: Table) -> pa.Table:
    """Rows sorted by partition and key."""
    return rows.sort_by([(PARTITION, "ascending"), *((name, "ascending") for name in table.key)])


def _day_at(micros: int) -> int:
    return micros // DAY


assert RANGES.value_type.num_fields == 2
