"""Checking the archive: whether what was archived is there, each once, as index and coordinator tell.

Takes   the tables, the coordinator if there is one, and the names of the sealed segments.
Gives   what is damaged or missing, and files that no log entry names.
Never   writes; never takes for damage what an archivist is just doing: who seems wrong is looked at again.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from msgspec import Struct

from .. import limits
from ..clock import DAY, moment_at
from ..errors import ArchiveUnusable, CoordinatorUnusable
from ..settings import KeepDays
from ..streams.coordinator import Coordinator, Known
from ..streams.ranges import Ranges, count, difference, ranges, union
from .columns import PARTITION, TABLES, TableName
from .past import half_done
from .rows import ranges_in
from .tables import Stored, Tables

# The first four digits of a stream: the archive is read in slices by them.
_FIRSTS = 1 << 16
_Key = tuple[str, str]


class Fault(Struct, frozen=True, omit_defaults=True):
    """What is wrong, and with what: a file of a table, a stream, a segment, or the whole."""

    problem: str
    table: str | None = None
    file: str | None = None
    app: str | None = None
    stream: str | None = None


class ArchiveChecked(NamedTuple):
    """What was found."""

    files: dict[str, int]
    rows: dict[str, int]
    faults: list[Fault]
    more: int
    """Faults that are not told one by one."""
    half_done: int
    """Events of tasks that have not written their index, and that no coordinator knows: they are taken back, and
    archived anew from their segments."""
    strangers: list[str]


class _Indexed(NamedTuple):
    """A session's highest row of the index."""

    part: int
    content: Ranges


class _Wrong(NamedTuple):
    """What seems wrong with a stream."""

    table: TableName
    problem: str
    stray: int = 0
    """Events of it that neither index nor coordinator know."""


