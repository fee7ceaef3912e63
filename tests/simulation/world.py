"""One user's world: processes that count, the daily work, a server, and what must hold of them whatever happens.

Takes   actions, one after the other, each with what is to happen in the middle of it.
Gives   an `AssertionError` as soon as an increment is lost, counted twice, or in a document where it may not be.
Never   asks the code that it judges what should be: it keeps a ledger of its own, increment by increment.
"""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tallypost import Telemetry, limits
from tallypost.clock import day_bounds, day_of
from tallypost.consent import ModeLine, parse_mode_line
from tallypost.counts import count_reader
from tallypost.daily import Daily, LastRun
from tallypost.errors import TallypostError
from tallypost.reports import local_report
from tallypost.reports.local_report import LocalReport
from tallypost.reports.look import look
from tallypost.reports.overview import days_of
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock
from tallypost_schema import documents, receipts
from tallypost_schema import limits as shared_limits

from .declared import APPLICATION, BY_KEY, CONFIGS, DECLARATIONS, OWN, Declaration, leaves_as
from .machine import Crash, MachineDisk, ProcessDisk
from .server import ENDPOINT, Server

DROPPED_NAMES, DROPPED_BUCKETS, DROPPED_VALUES = OWN

PROGRAMS = (("mytool", "1.2.3"), ("mytool", "1.3.0"), ("helper", "1.2.3"))
OPERATIONS: tuple[tuple[str, object], ...] = (
    ("cmd/export", None),
    ("cmd/export", "pdf"),
    ("cmd/export", "exe"),
    ("cmd/export", "no bucket"),
    ("cmd/import", "csv"),
    ("cmd/import", "xls"),
    ("cmd/sampled", None),
    ("cmd/old", None),
    ("cmd/new", None),
    ("cmd/more", "x"),
    ("secret/thing", None),
    ("export/seconds", 0.05),
    ("export/seconds", 0.5),
    ("export/seconds", 7),
    ("export/seconds", -1),
)
TEMPLATE = "/application/telemetry.toml"

Action: TypeAlias = tuple[Any, ...]
Where: TypeAlias = "int | tuple[str, int]"
Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class Increment:
    """So many, on a UTC day, under a mode line that lay in the mode file then."""

    n: int
    day: str
    lines: frozenset[tuple[int, str]]


@dataclass(frozen=True)
class File:
    """What the ledger knows of a count file."""

    program: str
    version: str
    day: str
    mode: str
    declaration: Declaration | None


@dataclass
class Process:
    """A process of the application, as the ledger sees it: where its increments go from `begin` to `end`."""

    telemetry: Telemetry
    disk: ProcessDisk
    program: str
    version: str
    generation: int
    begin: float = 0.0
    end: float = 0.0
    place: str = "nowhere"
    file: str | None = None
    memory: list[tuple[str, Increment]] = field(default_factory=list)
    # Of a file that is written to: the names that are in it, and what could not be written yet.
    known: set[str] = field(default_factory=set)
    unwritten: list[tuple[str, Increment]] = field(default_factory=list)
    is_busy: bool = False


class Chance:
    """Chance that repeats in the next run, and in no number."""

    def __init__(self) -> None:
        self._drawn = 0

    def bytes(self, count: int) -> bytes:
        """So many bytes, other ones each time."""
        self._drawn += 1
        return self._drawn.to_bytes(count, "big")

    def fraction(self) -> float:
        """Another number each time, all over [0, 1)."""
        self._drawn += 1
        return self._drawn * 0.618033988749895 % 1


