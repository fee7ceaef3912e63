"""Archive tables in memory, for tests of what is built on them.

Takes   what `archive.tables.Tables` takes.
Gives   `MemoryTables`: the same answers, and the same places of danger, without files.
Never   differs from the real ones where nothing was scripted: one suite of checks holds for both.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from .archive.columns import TABLES, TableName
from .archive.tables import Stored, Tables, path_of
from .archive.undone import Damage
from .errors import ArchiveUnusable, DataRefused, MarkTaken
from .streams.task import Mark


class MemoryTables(Tables):
    """The three tables of an archive, in memory. Several archivists may share one."""

    def __init__(self, point: Callable[[Any], None] = lambda name: None) -> None:
        """`point` is told each place of danger that is passed."""
        self.point = point
        self._marks: dict[tuple[TableName, int], Mark] = {}
        self._files: dict[TableName, dict[str, pa.Table]] = {name: {} for name in TABLES}
        self.failures: list[Exception] = []
        """Raised one after the other, by the next writes."""
        self.refuses: Callable[[TableName, pa.Table], bool] = lambda name, rows: False
        """Which rows are poison."""

    def belongs_to(self, node: str) -> bool:
        """It belongs to whoever has it."""
        return True

    def is_there(self, name: TableName) -> bool:
        """Whether anything was written."""
        return bool(self._files[name])

    def mark(self, name: TableName, lane: int) -> Mark | None:
        """The mark of the last task of a lane that wrote."""
        return self._marks.get((name, lane))

    def marks(self, name: TableName, lanes: Iterable[int]) -> dict[int, Mark]:
        """The marks of those of some lanes that ever wrote."""
        return {lane: self._marks[(name, lane)] for lane in lanes if (name, lane) in self._marks}

    def files(self, name: TableName) -> list[Stored]:
        """The parts of which the table consists."""
        return [
            Stored(path, rows.nbytes, rows.num_rows, datetime.date.fromisoformat(path[4:14]))
            for path, rows in self._files[name].items()
        ]

    def read(self, name: TableName, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A part's rows."""
        rows = self._files[name][path]
        return rows if columns is None else rows.select(list(columns))

    def rows(self, name: TableName) -> list[dict[str, Any]]:
        """All rows."""
        found: list[dict[str, Any]] = []
        for path, rows in self._files[name].items():
            day = datetime.date.fromisoformat(path[4:14])
            found += [{"day": day, **row} for row in rows.to_pylist()]
        return found

    def has_written(self, name: TableName, lane: int, mark: Mark) -> bool:
        """Whether a task has its rows in the table."""
        return self._told(name, lane, self._marks.get((name, lane)), mark)

    def write(
        self, name: TableName, lane: int, mark: Mark, task: str, rows: Mapping[datetime.date, pa.Table], renew: Any
    ) -> None:
        """A task's rows, once."""
        seen = self._marks.get((name, lane))
        if self._told(name, lane, seen, mark):
            return
        if self.failures:
            raise self.failures.pop(0)
        if any(self.refuses(name, part) for part in rows.values()):
            raise DataRefused("poison")
        self.point("before_table_commit")
        renew()
        self.point("at_table_commit")
        # As the library does it: who looked before another committed for the lane is refused, and looks again.
        if self._marks.get((name, lane)) != seen:
            if self._told(name, lane, self._marks.get((name, lane)), mark):
                return
            raise ArchiveUnusable("memory", RuntimeError("another has committed"))
        self._marks[(name, lane)] = mark
        for day, part in rows.items():
            self._files[name][path_of(day, task)] = part
        self.point("after_table_commit")
        self.point("after_table_durable")

    def spend(self, name: TableName, lane: int, mark: Mark) -> None:
        """Let no task write with this number any more."""
        found = self._marks.get((name, lane))
        if found == mark.spent:
            return
        if self._told(name, lane, found, mark):
            raise MarkTaken(name, lane, found=mark, given=mark.spent)
        self._marks[(name, lane)] = mark.spent

    def replace(
        self,
        name: TableName,
        sources: Sequence[Stored],
        rows: pa.Table | None = None,
        target: str = "",
        *,
        renew: Any,
        owner: str,
        data_change: bool = True,
    ) -> None:
        """Put `rows` in the place of parts; without rows they are only removed."""
        renew()
        for source in sources:
            del self._files[name][source.path]
        if rows is not None and rows.num_rows:
            self._files[name][target] = rows

    def fence(self, name: TableName, lanes: Iterable[int] = ()) -> None:
        """Nobody keeps a handle here."""

    def there(self, name: TableName) -> Iterator[str]:
        """All parts."""
        yield from self._files[name]

    def damages(self, name: TableName) -> list[Damage]:
        """Nothing is torn here."""
        return []

    def settle(self, name: TableName) -> None:
        """All is durable here."""

    def undo(self, name: TableName) -> list[Damage]:
        """Nothing is torn here."""
        return []

    def checkpoint(self, name: TableName, *, at_once: bool = False) -> bool:
        """There is no log."""
        return False
