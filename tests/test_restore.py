"""The guide's backup and restore, as it says them: the commands are taken from docs/server/operating.md."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import http.client
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallypost_schema.documents import decode_batch, decode_report
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.columns import TABLES
from tallypost_server.archive.store import FolderStore
from tallypost_server.archive.tables import Tables
from tallypost_server.clock import SystemClock, stamp
from tallypost_server.disk import OsDisk
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.write import Told, write_segment
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.streams.database import engine_of, url_of

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "server" / "operating.md"
START = "systemctl start tallypost-server\n"
DAYS_AGO = datetime.timedelta(days=5)  # Files of such days are put together.
# Nothing waits for more.
ARCHIVE = ("archive", "--archive-delay", "0", "--archive-batch-seconds", "0", "--scan-seconds", "0.2")


def commands(heading: str) -> str:
    """The first commands below a heading."""
    section = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


class Machine:
    """Does what the guide says, on folders of a test's own."""

    def __init__(self, data: Path, backup: Path, start: Callable[[], object] = lambda: None) -> None:
        self._start = start
        self._folders = {
            "/var/lib/tallypost": str(data),
            "/etc/tallypost/applications": str(data / "applications"),
            "/backup/tallypost": str(backup),
            "tallypost: ": f"{getpass.getuser()}: ",
            "tallypost-server --data": f"{sys.executable} -m tallypost_server --data",
        }

    def do(self, heading: str, **environment: str) -> str:
        """Run the commands below a heading; what they print."""
        before, start, after = commands(heading).partition(START)
        said = self.run(before, **environment)
        if start:
            self._start()
            said += self.run(after)
        return said

    def run(self, script: str, **environment: str) -> str:
        """Run commands as a script; what they print."""
        for old, new in self._folders.items():
            script = script.replace(old, new)
        environ = {**os.environ, **environment}
        done = subprocess.run(
            ["sh", "-e", "-c", script], env=environ, capture_output=True, text=True, check=False, timeout=100
        )
        assert 0 == done.returncode, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def archive(self) -> None:
        """Archive all that is there, also of sessions of which the rest never came."""
        self.run(f"tallypost-server --data /var/lib/tallypost {' '.join(ARCHIVE)} --archive-max-delay 0 --once")


