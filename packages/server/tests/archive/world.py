"""A data folder into whose segments documents come, on tables and a database of any kind, and who archives them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tallypost_schema import documents, receipts
from tallypost_server import limits
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.columns import TABLES, TableName
from tallypost_server.archive.store import ObjectStore
from tallypost_server.archive.tables import Tables
from tallypost_server.clock import stamp
from tallypost_server.disk import Disk, OsDisk
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.write import Told, write_segment
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.testing import FakeClock
from tallypost_server.testing_archive import MemoryTables

from ..databases import Database

APP = "example.org/mytool"
SESSION = "ab" * 16
PROGRAM = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
DELAY, MAX_DELAY, BATCH_SECONDS = 300.0, 604_800.0, 900.0
_numbers = itertools.count(1)  # No two worlds of a test make the same.


class World:
    """A data folder, its clock, and archivists on it; sessions that are complete wait for `delay`."""

    lanes = 1

    def __init__(
        self,
        data: Path,
        clock: FakeClock,
        disk: Disk,
        database: Database,
        store: ObjectStore | MemoryTables,
        *,
        delay: float = 0.0,
    ) -> None:
        self.data, self.clock, self.disk, self.database, self._store = data, clock, disk, database, store
        self.delay = delay
        self.lines: list[bytes] = []
        """What came and is not sealed yet."""
        self.task_rows_max = limits.task_rows_max
        self._open: list[Coordinator] = []

    @property
    def store(self) -> ObjectStore:
        """Where the tables lie, if not in memory."""
        assert not isinstance(self._store, MemoryTables)
        return self._store

    @property
    def memory(self) -> MemoryTables:
        """The tables, if they lie in memory."""
        assert isinstance(self._store, MemoryTables)
        return self._store

    def tables(self, store: ObjectStore | None = None) -> Tables:
        """The tables, as one more process has them; those in memory are all the same."""
        if store is None and isinstance(self._store, MemoryTables):
            return self._store
        return Tables(store or self.store, clock=self.clock, point=self.disk.point)

    def token(self, size: int) -> str:
        """Distinct words instead of random ones, of which the first digits differ too."""
        return format(next(_numbers) * 0x9E3779B97F4A7C15 % 2**64, "016x").ljust(2 * size, "0")[: 2 * size]

    # -- what comes in ----------------------------------------------------------------------------------------------

    def batch(
        self,
        first: int,
        count: int,
        *,
        lost: int = 0,
        terminal: int | None = None,
        session: str = SESSION,
        **event: Any,
    ) -> None:
        """A batch is stored, with so many events behind its lost range."""
        told = {"name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {"format": "pdf", "pages": 3}, **event}
        body = msgspec.json.encode(
            {
                "v": 1,
                "kind": "events",
                "app": APP,
                "session": session,
                "first": first,
                "lost": lost,
                "terminal": terminal,
                "program": PROGRAM,
                "events": [told] * count,
            }
        )
        self.clock.advance(0.001)
        self.lines.append(self._line(body))

    def report(self, number: int, **changed: Any) -> None:
        """A report is stored, with this number for an id."""
        counters = {"cmd/export": 12, "cmd/export:pdf": 3}
        programs = [{**PROGRAM, "counters": counters, "stacks": {"crash/KeyError\nmytool.cli:main:+12": 1}}]
        report = {
            "v": 1,
            "kind": "report",
            "x": 0.2739,
            "id": format(number, "032x"),
            "app": APP,
            "day": "2026-11-23",
            "previous": "2026-11-22",
            "config": "3",
            "programs": programs,
            **changed,
        }
        body = msgspec.json.encode(report)
        self.clock.advance(0.001)
        self.lines.append(self._line(body))

    def line(self, line: bytes) -> None:
        """A stored line, whatever it says."""
        self.lines.append(line)

    def seal(self, *bodies: bytes) -> str:
        """All that came, and these documents, received now, are in a sealed segment, whose name is given."""
        self.lines += map(self._line, bodies)
        told = Told()
        for line in self.lines:
            told.add(line)
        stem = f"documents-{self.clock.now():%Y%m%dT%H%M%SZ}-0a0a0a0a-0b0b0b0b-{next(_numbers):06d}"
        manifest = write_segment(self.data / "segments", stem, told, self.lines, disk=OsDisk())
        self.lines = []
        return manifest.segment

    def _line(self, body: bytes) -> bytes:
        received, sha256 = stamp(self.clock.now()), receipts.hash_of(body)
        if json.loads(body)["kind"] == "report":
            return line_of_report(documents.decode_report(body), received=received, sha256=sha256)
        return line_of_batch(documents.decode_batch(body), received=received, sha256=sha256)

    # -- who archives -----------------------------------------------------------------------------------------------

    def coordinator(self) -> Coordinator:
        """The coordinator, opened once more."""
        engine = self.database.engine(self.clock)
        opened = Coordinator(engine, lanes=self.lanes, task_rows_max=self.task_rows_max)
        self._open.append(opened)
        return opened

    def lose_coordinator(self) -> None:
        """Remove the coordinator, while nothing runs."""
        self.close()
        self.database.lose()

    def close(self) -> None:
        """Give the databases back."""
        for opened in self._open:
            opened.close()
        self._open = []

    def archivist(
        self,
        *,
        batch_seconds: float = 0.0,
        store: ObjectStore | None = None,
        delay: float | None = None,
        started: bool = True,
    ) -> Archivist:
        """One more archivist, on a coordinator opened for it; it was started, if nothing else is said."""
        made = Archivist(
            self.data,
            coordinator=self.coordinator(),
            tables=self.tables(store),
            rules=Rules(self.delay if delay is None else delay, MAX_DELAY, batch_seconds),
            disk=self.disk,
            clock=self.clock,
            token=self.token,
        )
        if started:
            made.start()
        return made

    def work(self, archivist: Archivist | None = None) -> int:
        """Archive until nothing is due; how many tasks were finished."""
        archivist = archivist or self.archivist()
        finished = 0
        while True:
            done = archivist.round()
            finished += done.archived
            if not done.registered and not done.archived and not done.removed:
                return finished

    # -- what is there ----------------------------------------------------------------------------------------------

    def segments(self) -> list[str]:
        """The sealed segments that are left."""
        return sorted(path.name for path in (self.data / "segments").glob("*.zst"))

    def counts(self) -> dict[str, int]:
        """What ``status`` tells of streams."""
        return self.coordinator().counts().streams

    def rows(self, name: TableName) -> list[dict[str, Any]]:
        """All rows of a table, in the order of its key."""
        tables, found = self.tables(), []
        for file in tables.files(name):
            found += [{"day": file.day, **row} for row in tables.read(name, file.path).to_pylist()]
        return sorted(found, key=lambda row: [row[column] for column in TABLES[name].key])

    def reports(self) -> Counter[str]:
        """How often each report is in the archive."""
        return Counter(row["id"] for row in self.rows("reports"))

    def events(self) -> Counter[tuple[str, int]]:
        """How often each event is in the archive."""
        return Counter((row["session"], row["index"]) for row in self.rows("events"))

    def indexes(self, session: str = SESSION) -> list[int]:
        """The indexes of a session that are in the archive."""
        return [row["index"] for row in self.rows("events") if row["session"] == session]

    def part(self, session: str = SESSION) -> dict[str, Any]:
        """What the index tells of a session, by its highest part."""
        return [row for row in self.rows("sessions") if row["session"] == session][-1]

    def damages(self) -> list[str]:
        """What is damaged in the tables' logs."""
        return [damage.name for name in TABLES for damage in self.tables().damages(name)]
