"""Keeping the tables in order: what is kept no longer goes, and many small files of a day become few.

Takes   the tables, beside archivists that write; how long each application's rows are kept.
Gives   the same rows in fewer files; none that are over.
Never   commits once somebody else may do the same; never takes a file away before its place is durable and read back.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from .. import limits
from ..errors import ArchiveUnusable
from ..settings import KeepDays
from .columns import PARTITION, TABLES, TableName
from .tables import Stored, Tables

_OURS = re.compile(r"\.?[0-9a-f]{32}\.parquet(?:(?:\.\d+)*\.making)?", re.ASCII)


class Keeper:
    """Keeps three tables in order. Used by who holds the lease `scan`."""

    def __init__(
        self,
        tables: Tables,
        *,
        keep_days: KeepDays,
        now: Callable[[], datetime.datetime],
        renew: Callable[[], None],
        unfinished: Callable[[], set[str]],
        files_min: int = limits.compact_files_min,
    ) -> None:
        """`now` is the moment by which rows are over; `renew` raises if the lease was lost; `unfinished` tells the
        tasks whose files are not committed yet.
        """
        self._tables, self._keep_days, self._now, self._renew = tables, keep_days, now, renew
        self._unfinished, self._files_min = unfinished, files_min
        self._due: dict[tuple[TableName, str], datetime.date | None] = {}  # When the next row of a file is over.
        self._swept = False

    def tidy(self) -> None:
        """Do what is to be done now.

        Raises:
            LeaseLost: another does it.
            ArchiveUnusable: the store refuses; what is left is done the next time.
        """
        try:
            for name in TABLES:
                if self._tables.is_there(name):
                    if not self._swept:
                        self._sweep(name)
                    self._remove_old(name)
                    self._compact(name)
        except (pa.ArrowException, OSError) as failure:
            raise ArchiveUnusable("its tables", failure) from failure
        self._swept = True

    # -- what is over -----------------------------------------------------------------------------------------------

    def _remove_old(self, name: TableName) -> None:
        today = self._now().date()
        whole: list[Stored] = []
        partly: list[tuple[Stored, list[str]]] = []
        for stored in self._tables.files(name) if self._keep_days.any else ():
            apps = self._over(name, stored, today)
            if apps is None:
                whole.append(stored)
            elif apps:
                partly.append((stored, apps))
        if whole:
            self._tables.replace(name, whole, renew=self._renew, owner="keep")
        for stored, apps in partly:
            rows = self._tables.read(name, stored.path)
            kept = rows.filter(pc.invert(pc.is_in(rows.column("app"), value_set=pa.array(apps))))
            self._tables.replace(name, [stored], kept, _name_of(stored, *apps), renew=self._renew, owner="keep")

    def _over(self, name: TableName, stored: Stored, today: datetime.date) -> list[str] | None:
        """The applications whose rows in a file are over; None if all are."""
        due = self._due.get((name, stored.path), datetime.date.min)
        if due is None or due > today or not self._keep_days.may_be_over(stored.day, today):
            return []
        apps = pc.unique(self._tables.read(name, stored.path, ["app"]).column(0)).to_pylist()
        ends = {app: self._keep_days.over_on(app, stored.day) for app in apps}
        over = [app for app, end in ends.items() if end is not None and end <= today]
        if len(over) == len(apps):
            return None
        left = [end for end in ends.values() if end is not None and end > today]
        self._due[(name, stored.path)] = min(left) if left else None
        return over

    # -- many small files -------------------------------------------------------------------------------------------

    def _compact(self, name: TableName) -> None:
        # Tasks write to days of now; an older one gets only what comes late.
        before = self._now().date() - datetime.timedelta(days=1)
        unfinished = self._unfinished()  # Their files are found by the task's name, should it have to be taken back.
        small = [
            stored
            for stored in self._tables.files(name)
            if stored.day < before
            and stored.size < limits.compact_bytes_max // 2
            and PurePosixPath(stored.path).stem not in unfinished
        ]
        small.sort(key=lambda stored: (stored.day, stored.path))
        for _, of_day in groupby(small, key=lambda stored: stored.day):
            for sources in _together(list(of_day), self._files_min):
                self._merge(name, sources)

    def _merge(self, name: TableName, sources: list[Stored]) -> None:
        rows = pa.concat_tables([self._tables.read(name, stored.path) for stored in sources])
        if rows.num_rows != sum(stored.rows for stored in sources):
            raise ArchiveUnusable(name, RuntimeError(f"{sources[0].day} has not the rows that its log tells"))
        rows = rows.sort_by([(column, "ascending") for column in TABLES[name].key])
        target = _name_of(*sources)
        self._tables.replace(name, sources, rows, target, renew=self._renew, owner="compact", data_change=False)

    # -- what is left -----------------------------------------------------------------------------------------------

    def _sweep(self, name: TableName) -> None:
        """Remove files that no log entry names: of who was killed before a commit, or after one and before removal."""
        there = [path for path in self._tables.there(name) if _OURS.fullmatch(path.rpartition("/")[2])]
        # In this order: what was put and not committed is of an unfinished task, or it is committed by now.
        unfinished = self._unfinished()
        named = {stored.path for stored in self._tables.files(name)}
        left = [
            path
            for path in there
            if path not in named and path.rpartition("/")[2].lstrip(".").partition(".")[0] not in unfinished
        ]
        if left:
            self._renew()
            # Who sleeps with files that it has put to replace others must not wake up and commit them.
            self._tables.fence(name)
        for path in left:
            self._tables.store.remove(f"{name}/{path}")


def _together(files: list[Stored], files_min: int) -> Iterator[list[Stored]]:
    """Files that become one, as large as one is to be."""
    group: list[Stored] = []
    for stored in files:
        if group and (
            sum(each.size for each in group) + stored.size > limits.compact_bytes_max
            or sum(each.rows for each in group) + stored.rows > limits.compact_rows_max
        ):
            if len(group) >= files_min:
                yield group
            group = []
        group.append(stored)
    if len(group) >= files_min:
        yield group


def _name_of(*sources: Stored | str) -> str:
    """The path of what stands in the place of files. Done again after a crash, it gets the same again."""
    day = next(each.day for each in sources if isinstance(each, Stored))
    told = " ".join(each if isinstance(each, str) else each.path for each in sources)
    return f"{PARTITION}={day}/{hashlib.sha256(told.encode()).hexdigest()[:32]}.parquet"
