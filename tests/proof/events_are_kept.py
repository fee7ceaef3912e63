"""Events are kept: of sessions killed at random instants each index is on the server, or named there as lost.

Takes   a folder, seconds, a seed, and after how many sessions it is enough.
Gives   how many sessions, kills and events there were, and how many events were named as lost.
Never   asks the client what it logged: reads the session logs by itself, as any user might, all the time.

Several processes at once log in one directory and are killed; uploaders come, by turns with and without a network, and
are killed too; so is the server, a real one. In the end the last uploader leaves nothing behind, and the server's
segments are held against what was seen in the logs, and against what each process put. That is the number of events
which it writes, before each one, into a mapped file of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tallypost import limits
from tallypost.state_directory import StateDirectory
from tallypost_schema import documents
from tallypost_schema.documents import Event
from tallypost_server.disk import OsDisk
from tallypost_server.segments.format import decode_line
from tallypost_server.segments.reader import SegmentReader

from . import server
from .event_process import APPLICATION, CHILD, KINDS, declaration, event_of

SESSIONS = 300
LOGGING_AT_ONCE, UPLOADING_AT_ONCE = 4, 2
# Seconds from one kill of the server to the next, and of the times with and without a network; at least, and at most.
SERVER_KILLS, WITH_NETWORK, WITHOUT_NETWORK = (5.0, 25.0), (8.0, 16.0), (4.0, 8.0)
# How often an uploader uploads, a minute after the other; the next one's clock begins behind where it may have come to.
ROUNDS, ROUNDS_LAST, UPLOADER_SECONDS = 1, 100, 300
UPLOADERS_AT_THE_END_MAX = 10
# Nothing is evicted below a quota, and what waits is looked at a hundred times a second at most.
NEAR_QUOTA = 0.8
# What killed processes had half made is removed after a day.
DAY_SECONDS = 90_000


def prove(folder: Path, *, seconds: float, seed: int, sessions: int = SESSIONS) -> dict[str, Any]:
    """Log, upload and kill for so many seconds, or until there are so many sessions."""
    machine = Machine(folder, random.Random(seed))
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until and len(machine.logs.events) < sessions:
            machine.go_on()
        machine.finish()
    finally:
        machine.end()
    return judged(machine)


class Entry(NamedTuple):
    """What is remembered of an event: hundreds of thousands are."""

    process: int
    number: int
    at: str
    content: int


def entry_of(name: str, at: str, fields: dict[str, Any]) -> Entry:
    """What is remembered of an event of that content."""
    # As it is spelled: for Python 1, 1.0 and True are the same.
    return Entry(fields["process"], fields["number"], at, hash((name, repr(sorted(fields.items())))))


@dataclass
class Process:
    """One that logs, or one that uploads."""

    name: str
    popen: subprocess.Popen[bytes]
    told: Path
    errors: Path
    begun: float
    life: float | None
    """Seconds from where it said that it is ready; None: it may come to its own end."""
    ready: float | None = None


@dataclass
class Logs:
    """What was ever seen in the session logs of a folder, by no code of the library's."""

    folder: Path
    events: dict[str, dict[int, Entry]] = field(default_factory=dict)
    _read: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """By file, its first line and how far it was read: a log that goes on behind a cut has another first line."""

    def look(self) -> None:
        """Read what has come since."""
        for path in self.folder.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                head = file.readline()
                known, place = self._read.get(path.name, (b"", 0))
                if known == head:
                    file.seek(place)
                else:
                    place = len(head)
                content, line_feed, _ = file.read().rpartition(b"\n")
                self._read[path.name] = (head, place + len(content) + len(line_feed))
                self._take(json.loads(head)["session"], content.split(b"\n"))

    def _take(self, session: str, lines: list[bytes]) -> None:
        for line in lines:
            try:
                one = json.loads(line)
            except ValueError:
                continue  # Half a line, of an append under which its process was killed.
            entry = entry_of(one["name"], one["at"], one["fields"])
            seen = self.events.setdefault(session, {}).setdefault(one["index"], entry)
            assert entry == seen, f"{session} has two events {one['index']} in its log"


