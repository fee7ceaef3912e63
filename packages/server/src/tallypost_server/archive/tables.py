"""The Delta tables: rows are written exactly once, and are durable when that is said.

Takes   rows by partition, and the mark of the task that writes them.
Gives   the names of the files, once they are committed, durable and read back.
Never   commits on another handle than the one that was looked at; never lets the library write, check point or clean
        up by itself, since it does not sync.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from .. import limits
from ..clock import Clock, stamp
from ..errors import ArchiveUnusable, DataRefused, MarkTaken, NumberSpent
from ..streams.task import Mark
from .columns import PARTITION, TABLES, Table, TableName
from .store import ObjectStore
from .undone import ACTIONS, LAST_CHECKPOINT, LOG, SETTLED, Damage, checkpoint_of, damages, settled_version, version_of

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_CONFIGURATION = {
    # Ours come at a moment of our own, and are synced before anything older goes.
    "delta.checkpointInterval": str(2**31 - 1),
    "delta.enableExpiredLogCleanup": "false",
}
# Where in the archive that lies which was undone; a person may look at it, and remove it.
UNDONE = "undone"
# The object that names the data folder whose archive this is.
OWNER = "node"


class Stored(NamedTuple):
    """A file of a table, as its log tells."""

    path: str
    size: int
    rows: int
    day: datetime.date


class Tables:
    """The three tables of an archive."""

    def __init__(self, store: ObjectStore, *, clock: Clock, point: Any) -> None:
        """`point` is told each place of danger that is passed."""
        self.store, self._clock, self._point = store, clock, point
        self._durable: dict[TableName, int] = {}  # The last version that is known to be.

    def handle(self, name: TableName) -> DeltaTable:
        """The table as it is now; a table that is not there is made.

        Raises:
            ArchiveUnusable: the store refuses, or what lies there is no table of ours.
        """
        try:
            try:
                return DeltaTable(self._address(name), storage_options=self.store.options)
            except TableNotFoundError:
                DeltaTable.create(
                    self._address(name),
                    schema=TABLES[name].schema,
                    mode="ignore",
                    partition_by=[PARTITION],
                    name=name,
                    configuration=_CONFIGURATION,
                    storage_options=self.store.options,
                    post_commithook_properties=_NO_HOOKS,
                )
                handle = DeltaTable(self._address(name), storage_options=self.store.options)
                self._settle(name, handle)
                return handle
        except (DeltaError, OSError) as failure:
            raise ArchiveUnusable(self._address(name), failure) from failure

    def belongs_to(self, node: str) -> bool:
        """Whether this is the archive of a node's data folder; the first one that asks has it from then on.

        Raises:
            ArchiveUnusable: the store refuses.
        """
        try:
            try:
                of = self.store.get(OWNER)
            except FileNotFoundError:
                self.store.put(OWNER, node.encode("ascii") + b"\n")
                of = self.store.get(OWNER)  # Of two who ask at once, one is told so.
        except OSError as failure:
            raise ArchiveUnusable(self.store.address, failure) from failure
        return of.strip() == node.encode("ascii")

    def is_there(self, name: TableName) -> bool:
        """Whether anything was ever archived.

        Raises:
            ArchiveUnusable: the store refuses.
        """
        with self._refusals(name):
            return bool(self.store.names(f"{name}/{LOG}"))

    def damages(self, name: TableName) -> list[Damage]:
        """What a power cut left in the table's log that does not hold what it tells.

        Raises:
            ArchiveDamaged: what was told to be durable is gone.
            ArchiveUnusable: the store refuses.
        """
        with self._refusals(name):
            return damages(self.store, name) if self.store.may_tear else []

    def undo(self, name: TableName) -> list[Damage]:
        """Move such aside, to ``undone/<moment>/<table>/``; nobody may write meanwhile. What that was."""
        with self._refusals(name):
            found = self.damages(name)
            aside = f"{UNDONE}/{stamp(self._clock.now()).replace(':', '')}/{name}"
            for damage in found:
                path = f"{name}/{LOG}/{damage.name}"
                self.store.put(f"{aside}/{damage.name}", self.store.get(path))
                self._point("before_undo")
                self.store.remove(path)
        return found

    def settle(self, name: TableName) -> None:
        """Return once all that is in the table is durable, also what was left by one that was killed."""
        with self._refusals(name):
            if self.is_there(name):
                self._settle(name, self.handle(name))

    def mark(self, name: TableName, lane: int) -> Mark | None:
        """The mark of the last task of a lane that wrote.

        Raises:
            ArchiveUnusable: the store refuses.
        """
        return self.marks(name, [lane]).get(lane)

    def marks(self, name: TableName, lanes: Iterable[int]) -> dict[int, Mark]:
        """The marks of those of some lanes that ever wrote; raises as `mark`."""
        with self._refusals(name):
            if not self.is_there(name):
                return {}
            handle = self.handle(name)
            return {lane: mark for lane in lanes if (mark := _mark(handle, lane)) is not None}

    def files(self, name: TableName) -> list[Stored]:
        """The files of which the table consists.

        Raises:
            ArchiveUnusable: the store refuses.
        """
        if not self.is_there(name):
            return []
        with self._refusals(name):
            actions = pa.table(self.handle(name).get_add_actions())
        days = [partition[PARTITION] for partition in actions.column("partition").to_pylist()]
        return [
            Stored(path, size, rows or 0, day)
            for path, size, rows, day in zip(
                actions.column("path").to_pylist(),
                actions.column("size_bytes").to_pylist(),
                actions.column("num_records").to_pylist(),
                days,
                strict=True,
            )
        ]

    def has_written(self, name: TableName, lane: int, mark: Mark) -> bool:
        """Whether a task has its rows in the table; they are durable then.

        Raises:
            MarkTaken: another task has written with this number.
            NumberSpent: the task is to be split, not written.
            ArchiveUnusable: the store refuses.
        """
        with self._refusals(name):
            handle = self.handle(name)
            if not self._has(name, handle, lane, mark):
                return False
            self._settle(name, handle)
            return True

    def write(
        self, name: TableName, lane: int, mark: Mark, task: str, rows: Mapping[datetime.date, pa.Table], renew: Any
    ) -> None:
        """Return once a task's rows are in the table, durably, and were read back; a task that wrote before adds none.

        `renew` is called before the commit, and raises if the lane is no longer ours.

        Raises:
            MarkTaken: another task has written with this number.
            NumberSpent: the task is to be split, not written.
            DataRefused: the rows cannot be written.
            ArchiveUnusable: the store refuses.
        """
        files = {day: path_of(day, task) for day in rows}
        handle = self.handle(name)
        if self._has(name, handle, lane, mark):
            self._settle(name, handle)
            return
        table = TABLES[name]
        try:
            actions = [self._put(name, table, day, files[day], part) for day, part in rows.items()]
            renew()
            self._point("before_table_commit")
            while True:
                try:
                    _commit(handle, table, actions, lane, mark)
                    break
                except CommitFailedError as failure:
                    # Another has committed meanwhile: what we know of the lane may be no longer so.
                    handle = self.handle(name)
                    if self._has(name, handle, lane, mark):
                        break
                    if "oncurrent" not in str(failure):
                        raise
                    renew()
            self._point("after_table_commit")
            handle = self.handle(name)
            self._settle(name, handle)
            for day, part in rows.items():
                self._read_back(name, table, files[day], part)
        except (DeltaError, OSError) as failure:
            raise ArchiveUnusable(self._address(name), failure) from failure
        self._point("after_table_durable")

    def spend(self, name: TableName, lane: int, mark: Mark) -> None:
        """Let no task write with this number any more, whoever holds its rows and sleeps.

        Raises:
            MarkTaken: a task has written with it.
            ArchiveUnusable: the store refuses.
        """
        try:
            handle = self.handle(name)
            if _mark(handle, lane) == mark.spent:
                self._settle(name, handle)
                return
            if self._has(name, handle, lane, mark):
                raise MarkTaken(name, lane, found=mark, given=mark.spent)
            _commit(handle, TABLES[name], [], lane, mark.spent)
            self._settle(name, self.handle(name))
        except (DeltaError, OSError) as failure:
            raise ArchiveUnusable(self._address(name), failure) from failure

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
        """Put `rows` in the place of files of one day, which are then removed; without rows they are only removed.

        `owner` names who does it. `renew` raises if another may do the same by now. Without `data_change` the rows are
        those of the files.
        """
        table = TABLES[name]
        try:
            handle = self.handle(name)
            # After the handle: who takes over fences, so that what is committed on this one is refused.
            renew()
            actions: list[AddAction | RemoveAction] = [
                RemoveAction(
                    path=source.path,
                    deletion_timestamp=int(self._clock.now().timestamp() * 1000),
                    data_change=data_change,
                    partition_values={PARTITION: str(source.day)},
                    size=source.size,
                )
                for source in sources
            ]
            if rows is not None and rows.num_rows:
                actions.append(self._put(name, table, sources[0].day, target, rows, data_change=data_change))
            self._point("before_replace_commit")
            renew()
            self._commit_rewrite(name, handle, actions, owner)
            self._point("after_replace_commit")
            self._settle(name, self.handle(name))
            if rows is not None and rows.num_rows:
                self._read_back(name, table, target, rows)
            for source in sources:
                self.store.remove(f"{name}/{source.path}")
        except (DeltaError, OSError) as failure:
            raise ArchiveUnusable(self._address(name), failure) from failure

    def fence(self, name: TableName, lanes: Iterable[int] = ()) -> None:
        """Let nobody commit any more who opened the table before: who replaces files, or writes for one of these lanes.

        Raises:
            ArchiveUnusable: the store refuses.
        """
        try:
            handle = self.handle(name)
            self._commit_rewrite(name, handle, [], "fence", [(lane, _mark(handle, lane) or 0) for lane in lanes])
            self._settle(name, self.handle(name))
        except (DeltaError, OSError) as failure:
            raise ArchiveUnusable(self._address(name), failure) from failure

    def _commit_rewrite(
        self,
        name: TableName,
        handle: DeltaTable,
        actions: list[AddAction | RemoveAction],
        owner: str,
        marks: Sequence[tuple[int, int]] = (),
    ) -> None:
        transactions = [
            Transaction("rewrite", (handle.transaction_version("rewrite") or 0) + 1),
            *(Transaction(f"lane-{lane}", int(mark)) for lane, mark in marks),
        ]
        handle.create_write_transaction(
            actions,
            "append",
            TABLES[name].schema,
            [PARTITION],
            commit_properties=CommitProperties(
                {"by": owner, ACTIONS: str(1 + len(actions) + len(transactions))},
                limits.commit_retries_max,
                transactions,
            ),
            post_commithook_properties=_NO_HOOKS,
        )

    def there(self, name: TableName) -> Iterator[str]:
        """All that lies in a table's folder beside its log, half made files too."""
        days = {f"{PARTITION}={file.day}" for file in self.files(name)}
        for folder in sorted({*days, *self.store.names(name)} - {LOG, SETTLED}):
            if not folder.startswith(f"{PARTITION}="):
                yield folder
                continue
            for file in self.store.names(f"{name}/{folder}"):
                yield f"{folder}/{file}"

    def checkpoint(self, name: TableName, *, at_once: bool = False) -> bool:
        """Let the table's log begin anew, if enough was committed or it is to be `at_once`; whether it was."""
        if not self.is_there(name):
            return False
        try:
            entries = [entry for entry in self.store.names(f"{name}/{LOG}") if version_of(entry) >= 0]
            if len(entries) < limits.checkpoint_commits and not at_once:
                return False
            handle = self.handle(name)
            self._settle(name, handle)
            handle.create_checkpoint()
            made = [entry for entry in self.store.names(f"{name}/{LOG}") if checkpoint_of(entry) == handle.version()]
            self.store.make_durable([f"{name}/{LOG}/{entry}" for entry in (*made, LAST_CHECKPOINT)])
            if self.handle(name).version() < handle.version():
                raise ArchiveUnusable(self._address(name), RuntimeError("it cannot be read from its checkpoint"))
            for entry in entries:
                if version_of(entry) < handle.version():
                    self.store.remove(f"{name}/{LOG}/{entry}")
            for entry in self.store.names(f"{name}/{LOG}"):
                if 0 <= checkpoint_of(entry) < handle.version():
                    self.store.remove(f"{name}/{LOG}/{entry}")
        except (DeltaError, OSError) as failure:
            raise ArchiveUnusable(self._address(name), failure) from failure
        return True

    def read(self, name: TableName, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A file's rows."""
        data = pa.BufferReader(self.store.get(f"{name}/{path}"))
        return pq.ParquetFile(data).read(None if columns is None else list(columns))

    def dataset(self, name: TableName) -> Any:
        """The table as a dataset of Arrow's, which reads only files and row groups that may hold what is asked for."""
        return self.handle(name).to_pyarrow_dataset()

    def _put(
        self,
        name: TableName,
        table: Table,
        day: datetime.date,
        path: str,
        rows: pa.Table,
        *,
        data_change: bool = True,
    ) -> AddAction:
        sink = pa.BufferOutputStream()
        try:
            pq.write_table(
                rows,
                sink,
                compression="zstd",
                row_group_size=limits.archive_group_rows,
                write_page_index=True,
                write_page_checksum=True,
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as failure:
            raise DataRefused(str(failure)) from failure
        data = sink.getvalue().to_pybytes()
        self.store.put(f"{name}/{path}", data)
        return AddAction(
            path=path,
            size=len(data),
            partition_values={PARTITION: str(day)},
            modification_time=int(self._clock.now().timestamp() * 1000),
            data_change=data_change,
            stats=_stats(rows, table),
        )

    def _read_back(self, name: TableName, table: Table, path: str, rows: pa.Table) -> None:
        keys = list(table.key)
        if not self.read(name, path, keys).equals(rows.select(keys)):
            raise OSError(f"{name}/{path} does not hold what was written")

    def _has(self, name: TableName, handle: DeltaTable, lane: int, mark: Mark) -> bool:
        """Whether the task of this mark has written."""
        return self._told(name, lane, _mark(handle, lane), mark)

    @staticmethod
    def _told(name: TableName, lane: int, found: Mark | None, mark: Mark) -> bool:
        """What a lane's mark that was found in a table tells of the task with another mark."""
        if found is None or found.number < mark.number:
            return False
        if found == mark.spent:
            raise NumberSpent(name, lane, mark.number)
        if found != mark:
            raise MarkTaken(name, lane, found=found, given=mark)
        return True

    def _settle(self, name: TableName, handle: DeltaTable) -> None:
        """Return once all that the handle knows of the table's log is durable."""
        if name not in self._durable:
            self._durable[name] = settled_version(self.store, name)
        known, version = self._durable[name], handle.version()
        if version > known:
            entries = self.store.names(f"{name}/{LOG}")
            new = [entry for entry in entries if known < version_of(entry) <= version]
            self.store.make_durable([f"{name}/{LOG}/{entry}" for entry in new])
            if self.store.may_tear:
                # What is told to be done after this is never undone, whatever befalls it.
                self.store.put(f"{name}/{SETTLED}", str(version).encode())
            self._durable[name] = version

    @contextlib.contextmanager
    def _refusals(self, name: TableName) -> Iterator[None]:
        """Whatever the store or the library refuses is told as one thing."""
        try:
            yield
        except (DeltaError, OSError) as failure:
            raise ArchiveUnusable(self._address(name), failure) from failure

    def _address(self, name: TableName) -> str:
        return f"{self.store.address.rstrip('/')}/{name}"


def path_of(day: datetime.date, task: str) -> str:
    """Where in a table the rows lie that a task has written of a partition."""
    return f"{PARTITION}={day}/{task}.parquet"


def _commit(handle: DeltaTable, table: Table, actions: Sequence[AddAction], lane: int, mark: Mark) -> None:
    handle.create_write_transaction(
        list(actions),
        "append",
        table.schema,
        [PARTITION],
        commit_properties=CommitProperties(
            {ACTIONS: str(len(actions) + 2)},
            # Others may have committed for other lanes since; for this lane the library refuses then.
            max_commit_retries=limits.commit_retries_max,
            app_transactions=[Transaction(f"lane-{lane}", int(mark))],
        ),
        post_commithook_properties=_NO_HOOKS,
    )


def _mark(handle: DeltaTable, lane: int) -> Mark | None:
    version = handle.transaction_version(f"lane-{lane}")
    return None if version is None else Mark(version)


def _stats(rows: pa.Table, table: Table) -> str:
    """What engines look at before they open a file: rows are sorted by the key's first columns."""
    first, last = {}, {}
    for column in table.key[:2]:
        values = pc.min_max(rows.column(column)).as_py()
        first[column], last[column] = values["min"], values["max"]
    return json.dumps({"numRecords": rows.num_rows, "minValues": first, "maxValues": last, "nullCount": {}})