class Load:
    """Threads that post, and note what was acknowledged; one more archives all the time."""

    def __init__(self, server: Any) -> None:
        self._port, self._ended, self._data = server.port, threading.Event(), server.data
        self.acknowledged: set[str] = set()
        """Reports and batches, by a name of each that is in its rows."""
        self.archivists = 0
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(3)]
        self._threads.append(threading.Thread(target=self._archive))
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        until, before = time.monotonic() + 60, len(self.acknowledged)
        while len(self.acknowledged) < before + count:
            assert time.monotonic() < until, "nothing more is acknowledged"
            time.sleep(0.01)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _archive(self) -> None:
        # Each puts files together as it starts, and is ended or killed at whatever it is then.
        while not self._ended.is_set():
            command = [sys.executable, "-m", "tallypost_server", "--data", str(self._data), *ARCHIVE]
            archivist = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            self._ended.wait(5)
            archivist.send_signal(signal.SIGTERM if self.archivists % 2 else signal.SIGKILL)
            archivist.wait(60)
            self.archivists += 1

    def _post(self, number: int) -> None:
        connection, sequence = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20), 0
        while not self._ended.is_set():
            sequence += 1
            stream = f"{number:016x}{sequence:016x}"
            try:
                for path, name, body in documents(stream):
                    connection.request("POST", path, body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 200:
                        self.acknowledged.add(name)
            except (OSError, http.client.HTTPException):
                break
            time.sleep(0.005)
        connection.close()


def documents(stream: str) -> Iterator[tuple[str, str, bytes]]:
    """A report, and a session of two batches: where each is posted, its name, its bytes."""
    day = f"{SystemClock().now() - DAYS_AGO:%Y-%m-%d}"
    report = {"v": 1, "kind": "report", "x": 0.25, "id": stream, "app": "example.org/mytool"}
    report |= {"day": day, "previous": None, "config": None}
    program = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
    report |= {"programs": [{**program, "counters": {"cmd/export": 1}, "stacks": {}}]}
    yield "/v1/reports", stream, json.dumps(report, separators=(",", ":")).encode()
    for first, terminal in ((0, None), (1, 1)):
        batch = {"v": 1, "kind": "events", "app": "example.org/mytool", "session": stream, "first": first, "lost": 0}
        batch |= {"terminal": terminal, "program": program, "events": [{}]}
        yield "/v1/events", f"{stream}-{first}", json.dumps(batch, separators=(",", ":")).encode()


def rows_in(data: Path) -> Counter[str]:
    """How often each document is in the archive."""
    tables = Tables(FolderStore(data / "archive", disk=OsDisk()), clock=SystemClock(), point=OsDisk().point)
    found: Counter[str] = Counter()
    for name in TABLES:
        for file in tables.files(name):
            for row in tables.read(name, file.path).to_pylist():
                if name == "reports":
                    found[row["id"]] += 1
                elif name == "events":
                    found[f"{row['session']}-{row['index']}"] += 1
    return found


@pytest.fixture
def rsync() -> str:
    """The program."""
    found = shutil.which("rsync")
    if found is None:
        assert os.environ.get("TALLYPOST_TOOLS") != "required", "rsync is not installed here"
        pytest.skip("rsync is not installed here (Debian's package rsync)")
    return found


@pytest.fixture
def machine(rsync: str, server: Any, tmp_path: Path) -> Machine:
    """A machine with a server that seals often."""
    server.end()
    server.start("--seal-bytes", "60000", "--seal-seconds", "1")  # So that segments are sealed while they are copied.
    (tmp_path / "backup").mkdir()
    return Machine(server.data, tmp_path / "backup", server.start)


@pytest.mark.timeout(240)
def test_backup_of_a_running_server_restored_by_the_guide_has_all_that_was_acknowledged_before(
    server: Any, machine: Machine
) -> None:
    """Backed up under load and while it archives, destroyed, restored, archived: each document is there once."""
    load = Load(server)
    try:
        for _ in range(2):
            archivists = load.archivists
            load.wait_for(300)
            while load.archivists == archivists:
                time.sleep(0.01)
            before = set(load.acknowledged)
            machine.do("Back up")
        load.wait_for(50)
    finally:
        server.end(signal.SIGKILL)
        load.end()
    shutil.rmtree(server.data)
    (server.data / "applications").mkdir(parents=True)

    said = machine.do("Restore")
    machine.archive()

    assert "1 damaged" not in said
    assert 0 == server.end()
    machine.archive()
    rows = rows_in(server.data)
    assert set() == before - set(rows)
    assert {1} == set(rows.values())
    assert [] == server.lines()
    verified = machine.run("tallypost-server --data /var/lib/tallypost verify")
    assert 2 == verified.count("; 0 damaged")


class Filled:
    """A data folder without a server: what was archived, day by day, and what waits in segments."""

    def __init__(self, data: Path) -> None:
        self.data, self.stored = data, set[str]()
        self._clock, self._numbers = SystemClock(), itertools.count(1)
        for folder in ("applications", "segments/open", "erased", "parked"):
            (data / folder).mkdir(parents=True)

    def seal(self, stream: str) -> None:
        """A report and a session are in a sealed segment."""
        told, lines = Told(), []
        for path, name, body in documents(stream):
            at = stamp(self._clock.now() - DAYS_AGO)
            if path == "/v1/reports":
                lines.append(line_of_report(decode_report(body), received=at, sha256="00" * 32))
            else:
                lines.append(line_of_batch(decode_batch(body), received=at, sha256="00" * 32))
            told.add(lines[-1])
            self.stored.add(name)
        stem = f"documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-{next(self._numbers):06d}"
        write_segment(self.data / "segments", stem, told, lines, disk=OsDisk())


def archive(data: Path) -> None:
    """Archive what is due, beside nobody."""
    clock, disk = SystemClock(), OsDisk()
    with contextlib.closing(Coordinator(engine_of(url_of(str(data / "coordinator.sqlite")), clock))) as coordinator:
        archivist = Archivist(
            data,
            coordinator=coordinator,
            tables=Tables(FolderStore(data / "archive", disk=disk), clock=clock, point=disk.point),
            rules=Rules(delay=0, max_delay=604_800, batch_seconds=0),
            disk=disk,
            clock=clock,
            token=secrets.token_hex,
        )
        archivist.start()
        archivist.round()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """A day in seven files a table, and a segment that waits: with it they are eight, which become one."""
    made = Filled(tmp_path_factory.mktemp("filled") / "data")
    for number in range(7):
        made.seal(f"{number:032x}")
        archive(made.data)
    made.seal("ab" * 16)
    return made


@pytest.mark.timeout(240)
@pytest.mark.parametrize("call", range(1, 8))
def test_backup_is_whole_wherever_an_archivist_does_all_its_work_in_between(
    rsync: str, filled: Filled, tmp_path: Path, call: int
) -> None:
    """It archives, removes segments and puts files of a day together, between two of the guide's commands."""
    data, backup, programs = (tmp_path / name for name in ("data", "backup", "programs"))
    shutil.copytree(filled.data, data)
    backup.mkdir()
    programs.mkdir()
    machine = Machine(data, backup)
    # Each call does what was asked for; behind one of them others are at work.
    works = f"{sys.executable} -m tallypost_server --data {data} {' '.join(ARCHIVE)} --once"
    count = f"echo >> {programs}/calls; [ $(wc -l < {programs}/calls) -ne {call} ] || {works} 2> {programs}/said"
    (programs / "rsync").write_text(f'#!/bin/sh\n{rsync} "$@"\ndone=$?\n{count}\nexit $done\n')
    (programs / "rsync").chmod(0o755)

    machine.do("Back up", PATH=f"{programs}:{os.environ['PATH']}")
    assert [] == list((data / "segments").glob("*.zst"))
    assert 1 == len(list((data / "archive" / "reports").glob("day=*/*.parquet")))
    shutil.rmtree(data)
    (data / "applications").mkdir(parents=True)
    said = machine.do("Restore")
    archive(data)

    assert 2 == said.count("; 0 damaged")
    assert dict.fromkeys(filled.stored, 1) == rows_in(data)
    assert [] == list((data / "segments").glob("*.zst"))