class Machine:
    """A user's machine with its processes, and the server."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self.data, self.told = folder / "data", folder / "told"
        self.directory = StateDirectory(str(folder / "state"), APPLICATION)
        self.logs = Logs(Path(self.directory.events))
        self.kinds: dict[int, str] = {}
        self.figures: Counter[str] = Counter()
        self.waiting_max = 0.0
        """The most that was seen to wait, as a share of the quota it is nearest to."""
        (self.data / "applications").mkdir(parents=True)
        self.told.mkdir()
        for path in (self.data / "applications" / "proof.toml", folder / "telemetry.toml"):
            path.write_text(declaration())
        os.makedirs(self.directory.path)
        yes = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 2 * 86400))
        Path(self.directory.mode).write_text(f"on {yes} 1 user\n")
        # Bound and not listening: nobody answers there, and nobody else gets it.
        self._nobody = socket.socket()
        self._nobody.bind(("127.0.0.1", 0))
        self._port = server.free_port()
        self._server = server.start(self.data, self._port)
        self._logging: list[Process] = []
        self._uploading: list[Process] = []
        self._has_network = True
        self._network_turns_at = self._in(WITH_NETWORK)
        self._server_dies_at = self._in(SERVER_KILLS)

    def go_on(self) -> None:
        """A hundredth of a second of it."""
        now = time.monotonic()
        if now >= self._network_turns_at:
            self._has_network = not self._has_network
            self._network_turns_at = self._in(WITH_NETWORK if self._has_network else WITHOUT_NETWORK)
        if now >= self._server_dies_at:
            self._server.kill()
            self._server.wait()
            self.figures["server killed"] += 1
            self._server = server.start(self.data, self._port)
            self._server_dies_at = self._in(SERVER_KILLS)
        if len(self._logging) < LOGGING_AT_ONCE:
            self._start_logging()
        if len(self._uploading) < UPLOADING_AT_ONCE and self._rng.random() < 0.1:
            self._start_uploading(dies=self._rng.random() < 0.85)
        time.sleep(0.01)
        # What is seen here was in a log before the kill that may follow.
        self.logs.look()
        self._look_what_waits()
        self._logging = [process for process in self._logging if not self._is_over(process)]
        self._uploading = [process for process in self._uploading if not self._is_over(process)]

    def finish(self) -> None:
        """Kill everybody, and have an uploader come to its end a day later, until nothing is left."""
        for process in [*self._logging, *self._uploading]:
            self._kill(process)
        self._logging, self._uploading, self._has_network = [], [], True
        self.logs.look()
        for _ in range(UPLOADERS_AT_THE_END_MAX):
            self._start_uploading(dies=False, later=DAY_SECONDS)
            while not self._is_over(self._uploading[0]):
                self._look_what_waits()
                time.sleep(0.01)
            self._uploading.clear()
            if not self.left():
                return

    def left(self) -> list[str]:
        """The logs and documents that still wait, and the documents that were refused otherwise than for another."""
        logs, pending = os.listdir(self.directory.events), os.listdir(self.directory.pending)
        reasons = [path.read_bytes() for path in Path(self.directory.refused).glob("*.reason.json")]
        return logs + pending + [reason.decode() for reason in reasons if b'"merged"' not in reason]

    def end(self) -> None:
        """Leave no process."""
        for process in [*self._logging, *self._uploading]:
            self._kill(process)
        self._nobody.close()
        self._server.terminate()
        status = self._server.wait(30)
        assert status == 0, f"the server ended with {status} after SIGTERM"

    def put(self) -> dict[int, int]:
        """By process, how many events it had begun to log."""
        paths = [path for path in self.told.iterdir() if path.name.isdigit()]
        return {int(path.name): int.from_bytes(path.read_bytes()[:8], "little") for path in paths}

    def _look_what_waits(self) -> None:
        sizes = []
        for path in Path(self.directory.pending).glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        of_number = len(sizes) / limits.pending_batches_max
        self.waiting_max = max(self.waiting_max, of_number, sum(sizes) / limits.pending_batches_bytes_max)

    def _start_logging(self) -> None:
        number = self.figures["processes"]
        self.figures["processes"] += 1
        # Without a network what waits shall come to its quota.
        kinds = [*KINDS, *([] if self._has_network else ["long"] * 4)]
        kind = self.kinds[number] = self._rng.choice(kinds)
        life = None if kind == "ends" else self._rng.random() * KINDS[kind][2]
        self._logging.append(self._start(str(number), life, "log", kind, str(number)))

    def _start_uploading(self, *, dies: bool, later: int = 0) -> None:
        number = self.figures["uploaders"]
        self.figures["uploaders"] += 1
        life = self._rng.random() ** 2 * 1.5 if dies else None
        ahead, rounds = number * UPLOADER_SECONDS + later, ROUNDS_LAST if later else ROUNDS
        self._uploading.append(self._start(f"uploader-{number}", life, "upload", str(ahead), str(rounds)))

    def _start(self, name: str, life: float | None, *words: str) -> Process:
        told, errors = self.told / name, self._folder / f"{name}.errors"
        port = self._port if self._has_network else self._nobody.getsockname()[1]
        more = {"TALLYPOST_DIR": str(self._folder / "state"), "TALLYPOST_ENDPOINT": f"http://127.0.0.1:{port}"}
        # A forked child of a process with threads, of which Python warns, is one of the cases.
        command = [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(Path(__file__).with_name("event_process.py")),
        ]
        with errors.open("wb") as file:
            popen = subprocess.Popen(
                [*command, *words, str(self._folder), str(told)],
                env={**server.ENVIRON, **more},
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        return Process(name, popen, told, errors, time.monotonic(), life)

    def _is_over(self, process: Process) -> bool:
        """Whether a process has ended, or is killed now; its life counts from where it said that it is ready."""
        now = time.monotonic()
        if process.popen.poll() is not None:
            said = process.errors.read_text()
            assert process.popen.returncode == 0, f"{process.name} ended with {process.popen.returncode}: {said}"
            assert not said, f"{process.name} said {said}"
            return True
        assert now < process.begun + 120, f"{process.name} hangs"
        if process.life is None or not process.told.exists():
            return False
        if process.ready is None:
            process.ready = now
        if now < process.ready + process.life:
            return False
        self._kill(process)
        return True

    def _kill(self, process: Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.popen.pid, signal.SIGKILL)
        process.popen.wait()
        self.figures["uploaders killed" if process in self._uploading else "processes killed"] += 1

    def _in(self, bounds: tuple[float, float]) -> float:
        return time.monotonic() + self._rng.uniform(*bounds)


class Stored:
    """What the server has of events, by session."""

    def __init__(self, data: Path) -> None:
        self.events: dict[str, dict[int, Entry]] = defaultdict(dict)
        self.lost: dict[str, set[int]] = defaultdict(set)
        self.terminals: dict[str, set[int]] = defaultdict(set)
        self.batches = self.again = 0
        for line in map(decode_line, SegmentReader(data / "segments", disk=OsDisk()).lines()):
            if line.kind == "events":
                self._take(line.stream, bytes(line.doc))

    def covered(self, session: str) -> set[int]:
        """The indexes that are there, or named as lost."""
        return self.lost[session] | set(self.events[session])

    def _take(self, session: str, document: bytes) -> None:
        batch = documents.decode_batch(document)
        self.batches += 1
        assert session == batch.session
        # Nothing damages a log here: only what waits is evicted, whole batches of it.
        assert not (batch.lost and batch.events), (
            f"a log of {session} had lost events before {batch.first + batch.lost}"
        )
        self.lost[session].update(range(batch.first, batch.first + batch.lost))
        if batch.terminal is not None:
            self.terminals[session].add(batch.terminal)
        events = self.events[session]
        for index, event in enumerate(batch.events, batch.first + batch.lost):
            assert event != Event(), f"event {index} of {session} was withheld"
            assert isinstance(event.name, str)
            assert isinstance(event.at, str)
            assert isinstance(event.fields, dict)
            entry = entry_of(event.name, event.at, event.fields)
            self.again += index in events
            same = events.setdefault(index, entry)
            assert entry == same, f"event {index} of {session} came twice: {same}, {entry}"


def judged(machine: Machine) -> dict[str, Any]:
    """The figures, if all holds."""
    left = machine.left()
    assert not left, f"the last uploader left {left}"
    stored = Stored(machine.data)
    seen = machine.logs.events
    assert seen, "no event was seen in a log"
    missing = set(seen) - set(stored.terminals)
    assert not missing, f"{len(missing)} of {len(seen)} sessions were not closed, such as {min(missing)}"
    _require_whole(stored)
    _require_as_logged(stored, seen)
    _require_put(stored, machine)
    events = sum(map(len, stored.events.values()))
    lost = sum(len(lost - set(stored.events[session])) for session, lost in stored.lost.items())
    assert not lost or machine.waiting_max > NEAR_QUOTA, (
        f"{lost} events are lost, but {machine.waiting_max:.0%} of a quota waited"
    )
    figures = {
        "sessions": len(stored.terminals),
        **machine.figures,
        "events stored": events,
        "events named as lost": lost,
        "events seen in a log": sum(map(len, seen.values())),
        "batches stored": stored.batches,
        "events that came again": stored.again,
    }
    sentence = (
        f"Each of {figures['sessions']} sessions is whole: {events} events are stored and {lost} named as lost, "
        f"among them each of the {figures['events seen in a log']} that were seen in a log, "
        f"after {machine.figures['processes killed']} processes, {machine.figures['uploaders killed']} uploaders "
        f"and the server {machine.figures['server killed']} times were killed."
    )
    return {**{name.replace(" ", "_"): number for name, number in figures.items()}, "sentence": sentence}


def _require_whole(stored: Stored) -> None:
    """Each session has one terminal index, and each index up to it, and none behind."""
    for session in stored.events.keys() | stored.lost.keys() | stored.terminals.keys():
        terminals = stored.terminals[session]
        assert len(terminals) == 1, f"{session} has the terminal indexes {sorted(terminals)}"
        (terminal,) = terminals
        gaps = set(range(terminal + 1)) - stored.covered(session)
        assert not gaps, f"{session}, which ends with {terminal}, lacks {sorted(gaps)[:10]}"
        behind = stored.covered(session) - set(range(terminal + 1))
        assert not behind, f"{session}, which ends with {terminal}, goes on with {sorted(behind)[:10]}"


def _require_as_logged(stored: Stored, seen: dict[str, dict[int, Entry]]) -> None:
    """What was seen in a log is stored just so, or named as lost."""
    for session, logged in seen.items():
        gone = set(logged) - stored.covered(session)
        assert not gone, f"{session} had {sorted(gone)[:10]} in its log"
        for index, entry in stored.events[session].items():
            one = logged.get(index, entry)  # A log that is cut at once is not always seen.
            assert one == entry, f"event {index} of {session} was logged as {one}, stored as {entry}"


def _require_put(stored: Stored, machine: Machine) -> None:
    """Each event that is stored was put by a process, in that order, and is there once."""
    places: dict[tuple[int, int], tuple[str, int]] = {}
    put = machine.put()
    for session, entries in stored.events.items():
        before = (-1, -1)
        for index in sorted(entries):
            entry = entries[index]
            name, fields = event_of(entry.process, entry.number, machine.kinds[entry.process % CHILD])
            assert entry == entry_of(name, entry.at, fields), f"nobody has put {entry}"
            assert entry.number < put.get(entry.process, 0), f"nobody has put {entry} yet"
            assert before[0] in (-1, entry.process), f"{session} has events of two processes"
            assert before[1] < entry.number, f"{session} has events in another order than they were put in"
            before = (entry.process, entry.number)
            place = places.setdefault(before, (session, index))
            assert place == (session, index), f"{entry} is there twice: {place}, {(session, index)}"
