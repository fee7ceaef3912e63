"""A data folder into whose segments documents come, on tables of any kind, and who archives them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec

from tallypost_schema import documents, receipts
from tallypost_server import limits
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.tables import Tables
from tallypost_server.clock import stamp
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.write import Told, write_segment
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.streams.database import engine_of, url_of
from tallypost_server.testing import FakeClock, FaultyDisk

APP = "example.org/mytool"
SESSION = "ab" * 16
PROGRAM = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
DELAY, MAX_DELAY, BATCH_SECONDS = 300.0, 604_800.0, 900.0


class World:
    """A data folder, its clock, and archivists on it."""

    def __init__(self, data: Path, clock: FakeClock, disk: FaultyDisk, tables: Tables) -> None:
        self.data, self.clock, self.disk, self.tables = data, clock, disk, tables
        self._numbers = itertools.count(1)
        self._lines: list[bytes] = []
        self.task_rows_max = limits.task_rows_max
        self._open: list[Coordinator] = []

    def token(self, size: int) -> str:
        """Distinct words instead of random ones, of which the first digits differ too."""
        return format(next(self._numbers) * 2654435761 % 2**32, "08x").ljust(2 * size, "0")[: 2 * size]

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
        line = line_of_batch(documents.decode_batch(body), received=self._now(), sha256=receipts.hash_of(body))
        self._lines.append(line)

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
        line = line_of_report(documents.decode_report(body), received=self._now(), sha256=receipts.hash_of(body))
        self._lines.append(line)

    def line(self, line: bytes) -> None:
        """A stored line, whatever it says."""
        self._lines.append(line)

    def seal(self) -> str:
        """All that came is in a sealed segment, whose name is given."""
        told = Told()
        for line in self._lines:
            told.add(line)
        stem = f"documents-{self.clock.now():%Y%m%dT%H%M%SZ}-0a0a0a0a-0b0b0b0b-{next(self._numbers):06d}"
        manifest = write_segment(self.data / "segments", stem, told, self._lines, disk=self.disk)
        self._lines = []
        return manifest.segment

    def segments(self) -> list[str]:
        """The sealed segments that are left."""
        return sorted(path.name for path in (self.data / "segments").glob("*.zst"))

    def coordinator(self) -> Coordinator:
        """The coordinator, opened once more."""
        engine = engine_of(url_of(str(self.data / "coordinator.sqlite")), self.clock)
        opened = Coordinator(engine, task_rows_max=self.task_rows_max)
        self._open.append(opened)
        return opened

    def archivist(self, *, batch_seconds: float = 0.0, tables: Tables | None = None) -> Archivist:
        """An archivist that is ready."""
        made = Archivist(
            self.data,
            coordinator=self.coordinator(),
            tables=tables or self.tables,
            rules=Rules(DELAY, MAX_DELAY, batch_seconds),
            disk=self.disk,
            clock=self.clock,
            token=self.token,
        )
        made.start()
        return made

    def counts(self) -> dict[str, int]:
        """What ``status`` tells of streams."""
        return self.coordinator().counts().streams

    def rows(self, name: Any) -> list[dict[str, Any]]:
        """All rows of a table, in the order of its key."""
        found = []
        for file in self.tables.files(name):
            found += [{"day": file.day, **row} for row in self.tables.read(name, file.path).to_pylist()]
        keys = {"reports": ("app", "id"), "events": ("app", "session", "index"), "sessions": ("app", "session", "part")}
        return sorted(found, key=lambda row: tuple(row[key] for key in keys[name]))

    def indexes(self, session: str = SESSION) -> list[int]:
        """The indexes of a session that are in the archive."""
        return [row["index"] for row in self.rows("events") if row["session"] == session]

    def close(self) -> None:
        """Give the databases back."""
        for opened in self._open:
            opened.close()

    def _now(self) -> str:
        self.clock.advance(0.001)
        return stamp(self.clock.now())
