"""Erasing from the archive: files that hold rows of a stream are written anew without them.

Takes   the tables, while no archivist works on them.
Gives   how many rows went, once neither a file nor a log entry names the stream.
Never   leaves an entry of the log whose statistics name it: the log begins anew behind the erasure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ..erased import names_stream
from ..errors import ArchiveUnusable
from .columns import PARTITION, TABLES, TableName
from .tables import UNDONE, Stored, Tables
from .undone import LOG

# The column that has the stream's name.
_NAMED: dict[TableName, str] = {"reports": "id", "events": "session", "sessions": "session"}


class ArchiveEraser:
    """Erases from the three tables."""

    def __init__(
        self, tables: Tables, *, lanes: Iterable[int], go_on: Callable[[], None], point: Callable[[Any], None]
    ) -> None:
        """`go_on` is called between two steps, and raises if others may work on the tables meanwhile."""
        self._tables, self._lanes, self._go_on, self._point = tables, list(lanes), go_on, point

    def erase(self, stream: str) -> dict[str, int]:
        """Return once nothing of the archive names a stream: how many rows went of each table.

        Raises:
            ArchiveUnusable: the store refuses. What is left is erased when this is called again.
        """
        gone: dict[str, int] = dict.fromkeys(TABLES, 0)
        for name in TABLES:
            if not self._tables.is_there(name):
                continue
            try:
                # Who sleeps with rows of the stream in hand must not wake up and commit them.
                self._tables.fence(name, self._lanes)
                for stored in self._holding(name, stream):
                    self._go_on()
                    gone[name] += self._rewrite(name, stored, stream)
                    self._point("after_replace")
                self._remove_left(name, stream)
                if self._log_names(name, stream):
                    self._tables.checkpoint(name, at_once=True)
                self._remove_undone(name, stream)
            except (pa.ArrowException, OSError) as failure:
                raise ArchiveUnusable(name, failure) from failure
        return gone

    def erase_marked(self, is_marked: Callable[[str], bool]) -> int:
        """Erase each stream that is marked and has rows all the same, as in tables from a backup; how many rows went.

        Raises:
            ArchiveUnusable: the store refuses.
        """
        gone = 0
        for stream in sorted(self._streams(is_marked)):
            gone += sum(self.erase(stream).values())
        return gone

    def _streams(self, is_marked: Callable[[str], bool]) -> set[str]:
        found: set[str] = set()
        for name in TABLES:
            for stored in self._tables.files(name):
                self._go_on()
                try:
                    column = self._tables.read(name, stored.path, [_NAMED[name]]).column(0)
                except (pa.ArrowException, OSError) as failure:
                    raise ArchiveUnusable(name, failure) from failure
                found.update(stream for stream in pc.unique(column).to_pylist() if is_marked(stream))
        return found

    def _holding(self, name: TableName, stream: str) -> list[Stored]:
        found = ds.field(_NAMED[name]) == stream
        paths = {each.path for each in self._tables.dataset(name).get_fragments(found) if each.count_rows(filter=found)}
        return [stored for stored in self._tables.files(name) if stored.path in paths]

    def _rewrite(self, name: TableName, stored: Stored, stream: str) -> int:
        rows = self._tables.read(name, stored.path)
        kept = rows.filter(pc.not_equal(rows.column(_NAMED[name]), stream))
        # Done again after a crash, it gets the same name again.
        stem = hashlib.sha256(f"{stored.path} {stream}".encode()).hexdigest()[:32]
        target = f"{PARTITION}={stored.day}/{stem}.parquet"
        self._tables.replace(name, [stored], kept, target, renew=self._go_on, owner="erase")
        return int(rows.num_rows - kept.num_rows)

    def _remove_left(self, name: TableName, stream: str) -> None:
        """Files of nobody: put by an archivist that was killed, or replaced by an erasure that was."""
        named = {stored.path for stored in self._tables.files(name)}
        for path in self._tables.there(name):
            if path in named or not path.startswith(f"{PARTITION}="):
                continue
            if path.endswith(".parquet") and "/." not in path and not self._has(name, path, stream):
                continue
            self._go_on()
            self._tables.store.remove(f"{name}/{path}")

    def _remove_undone(self, name: TableName, stream: str) -> None:
        """Log entries that a power cut tore: nobody needs them, and their statistics may name a stream."""
        store = self._tables.store
        for moment in store.names(UNDONE):
            folder = f"{UNDONE}/{moment}/{name}"
            for entry in store.names(folder):
                if entry.endswith(".parquet") or names_stream(store.get(f"{folder}/{entry}"), stream):
                    store.remove(f"{folder}/{entry}")

    def _has(self, name: TableName, path: str, stream: str) -> bool:
        try:
            column = self._tables.read(name, path, [_NAMED[name]]).column(0)
        except FileNotFoundError:
            return False
        except (pa.ArrowException, OSError, KeyError):
            return True  # Nobody can tell, and nobody needs it.
        return bool(pc.any(pc.equal(column, stream)).as_py())

    def _log_names(self, name: TableName, stream: str) -> bool:
        found = False
        for entry in self._tables.store.names(f"{name}/{LOG}"):
            path = f"{name}/{LOG}/{entry}"
            if entry.endswith(".parquet"):
                found = found or stream in str(self._tables.read(name, f"{LOG}/{entry}").to_pylist())
            elif names_stream(self._tables.store.get(path), stream):
                if entry.endswith(".tmp"):  # Left by a commit that was killed.
                    self._tables.store.remove(path)
                else:
                    found = True
        return found
