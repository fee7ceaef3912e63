"""The archive as one state machine: whatever comes, and wherever archivists die, each index is there once."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tallypost_schema import documents, receipts
from tallypost_server import limits
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.reader import document_of, event_of
from tallypost_server.archive.rows import ranges_in
from tallypost_server.archive.tables import Tables
from tallypost_server.clock import stamp
from tallypost_server.disk import ARCHIVE_POINTS, OsDisk
from tallypost_server.errors import ArchiveUnusable, LeaseLost
from tallypost_server.segments.format import line_of_batch, line_of_report, whole_lines
from tallypost_server.segments.write import Told, write_segment
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.streams.ranges import difference, ranges, union
from tallypost_server.testing import FakeClock, FaultyDisk, Killed
from tallypost_server.testing_archive import MemoryTables

from ..databases import Database, File

APP = "example.org/mytool"
PROGRAM = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
SESSIONS = [digit * 32 for digit in "abc"]
REPORTS = [digit * 32 for digit in "1234"]
DELAY, MAX_DELAY = 300.0, 86_400.0
# Which nodes' open segments are sealed, and how long it is then until somebody archives.
NODES = st.sampled_from(["aa bb", "aa", "bb", ""])
SECONDS = st.sampled_from([1.0, DELAY + 1, DELAY + 1, MAX_DELAY + 1])


class Posted(msgspec.Struct):
    """A batch that was stored."""

    node: str
    received: str
    first: int
    last: int
    lost: int
    terminal: int | None
    events: list[dict[str, Any]]


class Archive(RuleBasedStateMachine):
    """Batches and reports, repeated, overlapping, contradicting, late; two archivists, killed wherever it hurts."""

    lanes = 1

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tallypost-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        (self.folder / "segments" / "open").mkdir(parents=True)
        self.clock = FakeClock(datetime.datetime(2026, 11, 24, 10, tzinfo=datetime.timezone.utc))
        self.disk = FaultyDisk()
        self.tables = self.make_tables()
        self.database = self.make_database()
        self.numbers = itertools.count(1)
        self.posted: dict[str, list[Posted]] = {}
        self.reports: dict[str, list[bytes]] = {}
        self.poison: set[str] = set()
        self.days: dict[str, str] = {}
        self.last: dict[str, float] = {}  # When something of a stream was last posted.
        self.lines: dict[str, list[bytes]] = {"aa": [], "bb": []}  # Of two nodes, each in the order of receipt.
        self.archivists: list[Archivist | None] = [None, None]
        self.open: list[Coordinator] = []
        self.nested = False

    def make_tables(self) -> Tables:
        tables = MemoryTables(point=self.disk.point)
        tables.refuses = lambda name, rows: name == "reports" and bool(self.poison & set(rows.column("id").to_pylist()))
        return tables

    def make_database(self) -> Database:
        return File(self.folder / "coordinator.sqlite")

    def token(self, size: int) -> str:
        return format(next(self.numbers) * 2654435761 % 2**32, "08x").ljust(2 * size, "0")[: 2 * size]

    def archivist(self, which: int) -> Archivist:
        found = self.archivists[which]
        if found is None:
            coordinator = Coordinator(self.database.engine(self.clock), lanes=self.lanes, task_rows_max=6)
            self.open.append(coordinator)
            found = Archivist(
                self.folder,
                coordinator=coordinator,
                tables=self.tables,
                rules=Rules(DELAY, MAX_DELAY, 0.0),
                disk=self.disk,
                clock=self.clock,
                token=self.token,
            )
            found.start()
            self.archivists[which] = found
        return found

    # -- what comes in ----------------------------------------------------------------------------------------------

    @rule(
        session=st.sampled_from(SESSIONS),
        node=st.sampled_from(["aa", "bb"]),
        first=st.integers(0, 9),
        lost=st.integers(0, 2),
        events=st.integers(0, 4),
        closes=st.sampled_from([None, None, 0, 0, 3]),
    )
    def post_batch(self, session: str, node: str, first: int, lost: int, events: int, closes: int | None) -> None:
        if not events and not lost and closes != 0:
            return
        last = first + lost + events - 1
        if (closes is not None and last < 0) or self.is_past(session):
            return
        self.clock.advance(0.001)
        self.last[session] = self.clock.now().timestamp()
        batch = {
            "v": 1,
            "kind": "events",
            "app": APP,
            "session": session,
            "first": first,
            "lost": lost,
            "terminal": None if closes is None else last + closes,
            "program": PROGRAM,
            "events": [
                # Each time it is told differently, so that it is seen which of them is archived.
                {"name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {"pages": next(self.numbers)}}
                if number % 3
                else {}
                for number in range(events)
            ],
        }
        body = msgspec.json.encode(batch)
        received = stamp(self.clock.now())
        document = documents.decode_batch(body)
        self.lines[node].append(line_of_batch(document, received=received, sha256=receipts.hash_of(body)))
        told = Posted(node, received, first, last, lost, document.terminal, msgspec.json.decode(body)["events"])
        self.posted.setdefault(session, []).append(told)

    @rule(node=st.sampled_from(["aa", "bb"]))
    def post_again(self, node: str) -> None:
        """The answer was lost, so the same comes again, later."""
        other = self.lines["aa" if node == "bb" else "bb"]
        if other and not self.is_past(msgspec.json.decode(other[-1])["stream"]):
            self.clock.advance(0.001)
            line = msgspec.json.decode(other[-1])
            line["received"] = stamp(self.clock.now())
            self.lines[node].append(msgspec.json.encode(line) + b"\n")
            if line["kind"] == "events":
                first = next(posted for posted in reversed(self.posted[line["stream"]]))
                again = next(
                    (posted for posted in self.posted[line["stream"]] if posted.events == line["doc"]["events"]), first
                )
                self.posted[line["stream"]].append(msgspec.structs.replace(again, node=node, received=line["received"]))

    @rule(
        report=st.sampled_from(REPORTS),
        node=st.sampled_from(["aa", "bb"]),
        poison=st.sampled_from([False] * 5 + [True]),
    )
    def post_report(self, report: str, node: str, poison: bool) -> None:
        if self.is_past(report):
            return
        self.clock.advance(0.001)
        counters = {"cmd/export": next(self.numbers)}
        if poison and report not in self.reports:
            self.poison.add(report)
        body = msgspec.json.encode(
            {
                "v": 1,
                "kind": "report",
                "x": 0.25,
                "id": report,
                "app": APP,
                "day": self.days.setdefault(report, str(self.clock.now().date())),
                "previous": None,
                "config": None,
                "programs": [{**PROGRAM, "counters": counters, "stacks": {}}],
            }
        )
        document = documents.decode_report(body)
        line = line_of_report(document, received=stamp(self.clock.now()), sha256=receipts.hash_of(body))
        self.lines[node].append(line)
        self.reports.setdefault(report, []).append(body)

    def seal(self, node: str) -> None:
        """What a node has is sealed: the other's may have come earlier, and be sealed later."""
        if self.lines[node]:
            lines, self.lines[node] = self.lines[node], []
            told = Told()
            for line in lines:
                told.add(line)
            stem = f"documents-{self.clock.now():%Y%m%dT%H%M%SZ}-{node}-0b0b-{next(self.numbers):06d}"
            write_segment(self.folder / "segments", stem, told, lines, disk=OsDisk())

    # -- who archives -----------------------------------------------------------------------------------------------

    def make_due(self, nodes: str, seconds: float) -> None:
        """Seal what some nodes have, and let time pass."""
        for node in nodes.split():
            self.seal(node)
        if seconds > DELAY:  # No segment stays open for longer.
            self.clock.advance(DELAY)
            for node in ("aa", "bb"):
                self.seal(node)
        self.clock.advance(seconds)

    def is_past(self, stream: str) -> bool:
        """Whether it is too late to post anything of a stream, by the horizon."""
        now = self.clock.now().timestamp()
        return now - self.last.setdefault(stream, now) > 20 * 86_400

    @rule(which=st.integers(0, 1), nodes=NODES, seconds=SECONDS)
    def archive(self, which: int, nodes: str, seconds: float) -> None:
        self.make_due(nodes, seconds)
        with contextlib.suppress(LeaseLost):
            self.archivist(which).round()

    @rule(
        which=st.integers(0, 1),
        nodes=NODES,
        seconds=SECONDS,
        point=st.sampled_from([*ARCHIVE_POINTS, "after_spend", "after_park"]),
    )
    def archive_and_die(self, which: int, nodes: str, seconds: float, point: Any) -> None:
        """An archivist is killed in the middle; its lease lasts a while."""
        self.make_due(nodes, seconds)
        self.disk.kill_at(point)
        try:
            with contextlib.suppress(Killed, LeaseLost):
                self.archivist(which).round()
        finally:
            self.disk.kill_at(None)
        self.archivists[which] = None

    @rule(
        which=st.integers(0, 1),
        nodes=NODES,
        seconds=SECONDS,
        point=st.sampled_from(["before_table_commit", "at_table_commit", "before_finish"]),
    )
    def archive_and_sleep(self, which: int, nodes: str, seconds: float, point: Any) -> None:
        """An archivist sleeps in the middle, another takes over, and the first one wakes up."""
        self.make_due(nodes, seconds)

        def meanwhile() -> None:
            self.disk.kill_at(None)
            self.clock.advance(limits.lease_seconds + 1)
            with contextlib.suppress(LeaseLost):
                self.archivist(1 - which).round()

        self.disk.kill_at(point, meanwhile)
        try:
            with contextlib.suppress(LeaseLost):
                self.archivist(which).round()
        finally:
            self.disk.kill_at(None)

    @rule(which=st.integers(0, 1), nodes=NODES, seconds=SECONDS)
    def store_refuses(self, which: int, nodes: str, seconds: float) -> None:
        """A store that is away for a moment."""
        self.make_due(nodes, seconds)
        if isinstance(self.tables, MemoryTables):
            self.tables.failures.append(ArchiveUnusable("memory", OSError("away")))
        with contextlib.suppress(LeaseLost):
            self.archivist(which).round()

    @rule()
    def lose_coordinator(self) -> None:
        """Its database is removed while nothing runs."""
        self.end()
        self.database.lose()

    def end(self) -> None:
        """Nobody archives any more."""
        self.archivists = [None, None]
        for coordinator in self.open:
            coordinator.close()
        self.open = []

    @rule(at=st.integers(0, 5))
    def repair(self, at: int) -> None:
        """A segment is damaged, and what can be read of it, which is all, is in another one."""
        segments = sorted((self.folder / "segments").glob("*.zst"))
        if segments:
            path = segments[at % len(segments)]
            lines = [line + b"\n" for line in whole_lines(OsDisk().pieces(path))]
            path.unlink()
            path.with_name(path.name + ".manifest.json").unlink(missing_ok=True)  # An archivist died as it removed it.
            told = Told()
            for line in lines:
                told.add(line)
            stem = f"{path.name[:27]}{path.name[27:29]}-0c0c-{next(self.numbers):06d}"
            write_segment(self.folder / "segments", stem, told, lines, disk=OsDisk())

    # -- what must hold ---------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.finish()
            self.check()
        finally:
            self.end()
            shutil.rmtree(self.folder)

    def finish(self) -> None:
        """All that came is sealed, and long overdue."""
        for node in ("aa", "bb"):
            self.seal(node)
        self.end()
        if isinstance(self.tables, MemoryTables):
            self.tables.failures.clear()
        for _ in range(4):
            self.clock.advance(MAX_DELAY + 1)
            for _ in range(20):
                if self.archivist(0).round().idle:
                    break

    def check(self) -> None:
        assert [] == list((self.folder / "segments").glob("*.zst"))
        self.check_reports()
        events: dict[str, Counter[int]] = {}
        for row in self.rows("events"):
            events.setdefault(row["session"], Counter())[row["index"]] += 1
            told: dict[str, Any] = {}  # What each node was told first: what it stored later never comes before it.
            for posted in self.posted[row["session"]]:
                if posted.first + posted.lost <= row["index"] <= posted.last:
                    told.setdefault(posted.node, posted.events[row["index"] - posted.first - posted.lost])
            assert event_of(row) in told.values(), "an event that nobody posted, or not the first"
        index: dict[str, dict[str, Any]] = {}
        for row in self.rows("sessions"):
            assert row["part"] not in [other["part"] for other in index.values() if other["session"] == row["session"]]
            if row["part"] > index.get(row["session"], {"part": 0})["part"]:
                index[row["session"]] = row
        for session, batches in self.posted.items():
            self.check_session(batches, events.get(session, Counter()), index[session])

    def check_session(self, batches: list[Posted], events: Counter[int], row: dict[str, Any]) -> None:
        content = ranges((posted.first + posted.lost, posted.last) for posted in batches)
        lost = difference(ranges((posted.first, posted.first + posted.lost - 1) for posted in batches), content)
        assert {1} >= set(events.values()), f"twice in the archive: {events}"
        assert ranges((number, number) for number in events) == content
        assert content == ranges_in(row["content"])
        assert lost == ranges_in(row["lost"])
        there = union(content, lost)
        terminals = {posted.terminal for posted in batches if posted.terminal is not None}
        assert row["told_terminal"] in (terminals or {None})
        end = max([last for _, last in there], default=-1)
        whole = ((0, end),) if end >= 0 else ()
        assert difference(whole, there) == ranges_in(row["gaps"])
        reached = any(first <= (row["told_terminal"] or 0) <= last for first, last in there)
        assert row["terminal"] == (row["told_terminal"] if reached else None)
        assert row["state"] == ("complete" if row["terminal"] is not None and not row["gaps"] else "sparse")

    def check_reports(self) -> None:
        rows = self.rows("reports")
        parked = {path.name[:32] for path in (self.folder / "parked").glob("*.jsonl")}
        assert Counter(set(self.reports) - self.poison) == Counter(row["id"] for row in rows)
        assert parked == self.poison & set(self.reports)
        for row in rows:
            assert msgspec.json.encode(document_of(row)) in self.reports[row["id"]]

    def rows(self, name: Any) -> list[dict[str, Any]]:
        assert isinstance(self.tables, MemoryTables)
        return self.tables.rows(name)