class ArchiveChecker:
    """Checks an archive, beside those who work on it."""

    def __init__(
        self,
        tables: Tables,
        *,
        coordinator: Coordinator | None,
        sealed: Callable[[], Collection[str]],
        keep_days: KeepDays = KeepDays(),  # noqa: B008  It cannot be changed.
        today: datetime.date = datetime.date.min,
        is_erased: Callable[[str], bool] = lambda stream: False,
        rows_max: int = limits.verify_rows_max,
    ) -> None:
        """`sealed` lists the segments; so many rows are held at a time. What is erased, or kept no
        longer, is on its way out, and not judged.
        """
        self._tables, self._coordinator, self._sealed, self._rows_max = tables, coordinator, sealed, rows_max
        self._is_erased, self._keep_days, self._today = is_erased, keep_days, today
        self._faults: list[Fault] = []
        self._more = self._half_done = 0
        self._unreadable: set[tuple[str, str]] = set()

    def check(self) -> ArchiveChecked:
        """Read everything."""
        files: dict[str, int] = {}
        rows: dict[str, int] = {}
        strangers: list[str] = []
        try:
            self._check_segments()
        except CoordinatorUnusable as failure:
            self._add(Fault(str(failure)))
            self._coordinator = None
        for name in TABLES:
            try:
                # Before the log: what is committed meanwhile is no stranger.
                there = list(self._tables.there(name))
                stored = self._check_files(name)
                strangers += self._strangers(name, there)
            except ArchiveUnusable as failure:
                self._add(Fault(str(failure), table=name))
                continue
            files[name], rows[name] = len(stored), sum(file.rows for file in stored)
        if len(rows) == len(TABLES):
            # Several columns of an index row are held as Python's objects.
            slices = min(_FIRSTS, -(-max(rows["reports"], rows["events"], 8 * rows["sessions"]) // self._rows_max))
            try:
                for number in range(slices):
                    self._check_slice(_Slice.of(number, slices))
            except (ArchiveUnusable, CoordinatorUnusable) as failure:
                self._add(Fault(str(failure)))
        return ArchiveChecked(files, rows, self._faults, self._more, self._half_done, strangers)

    # -- segments ---------------------------------------------------------------------------------------------------

    def _check_segments(self) -> None:
        if self._coordinator is None:
            return
        lacking = self._unsettled() - set(self._sealed())
        if lacking:
            # Whoever removes a segment has it settled before: what was removed meanwhile is settled or forgotten now.
            for name in sorted(self._unsettled() & lacking):
                self._add(Fault("missing: it is not archived", file=f"segments/{name}"))

    def _unsettled(self) -> set[str]:
        assert self._coordinator is not None
        return {name for name, settled in self._coordinator.segments().items() if not settled}

    # -- files ------------------------------------------------------------------------------------------------------

    def _check_files(self, name: TableName) -> list[Stored]:
        stored = self._tables.files(name)
        wrong = {file.path: problem for file in stored if (problem := self._problem_of(name, file)) is not None}
        if wrong:
            named = {file.path for file in self._tables.files(name)}
            for path, problem in wrong.items():
                self._unreadable.add((name, path))
                if path in named:  # Else it was replaced meanwhile.
                    self._add(Fault(problem, table=name, file=f"{name}/{path}"))
        return stored

    def _problem_of(self, name: TableName, stored: Stored) -> str | None:
        path = f"{name}/{stored.path}"
        try:
            size = self._tables.store.size(path)
            if size != stored.size:
                return f"{size} bytes, the log tells {stored.size}"
            data = pa.BufferReader(self._tables.store.get(path))
            rows = sum(batch.num_rows for batch in pq.ParquetFile(data, page_checksum_verification=True).iter_batches())
        except FileNotFoundError:
            return f"missing: {stored.rows} rows"
        except (pa.ArrowException, OSError) as failure:
            return f"cannot be read: {failure}"
        return None if rows == stored.rows else f"{rows} rows, the log tells {stored.rows}"

    def _strangers(self, name: TableName, there: list[str]) -> list[str]:
        named = {file.path for file in self._tables.files(name)}
        tasks = set() if self._coordinator is None else self._coordinator.tasks()
        # A task puts its files before it commits them.
        return [
            f"{name}/{path}"
            for path in there
            if path not in named and path.rpartition("/")[2].lstrip(".").partition(".")[0] not in tasks
        ]

    # -- rows -------------------------------------------------------------------------------------------------------

    def _check_slice(self, of: _Slice) -> None:
        for key in _twice(self._rows("reports", ["app", "id"], of.filter("id"))):
            self._add(Fault("its report is there more than once", "reports", None, *key))
        wrong = self._wrong(of)
        for _ in range(limits.verify_looks):
            if not wrong:
                return
            wrong = self._wrong(_These({stream for _, stream in wrong}))
        half_done = any(each.stray for each in wrong.values()) and self._has_half_done()
        for (app, stream), each in sorted(wrong.items()):
            if each.stray and half_done:
                self._half_done += each.stray
            else:
                self._add(Fault(each.problem, each.table, None, app, stream))

    def _has_half_done(self) -> bool:
        """Whether a task that is not done has written events, and nobody knows which: as in a copy of an instant."""
        known = self._coordinator
        lanes = range(max(limits.postgresql_lanes, 0 if known is None else known.lanes))
        return any(known is None or not known.knows(*each) for each in half_done(self._tables, lanes).items())

    def _wrong(self, of: _Slice | _These) -> dict[_Key, _Wrong]:
        """Which sessions and reports seem wrong, and how.

        What is read first can only lag behind what is read later: a task writes events, then the index, and is then
        settled. So events may be there that neither index nor coordinator know of yet; looking again tells.
        """
        known = {} if self._coordinator is None else self._coordinator.known(*of.bounds)
        known = {key: each for key, each in known.items() if not self._is_over(key[0], each.session.first_seen)}
        lacking = self._lacking(of)
        found = self._rows("sessions", ["app", "session", "part", "content"], of.filter("session"))
        indexed: dict[_Key, _Indexed] = {}
        wrong: dict[_Key, _Wrong] = {}
        for row in found.to_pylist():
            key, part = (row["app"], row["session"]), row["part"]
            if key in indexed and indexed[key].part == part:
                wrong[key] = _Wrong("sessions", f"its part {part} is there more than once")
            if key not in indexed or indexed[key].part < part:
                indexed[key] = _Indexed(part, ranges_in(row["content"]))
        events = self._rows("events", ["app", "session", "index"], of.filter("session"))
        events = events.sort_by([("app", "ascending"), ("session", "ascending"), ("index", "ascending")])
        for key in _twice(events):
            wrong[key] = _Wrong("events", "an event of it is there more than once")
        there = _ranges_by_session(events)
        for key in {*indexed, *there, *known}:
            problem = _problem_of(indexed.get(key), there.get(key, ()), known.get(key))
            if problem is not None:
                wrong.setdefault(key, problem)
        wrong |= dict.fromkeys(lacking, _Wrong("reports", "it is missing: the coordinator knows it to be archived"))
        return {key: problem for key, problem in wrong.items() if of.has(key[1]) and not self._is_erased(key[1])}

    def _lacking(self, of: _Slice | _These) -> set[_Key]:
        """Which reports the coordinator knows to be archived, and are not."""
        if self._coordinator is None:
            return set()
        # A report is kept by the day that was counted, which nobody but the table knows: it may be so much earlier.
        known = {
            key
            for key, last_entry in self._coordinator.archived_reports(*of.bounds).items()
            if not self._is_over(key[0], last_entry - limits.remembered_days * DAY)
        }
        there = self._rows("reports", ["app", "id"], of.filter("id"))
        return known.difference(zip(there["app"].to_pylist(), there["id"].to_pylist(), strict=True))

    def _rows(self, name: TableName, columns: list[str], condition: Any, looks: int = limits.verify_looks) -> pa.Table:
        if not self._tables.is_there(name):
            return pa.table({field: pa.array([], TABLES[name].schema.field(field).type) for field in columns})
        condition = condition & self._kept() if looks == limits.verify_looks else condition
        try:
            whole = self._tables.dataset(name)
            sound = [each for each in whole.get_fragments() if (name, each.path) not in self._unreadable]
            return ds.FileSystemDataset(sound, whole.schema, whole.format, whole.filesystem).to_table(
                columns=columns, filter=condition
            )
        except (pa.ArrowException, OSError) as failure:
            if looks == 1:
                raise ArchiveUnusable(name, failure) from failure
        return self._rows(name, columns, condition, looks - 1)  # A file of it was replaced meanwhile.

    def _is_over(self, app: str, first_seen: int) -> bool:
        return self._keep_days.is_over(app, moment_at(first_seen).date(), self._today)

    def _kept(self) -> Any:
        """What is true of a row that is kept."""
        apps = dict(self._keep_days.of)
        kept = ds.scalar(True)
        if self._keep_days.all:
            first = self._today - datetime.timedelta(days=self._keep_days.all)
            kept = (ds.field(PARTITION) >= first) | ds.field("app").isin(pa.array(sorted(apps), pa.string()))
        for app, days in apps.items():
            if days:
                first = self._today - datetime.timedelta(days=days)
                kept = kept & ((ds.field("app") != app) | (ds.field(PARTITION) >= first))
        return kept

    def _add(self, fault: Fault) -> None:
        if len(self._faults) < limits.faults_told_max:
            self._faults.append(fault)
        else:
            self._more += 1


class _Slice(NamedTuple):
    """The streams from one name on and below another."""

    low: str
    high: str

    @classmethod
    def of(cls, number: int, slices: int) -> _Slice:
        low, high = (_FIRSTS * each // slices for each in (number, number + 1))
        return cls(f"{low:04x}" if low else "", f"{high:04x}" if high < _FIRSTS else "~")

    @property
    def bounds(self) -> tuple[str, str]:
        return self

    def filter(self, column: str) -> Any:
        return (ds.field(column) >= self.low) & (ds.field(column) < self.high)

    def has(self, stream: str) -> bool:
        return self.low <= stream < self.high


class _These(NamedTuple):
    """Some streams."""

    streams: set[str]

    @property
    def bounds(self) -> tuple[str, str]:
        return min(self.streams), max(self.streams) + "~"

    def filter(self, column: str) -> Any:
        return ds.field(column).isin(sorted(self.streams))

    def has(self, stream: str) -> bool:
        return stream in self.streams


def _problem_of(indexed: _Indexed | None, there: Ranges, known: Known | None) -> _Wrong | None:
    """What is wrong with a session."""
    content = () if indexed is None else indexed.content
    lacking = difference(content, there)
    if lacking:
        return _Wrong("events", f"{count(lacking)} events of it are missing, from index {lacking[0][0]} on")
    begun = () if known is None or known.part is None else known.part.content
    beyond = difference(there, union(content, begun))
    if beyond:
        problem = f"{count(beyond)} events of it are not in its index, from index {beyond[0][0]} on"
        return _Wrong("events", problem, stray=count(beyond))
    if known is None or not known.session.part:
        return None
    if indexed is None or indexed.part < known.session.part:
        has = "nothing" if indexed is None else f"part {indexed.part}"
        return _Wrong("sessions", f"the coordinator knows part {known.session.part} of it, the index has {has}")
    if indexed.part == known.session.part and content != known.session.archived:
        return _Wrong("sessions", "its index tells other content than the coordinator")
    return None


def _steps(rows: pa.Table) -> tuple[Any, Any]:
    """Of sorted rows: whether each but the first is of the same stream as the one before; how far its number is."""
    names = rows.column_names
    columns = [rows.column(name).combine_chunks() for name in names]
    same = None
    for column in columns[:2]:
        equal = pc.equal(column[1:], column[:-1])
        same = equal if same is None else pc.and_(same, equal)
    step = pc.subtract(columns[2][1:], columns[2][:-1]) if len(columns) > 2 else None
    return same, step


def _twice(rows: pa.Table) -> list[_Key]:
    """The keys (app, stream, and index if there is one) that two rows have: their streams."""
    if rows.num_rows < 2:
        return []
    if "index" not in rows.column_names:
        rows = rows.sort_by([(name, "ascending") for name in rows.column_names])
    same, step = _steps(rows)
    twice = same if step is None else pc.and_(same, pc.equal(step, 0))
    found = rows.slice(1).filter(twice).select([0, 1]).slice(0, limits.faults_told_max)
    return [tuple(row.values()) for row in found.to_pylist()]


def _ranges_by_session(rows: pa.Table) -> dict[_Key, Ranges]:
    """Of sorted rows of events, which indexes each session has."""
    if not rows.num_rows:
        return {}
    same, step = _steps(rows)
    begins = pc.invert(pc.and_(same, pc.less_equal(step, 1)))
    edge = pa.array([True])
    firsts = rows.filter(pa.concat_arrays([edge, begins]))
    lasts = rows.column("index").filter(pa.concat_arrays([begins, edge]))
    found: dict[_Key, list[tuple[int, int]]] = {}
    for row, last in zip(firsts.to_pylist(), lasts.to_pylist(), strict=True):
        found.setdefault((row["app"], row["session"]), []).append((row["index"], last))
    return {key: ranges(pairs) for key, pairs in found.items()}