class World:
    """Everything there is."""

    def __init__(self, *, trusted: bool = True) -> None:
        self.clock = FakeClock("2026-11-20T12:00:00Z")
        self.trusted = trusted
        self.disk = MachineDisk(clock=self.clock, trusted=trusted)
        self.directory = StateDirectory("/state", APPLICATION)
        self.server = Server(self.clock)
        self.server.hear = self._hear
        self.random = Chance()
        self.processes: list[Process] = []
        self.shipped: Declaration | None = None
        self.is_full = False
        self.statistics: Counter[str] = Counter()
        self.story: list[tuple[Action, list[tuple[Where, Action]]]] = []
        # The ledger.
        self.generation = 0
        self.epoch, self.line = 0, ""
        self.landed: Counter[Key] = Counter()
        self.cells: dict[tuple[str, str], list[Increment]] = {}
        self.files: dict[str, File] = {}
        self.reports: dict[str, LocalReport] = {}
        self.report_bytes: dict[str, bytes] = {}
        self.dropped: set[str] = set()
        self.through: dict[tuple[str, str], int] = {}
        self.made_on: dict[str, tuple[str, str]] = {}
        self.documents: dict[str, bytes] = {}
        self.gone: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.received: dict[str, bytes] = {}
        self.posts: list[float] = []
        self.said_no = self.was_raced = False
        self.last_instant = self.clock.now()
        # Of the step under way.
        self.depth = 0
        self.late = 0
        self.uploading: Declaration | None = None
        self.is_uploading = False
        self.days = (self._today(), self._today())
        self.was_full = self.was_interrupted = self.had_crash = False
        self.ship(0)

    # ---------------------------------------------------------------- actions

    def step(self, action: Action, during: Sequence[tuple[Where, Action]] = ()) -> None:
        """Do something, with other things in the middle of it; then everything must hold."""
        self.days = (self._today(), self._today())
        self.was_full, self.was_interrupted, self.had_crash = self.is_full, False, False
        self.config_before = self._kept_config()
        self.server.given = set()
        self.story.append((action, list(during)))
        before = self.disk.content() if self._is_off() else None
        counted = self._count_files() if before is not None else {}
        self.perform(action, during)
        if before is not None and not self.was_interrupted and action[0] in ("report", "upload", "preview", "count"):
            self._require_untouched(before, counted)
        self.check()

    def perform(self, action: Action, during: Sequence[tuple[Where, Action]] = ()) -> None:
        """Do something; in the middle of it, at a call or fault point of its process, what `during` says."""
        kind, *rest = action
        self.statistics[kind if self.depth == 0 else f"{kind}, in the middle of something"] += 1
        self.depth += 1
        try:
            getattr(self, kind)(*rest, **({"during": during} if during else {}))
        finally:
            self.depth -= 1
            self._see_clock()
            self._see_mode()
        if kind in ("report", "upload"):
            self._see_reports()

    def start(self, program: int) -> None:
        """Start a process of the application."""
        name, version = PROGRAMS[program]
        disk = ProcessDisk(self.disk)
        telemetry = Telemetry(
            APPLICATION,
            version,
            program=name,
            endpoint=ENDPOINT,
            declaration=TEMPLATE,
            dir="/state",
            uploader="manual",
            environ={"TALLYPOST": "on"},
            clock=self.clock,
            disk=disk,
        )
        self.processes.append(Process(telemetry, disk, name, version, self.generation))

    def end(self, which: int, how: str) -> None:
        """End a process, with `close` or without; or have it close its file and go on."""
        process = self._process(which)
        if process is None:
            return
        if how == "kill":
            self._kill(process)
            return
        process.telemetry.close()
        process.begin = process.end = 0.0
        process.place, process.memory, process.unwritten = "nowhere", [], []
        if how == "close":
            self._kill(process)

    def count(self, which: int, operation: int, n: int, during: Sequence[tuple[Where, Action]] = ()) -> None:
        """Have a process count something."""
        process = self._process(which)
        if process is None:
            return
        name, extra = OPERATIONS[operation]
        now, line = self.clock.now(), (self.epoch, self.line)
        effects = list(_effects(name, extra, n))
        if name == "export/seconds":
            assert isinstance(extra, (int, float))
            histogram = process.telemetry.histogram(name, edges=(0.1, 1.0))
            done = self._run(process.disk, lambda: histogram.observe(extra), during, process)
        else:
            assert extra is None or isinstance(extra, str)
            counter = process.telemetry.counter(name)
            done = self._run(process.disk, lambda: counter.inc(n, bucket=extra), during, process)
        self._see_mode()
        facts = [(each, Increment(m, day_of(now), frozenset({line, (self.epoch, self.line)}))) for each, m in effects]
        if done:
            self._returned(process, facts, now)
        else:
            self._kill(process, facts)

    def report(self, during: Sequence[tuple[Where, Action]] = ()) -> None:
        """Phases one and two."""
        daily, disk = self._daily()
        living = {file.file for file in self._count_files().values()}
        done = self._run(disk, daily.report, during)
        if done and not self._is_off() and not self.was_interrupted:
            old = self.disk.unfinished(self.clock.now() - limits.unfinished_seconds_max)
            assert [] == old, f"nobody will finish {old}"
            self._see_reports()
            self._require_retained(living)

    def preview(self) -> None:
        """What would be posted next is what waits."""
        daily, disk = self._daily()
        shown: list[bytes] = []
        self._run(disk, lambda: shown.extend(daily.preview().documents), ())
        if self._in_force(self.shipped) is not None:
            waiting = self._documents(self.directory.pending)
            assert all(document in waiting.values() for document in shown)

    def upload(self, now: bool, script: Sequence[str] = (), during: Sequence[tuple[Where, Action]] = ()) -> None:
        """All three phases, with these answers of the server."""
        daily, disk = self._daily()
        self.server.script = list(script)
        outer = self.uploading, self.is_uploading
        self.uploading, self.is_uploading = self.shipped, True
        try:
            self._run(disk, lambda: daily.upload(now=now), during)
        finally:
            (self.uploading, self.is_uploading), self.late = outer, 0

    def mode(self, mode: Any, who: Any = "user", during: Sequence[tuple[Where, Action]] = ()) -> None:
        """Have the user answer, by a command."""
        daily, disk = self._daily()
        self._answered(mode, self._run(disk, lambda: daily.set_mode(mode, who=who), during))

    def application_mode(self, which: int, mode: Any, during: Sequence[tuple[Where, Action]] = ()) -> None:
        """Have the application save its user's answer."""
        process = self._process(which)
        if process is None:
            return
        done = self._run(process.disk, lambda: process.telemetry.set_mode(mode), during, process)
        if done:
            process.begin = process.end = 0.0
        elif process.disk.has_ended:
            self._kill(process)
        self._answered(mode, done)

    def damage_mode(self, text: str) -> None:
        """Have something write other words into the mode file."""
        if self.disk.exists(self.directory.path):
            self.disk.write(self.directory.mode, text.encode())
            self._no_longer()

    def ship(self, which: int | None) -> None:
        """Have the makers ship another declaration, or none."""
        self.shipped = DECLARATIONS[which] if which is not None else None
        if self.shipped is not None:
            self.disk.write(TEMPLATE, self.shipped.text())
        else:
            self.disk.remove(TEMPLATE)

    def configure(self, name: str | None) -> None:
        """Have the server ask for something else from now on."""
        self.server.config = CONFIGS[name] if name is not None else None

    def move(self, seconds: float) -> None:
        """Have time pass, or the clock jump."""
        # Neither before the first day of the story, by much, nor beyond what can be spelled.
        to = min(max(self.clock.now() + seconds, 1_785_000_000.0), 1_900_000_000.0)
        self.clock.sleep(to - self.clock.now())
        self.clock.slept.clear()

    def fill(self, is_full: bool) -> None:
        """Have the disk become full, or have room again."""
        self.is_full = is_full
        self.was_full = self.was_full or is_full
        self.disk.fail(OSError(28, "No space left on device") if is_full else None)

    def forget(self) -> None:
        """Remove everything of the application from the machine."""
        daily, disk = self._daily()
        was_off = self._is_off()
        self._run(disk, daily.forget, ())
        assert self._is_off() == was_off
        left = {path for path in self.disk.content() if path.startswith(self.directory.path)}
        assert left <= ({self.directory.mode} if was_off else set())
        self.generation += 1
        for ledger in (self.landed, self.cells, self.files, self.reports, self.report_bytes, self.through):
            ledger.clear()
        for more in (self.dropped, self.documents, self.received, self.gone, self.made_on):
            more.clear()

    def ready(self, is_wanted: bool) -> None:
        """Have something to be done: a yes, and a day after it, over by now, on which something was counted."""
        if not is_wanted:
            return
        self.fill(False)
        if not self.processes:
            self.perform(("start", 0))
        if not self.line.startswith("on "):
            self.perform(("mode", "on"))
            self.move(86_400)
        for operation in (1, 2, 6):
            self.perform(("count", 0, operation, 1))
        self.move(86_400)

    def work_days(self, days: int, which: int, operation: int, does: str) -> None:
        """Day after day: the application runs and counts, and its daily work is done, or not."""
        for _ in range(days):
            self.move(86400)
            self.perform(("count", which, operation, 1))
            if does != "nothing":
                self.perform(("upload", True) if does == "upload" else ("report",))

    # ---------------------------------------------------------------- how an action is done

    def _process(self, which: int) -> Process | None:
        idle = [process for process in self.processes if not process.is_busy]
        return idle[which % len(idle)] if idle else None

    def _daily(self) -> tuple[Daily, ProcessDisk]:
        disk = ProcessDisk(self.disk)
        declaration = self.shipped.text() if self.shipped is not None else None
        key = self.shipped.key() if self.shipped is not None else "none"
        daily = Daily(
            self.directory,
            last_run=LastRun(APPLICATION, "mytool", "1.2.3", ENDPOINT, key),
            declaration=declaration,
            default="local",
            environ={"TALLYPOST": "on"},
            clock=self.clock,
            disk=disk,
            random=self.random,
            transport=self.server,
        )
        return daily, disk

    def _run(
        self,
        disk: ProcessDisk,
        work: Any,
        during: Sequence[tuple[Where, Action]],
        process: Process | None = None,
    ) -> bool:
        """Do `work` in a process; False if it was ended, or the disk was full."""
        for where, action in during:
            happen = self._happening(action)
            if isinstance(where, int):
                disk.at_calls[disk.calls + where] = happen
            else:
                point, time = where
                disk.at_points[point, disk.points.get(point, 0) + time] = happen
        if process is not None:
            process.is_busy = True
        try:
            work()
        except Crash:
            disk.end()
            self.had_crash = True
            return False
        except (OSError, TallypostError) as problem:
            if not self.was_full:
                raise AssertionError(f"nothing was wrong with the disk: {problem!r}") from problem
            return False
        finally:
            disk.at_calls.clear()
            disk.at_points.clear()
            if process is not None:
                process.is_busy = False
            elif not disk.has_ended:
                disk.end()
        return True

    def _happening(self, action: Action) -> Any:
        def happen() -> None:
            self.was_interrupted = True
            if action == ("crash",):
                self.statistics["a process ended there"] += 1
                raise Crash
            running, self.disk.running = self.disk.running, []
            try:
                self.perform(action)
            finally:
                self.disk.running = running

        return happen

    def _answered(self, mode: str, done: bool) -> None:
        self._see_mode()
        if mode == "on":
            self.said_no = self.said_no and not self.line.startswith("on ")
        elif done:
            self.said_no = not self.line.startswith("on ")  # Somebody may have said yes meanwhile.
        if mode != "on":
            self._no_longer()

    def _no_longer(self) -> None:
        # Of an upload that is under way one request may be on its way.
        if self.is_uploading:
            self.late = 1

    # ---------------------------------------------------------------- the ledger

    def _returned(self, process: Process, facts: list[tuple[str, Increment]], now: float) -> None:
        """Write down increments of a process that returned."""
        if not process.begin <= now < process.end or process.file != process.disk.count_file():
            self._opened(process, now)
        for name, increment in facts:
            if process.place == "memory":
                process.memory.append((name, increment))
            elif process.place == "file":
                self._to_file(process, name, increment)

    def _opened(self, process: Process, now: float) -> None:
        """The process went on in another place at that instant: know which."""
        text = process.disk.has_read.get(self.directory.mode)
        saved = parse_mode_line(text.decode()) if text is not None else None
        is_off = text is not None and (saved is None or saved.mode == "off")
        begin, end = day_bounds(now)
        carried = process.memory if process.place == "memory" and begin <= process.begin < process.end <= end else []
        file = process.disk.count_file()
        process.memory, process.unwritten = [], []
        process.generation, process.file = self.generation, file
        process.begin, process.end = begin, end
        if is_off:
            process.place = "nowhere"
            assert file is None, "mode off makes no file"
        elif file is None:
            assert self.was_full, f"nothing was wrong with the disk: {process.telemetry.status().get('memory')}"
            process.place, process.end = "memory", min(end, now + limits.memory_seconds_max)
            process.memory = carried
        else:
            process.place, process.known = "file", set(OWN)
            self._know(file)
            known = self.files[file]
            assert (process.program, process.version, day_of(now)) == (known.program, known.version, known.day)
            assert text is None or text.decode().rstrip("\n") == known.mode
            for name, increment in carried:
                self._to_file(process, name, increment)

    def _know(self, file: str) -> None:
        if file not in self.files:
            (seen,) = [each for each in self._count_files().values() if each.file == file]
            self.files[file] = File(
                seen.program.program, seen.program.version, seen.day, seen.mode, BY_KEY.get(seen.declaration)
            )
            assert seen.declaration == "none" or seen.declaration in BY_KEY

    def _to_file(self, process: Process, name: str, increment: Increment) -> None:
        if process.generation != self.generation:
            return  # The file was removed on demand; the process goes on in it until its next one.
        if not self.trusted:
            if self.is_full and name not in process.known:
                # Even its name found no room: a named loss, which is told as soon as there is room.
                name, increment = DROPPED_NAMES, Increment(1, increment.day, increment.lines)
            process.known.add(name)
            process.unwritten.append((name, increment))
            if self.is_full:
                return
            # What is written is the cell, so it has all of its name.
            written = [each for each in process.unwritten if each[0] == name]
            process.unwritten = [each for each in process.unwritten if each[0] != name]
        else:
            written = [(name, increment)]
        file = process.disk.count_file()
        assert file is not None
        for each, one in written:
            self._land(file, each, one)

    def _land(self, file: str, name: str, increment: Increment) -> None:
        known = self.files[file]
        self.cells.setdefault((file, name), []).append(increment)
        self.landed[known.program, known.version, name] += increment.n

    def _kill(self, process: Process, facts: Sequence[tuple[str, Increment]] = ()) -> None:
        """End a process. Of what had not returned, or was in memory, any part may have reached the file."""
        process.disk.end()
        process.telemetry.close()  # Frees memory; the disk of an ended process hears of nothing.
        self.processes.remove(process)
        possible: dict[str, list[Increment]] = {}
        for name, increment in (*process.memory, *process.unwritten, *facts):
            possible.setdefault(name, []).append(increment)
            possible.setdefault(DROPPED_NAMES, []).append(Increment(1, increment.day, increment.lines))
        for file in self._count_files().values() if possible else ():
            self._know(file.file)
            if (file.program.program, file.program.version) != (process.program, process.version):
                continue
            for name, value in file.values.items():
                more = value - sum(one.n for one in self.cells.get((file.file, name), []))
                if more > 0:
                    whole = possible.get(name, [])
                    assert more <= sum(one.n for one in whole), f"{more} of {name} were never counted"
                    lines = frozenset().union(*(one.lines for one in whole))
                    self._land(file.file, name, Increment(more, whole[-1].day, lines))

    # ---------------------------------------------------------------- what is seen

    def _today(self) -> str:
        return day_of(self.clock.now())

    def _see_clock(self) -> None:
        now = self.clock.now()
        if now < self.last_instant:
            self.posts.clear()  # A minute is a minute of the clock.
        self.last_instant = now
        self.days = (min(self.days[0], self._today()), max(self.days[1], self._today()))

    def _see_mode(self) -> None:
        path = self.directory.mode
        text = self.disk.read(path).decode() if self.disk.exists(path) else ""
        if text.rstrip("\n") != self.line:
            self.epoch, self.line = self.epoch + 1, text.rstrip("\n")
            self.epochs[self.line] = self.epoch

    def _saved(self) -> ModeLine | None:
        path = self.directory.mode
        return parse_mode_line(self.disk.read(path).decode()) if self.disk.exists(path) else None

    def _is_off(self) -> bool:
        saved = self._saved()
        return self.disk.exists(self.directory.mode) and (saved is None or saved.mode == "off")

    def _in_force(self, declaration: Declaration | None) -> ModeLine | None:
        """The yes under which something may be posted now."""
        saved = self._saved()
        if saved is None or saved.mode != "on":
            return None
        if declaration is not None and declaration.consent_version > saved.consent_version:
            return None
        return saved

    def _count_files(self) -> dict[str, count_reader.Counted]:
        found = {}
        for each in count_reader.read_all(self.directory.counts, disk=self.disk):
            assert isinstance(each, count_reader.Counted), f"{each} is damaged"
            found[each.path] = each
        return found

    def _documents(self, folder: str) -> dict[str, bytes]:
        names = [name for name in self.disk.names(folder) if name.count(".") == 1 and name.endswith(".json")]
        return {name: self.disk.read(os.path.join(folder, name)) for name in names}

    def _kept_config(self) -> str | None:
        daily, disk = self._daily()
        config = daily._config.last()
        disk.end()
        return config.version if config is not None else None

    # ---------------------------------------------------------------- what must hold

    def check(self) -> None:
        """Everything that must hold between two steps."""
        self._see_reports()
        self._check_conservation()
        self._check_documents()

    def _check_conservation(self) -> None:
        found: Counter[Key] = Counter()
        for report in self.reports.values():
            for program in report.programs:
                for name, n in program.counters.items():
                    found[program.program, program.version, name] += n
        for file in self._count_files().values():
            for name, value in file.values.items():
                rest = max(0, value - self.through.get((file.file, name), 0))
                found[file.program.program, file.program.version, name] += rest
        assert +self.landed == +found
        if not self.dropped:
            shown: Counter[Key] = Counter()
            for day in days_of(look(self.directory, disk=self.disk))["days"]:
                for program in day["programs"]:
                    for name, n in program["counters"].items():
                        shown[program["program"], program["version"], name] += n
            assert +self.landed == +shown

    def _see_reports(self) -> None:
        """Local reports that are new are right; those that were there are as they were."""
        there = {}
        for name in self.disk.names(self.directory.reports):
            there[name[len("local.") : -len(".json")]] = self.disk.read(os.path.join(self.directory.reports, name))
        for day in sorted(there):
            if day in self.report_bytes:
                assert self.report_bytes[day] == there[day], f"the report of {day} was made again"
                assert day not in self.dropped, f"the report of {day} came back"
        new = [day for day in sorted(there) if day not in self.report_bytes]
        decoded = {day: local_report.decode(there[day]) for day in new}
        all_of_them = [*self.reports.values(), *(report for report in decoded.values() if report is not None)]
        for day in self._in_order(new, decoded):
            report = decoded[day]
            assert report is not None
            self._check_report(day, report, all_of_them, alone=not self.was_interrupted)
            self.reports[day], self.report_bytes[day], self.made_on[day] = report, there[day], self.days
            for source in report.sources:
                for name, value in source.through.items():
                    known = self.through.get((source.file, name), 0)
                    self.through[source.file, name] = max(known, value)
        living = {file.file for file in self._count_files().values()}
        for day in self.report_bytes:
            if day not in there and day not in self.dropped:
                assert len([other for other in there if other > day]) >= limits.local_reports_kept, f"{day} is gone"
                assert not living & {source.file for source in self.reports[day].sources}, f"{day} is still needed"
                self.dropped.add(day)

    def _in_order(self, days: Iterable[str], reports: dict[str, LocalReport | None]) -> list[str]:
        """By what each goes on from, so that of two that name one file the earlier one comes first."""

        def begin(day: str) -> int:
            report = reports[day]
            assert report is not None, f"the report of {day} cannot be read"
            return sum(sum(source.before.values()) for source in report.sources)

        return sorted(days, key=lambda day: (begin(day), day))

    def _check_report(self, day: str, report: LocalReport, known: list[LocalReport], *, alone: bool) -> None:
        first, last = self.days
        assert day == report.day
        assert day < last, f"{day} is not over"
        totals: Counter[Key] = Counter()
        for source in report.sources:
            assert source.file in self.files, "a report names a file in which nobody counted"
            file, program = self.files[source.file], report.programs[source.program]
            assert (file.program, file.version) == (program.program, program.version)
            assert (file.day, file.mode) == (source.day, source.mode)
            assert file.day <= day or file.day > first, f"counts of {file.day} are in the report of {day}"
            for name, value in source.through.items():
                before = source.before.get(name, 0)
                assert before == self.through.get((source.file, name), 0), f"{name} twice, or not at all"
                assert before < value <= sum(one.n for one in self.cells.get((source.file, name), []))
                totals[program.program, program.version, name] += value - before
        said = Counter(
            {(one.program, one.version, name): n for one in report.programs for name, n in one.counters.items()}
        )
        assert totals == said
        assert 0 <= report.x < 1
        for other in self.reports.values():
            assert other.id != report.id
            assert other.x != report.x, "one x for two reports tells that they are of one machine"
        leaving = [other.day for other in known if other.upload.leaves and other.day < day]
        if alone and not self.dropped:
            assert report.previous == max(leaving, default=None)
        assert report.previous is None or report.previous in leaving
        assert report.config in {self.config_before, *self.server.given}
        if alone and self.server.given:
            assert report.config in self.server.given
        self._check_leaving(report, exactly=alone and first == last)

    def _check_leaving(self, report: LocalReport, *, exactly: bool) -> None:
        """What a report lets leave is what may: what surely may is there, and nothing else."""
        first, last = self.days
        surely, perhaps = self._leaving(report, first, last)
        leaves: Counter[Key] = Counter()
        for program in report.upload.programs:
            for name, n in program.counters.items():
                leaves[program.program, program.version, name] += n
        assert report.upload.leaves == bool(leaves)
        for key, n in leaves.items():
            assert n <= perhaps[key], f"{n} of {key} leave, {perhaps[key]} may"
        if exactly and report.day >= _ago(last, shared_limits.horizon_days):
            for key, n in surely.items():
                assert leaves[key] >= n, f"{leaves[key]} of {key} leave, {n} could"

    def _leaving(self, report: LocalReport, first: str, last: str) -> tuple[Counter[Key], Counter[Key]]:
        """What surely may leave of a report that was made on one of these days, and what perhaps may."""
        surely: Counter[Key] = Counter()
        perhaps: Counter[Key] = Counter()
        config = CONFIGS[report.config] if report.config is not None else None
        for source in report.sources:
            file = self.files[source.file]
            may = {
                name: self._may(source.file, name, source.before.get(name, 0), value, report.upload.mode, last)
                for name, value in source.through.items()
            }
            added = {name: value - source.before.get(name, 0) for name, value in source.through.items()}
            for name, n in may.items():
                early = leaves_as(name, file.declaration, config, report.x, first)
                late = leaves_as(name, file.declaration, config, report.x, last)
                if early is not None:
                    perhaps[file.program, file.version, early] += n
                if late is not None and may == added and file.mode == report.upload.mode:
                    surely[file.program, file.version, late] += n
        return surely, perhaps

    def _may(self, file: str, name: str, before: int, through: int, mode: str, today: str) -> int:
        """How many increments of a cell, from one value to another, may leave under a yes."""
        yes, known = parse_mode_line(mode), self.files[file]
        if yes is None or yes.mode != "on" or known.day > _ago(today, -1):
            return 0
        if known.declaration is None or known.declaration.consent_version > yes.consent_version:
            return 0
        total = at = 0
        for one in self.cells.get((file, name), []):
            begin, at = at, at + one.n
            under = any(line == mode and self._is_that_yes(epoch, line) for epoch, line in one.lines)
            if one.day > yes.day and under:
                total += max(0, min(at, through) - max(begin, before))
        return total

    def _is_that_yes(self, epoch: int, line: str) -> bool:
        return self.epochs.get(line) == epoch

    def _check_documents(self) -> None:
        here = self.directory
        pending, sent, refused = map(self._documents, (here.pending, here.sent, here.refused))
        for folder in (pending, sent, refused):
            for name, content in folder.items():
                assert name not in self.gone, f"{name} came back"
                assert content == self.documents.setdefault(name, content), f"{name} was made again"
                assert content == local_report.upload_report(self.reports[name.removesuffix(".json")])
        assert not set(sent) & set(refused)
        for name, content in sent.items():
            receipt = self.disk.read(os.path.join(here.sent, name.replace(".json", ".receipt.json")))
            assert receipts.is_receipt_of(receipt, content)
            assert content == self.received[name]
            assert content in self.server.stored
        for name in refused:
            assert self.disk.exists(os.path.join(here.refused, name.replace(".json", ".reason.json")))
        for name in pending.keys() - sent.keys() - refused.keys():  # A second copy of those is dropped, not posted.
            begun = self.disk.read(os.path.join(here.begins, name)).decode()
            assert begun == self.reports[name.removesuffix(".json")].upload.mode
        for name in self.documents.keys() - pending.keys() - sent.keys() - refused.keys() - self.gone:
            kept = len(sent) >= limits.sent_documents_kept or len(refused) >= limits.refused_documents_kept
            assert kept, f"{name} is nowhere"
            self.gone.add(name)
        if self.said_no:
            # A process that ends in that instant cannot take back what it has just recorded; it is never posted.
            self.was_raced = bool(pending) and (self.was_raced or self.had_crash)
            assert not pending or self.was_raced, "after a no nothing waits"

    def _hear(self, document: bytes, encoding: str | None) -> None:
        """A document is being posted, at this instant."""
        self._see_clock()
        self._see_mode()
        self._see_reports()
        report = documents.decode_report(document)
        name, local = f"{report.day}.json", self.reports[report.day]
        self.statistics["posted"] += 1
        if not (encoding == "gzip" and self.server.last == ("unsupported", document)):
            now = self.clock.now()
            self.posts = [at for at in self.posts if now - limits.post_window_seconds < at] + [now]
            assert len(self.posts) <= limits.posts_per_window_max, "too many posts in a minute"
        assert document == local_report.upload_report(local)
        assert document == self.received.setdefault(name, document), f"{name} was posted with other bytes"
        assert not self.disk.exists(os.path.join(self.directory.sent, name)), f"{name} was sent before"
        assert report.day >= _ago(self._today(), shared_limits.horizon_days) or self.was_interrupted
        config = self.server.config
        assert config is None or not config.paused or self.was_interrupted
        yes = self._in_force(self.uploading)
        if yes is None or str(yes) != local.upload.mode:
            assert self.late > 0, f"{name} was posted without a yes"
            self.late -= 1
            self.statistics["posted while a no was said"] += 1
        perhaps = self._leaving(local, *self.made_on[report.day])[1]
        for program in report.programs:
            for counter, n in program.counters.items():
                assert n <= perhaps[program.program, program.version, counter]

    def _require_untouched(self, before: dict[str, bytes], counted: dict[str, count_reader.Counted]) -> None:
        """In mode *off* nothing is written; a process may go on in the file that it had."""
        now = self.disk.content()
        changed = {path for path in now.keys() | before.keys() if now.get(path) != before.get(path)}
        assert changed <= counted.keys()

    def _require_retained(self, living: set[str]) -> None:
        """After a run of the reporter there are as many reports as are kept, and those that were still needed."""
        there = sorted(self.reports.keys() - self.dropped)[: -limits.local_reports_kept]
        for day in there:
            assert living & {source.file for source in self.reports[day].sources}, f"{day} is kept for nothing"

    # ---------------------------------------------------------------- the end

    def finish(self) -> None:
        """Far in the future, all processes over, disk and server well, the daily work comes to its end."""
        for process in list(self.processes):
            self._kill(process)
        self.fill(False)
        self.server.config = CONFIGS["all"]
        latest = max([self.last_instant, *(_instant(file.day) for file in self.files.values())])
        self.move(latest + 40 * 86400 - self.clock.now())
        self.step(("mode", "on" if self._saved() is not None and not self._is_off() else "local"))
        for _ in range(10):
            self.move(61)
            self.step(("upload", True))
        assert {} == self._count_files(), "something was counted that is in no report"
        assert {} == self._documents(self.directory.pending)
        old = self.disk.unfinished(self.clock.now())
        assert [] == old, f"nobody will finish {old}"
        assert [] == self.disk.names(self.directory.begins)
        needed = {source.declaration for report in self.reports.values() for source in report.sources}
        kept = {name.removesuffix(".toml") for name in self.disk.names(self.directory.declarations)}
        assert kept <= needed | {self.shipped.key() if self.shipped is not None else "none"}

    def close(self) -> None:
        """Free what this world holds."""
        for process in self.processes:
            process.disk.end()
            process.telemetry.close()
        self.processes.clear()
        self.disk.clear()


def _effects(name: str, extra: object, n: int) -> Iterator[tuple[str, int]]:
    """What an operation counts, in order."""
    if name == "export/seconds":
        assert isinstance(extra, (int, float))
        bucket = "<=0.1" if extra <= 0.1 else "<=1" if extra <= 1 else ">1"
        yield (f"{name}:{bucket}", 1) if extra >= 0 else (DROPPED_VALUES, 1)
        return
    if extra == "no bucket":
        yield DROPPED_BUCKETS, 1
    elif extra is not None:
        yield f"{name}:{extra}", n
    yield name, n


def _ago(day: str, days: int) -> str:
    return (datetime.date.fromisoformat(day) - datetime.timedelta(days=days)).isoformat()


def _instant(day: str) -> float:
    at = datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.timezone.utc)
    return at.timestamp()
