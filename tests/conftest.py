"""What the tests that cross packages share: a real server, and an application in processes of its own."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_schema.documents import decode_batch, decode_report
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.store import FolderStore
from tallypost_server.archive.tables import Tables
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.write import Told, write_segment
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.streams.database import engine_of, url_of
from tallypost_server.testing import FakeClock, FaultyDisk

APPLICATION = "example.org/mytool"
DECLARATION = """
application = "example.org/mytool"
contact = "privacy@example.org"
about = "https://example.org/telemetry"
consent_version = 1

[counters."cmd/export"]
why = "Which formats are worth keeping"
owner = "export team"
buckets = ["pdf", "html"]
expires = "never"

[histograms."export/seconds"]
why = "Whether it is fast enough"
owner = "export team"
expires = "never"
edges = [0.1, 1, 10]
"""
# What an application is started with: nothing of the test runner, so that it behaves as at a user's.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTEST", "TALLYPOST", "COV_")) and name not in ("CI", "DO_NOT_TRACK")
}


class Server:
    """A server in a process of its own, on its defaults: a data folder, nothing else."""

    def __init__(self, data: Path) -> None:
        self.data = data
        applications = data / "applications"
        applications.mkdir(parents=True)
        (applications / "mytool.toml").write_text(DECLARATION)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self, *options: str, ready: bool = True) -> None:
        """Start it, and wait until it can store, unless it never will."""
        command = ["serve", "--listen", f"127.0.0.1:{self.port}", "--no-archive", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tallypost_server", "--data", str(self.data), *command],
            env=CLEAN,
            stderr=subprocess.PIPE,
        )
        for _ in range(200):
            if not ready or self._is_ready():
                return
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            time.sleep(0.05)
        raise AssertionError("the server did not become ready")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(20)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return status

    def lines(self) -> list[dict[str, Any]]:
        """The lines of all sealed segments, in order."""
        found = []
        for path in sorted((self.data / "segments").glob("*.jsonl.zst")):
            content = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
            found += [json.loads(line) for line in content.splitlines()]
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that takes `APPLICATION`'s documents."""
    server = Server(tmp_path / "server")
    yield server
    if server.process.poll() is None:
        server.end()


class User:
    """A user's machine: a folder of state, and programs that run on it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.state = folder, folder / "state"
        (folder / "telemetry.toml").write_text(DECLARATION)
        self.environ = {**CLEAN, "TALLYPOST_DIR": str(self.state)}
        self.home = self.state / "example.org" / "mytool"

    def script(self, body: str, endpoint: str = "") -> str:
        """A program that has `telemetry` and does `body`."""
        return (
            "from tallypost import Telemetry\n"
            f"telemetry = Telemetry({APPLICATION!r}, '1.2.3', endpoint={endpoint!r} or None, uploader='manual',\n"
            f"                      declaration={str(self.folder / 'telemetry.toml')!r})\n{body}\n"
        )

    def run(self, *command: str, at: str | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run ``python …`` or ``tallypost …``, at another time if need be."""
        line = [sys.executable, *command[1:]] if command[0] == "python" else [sys.executable, "-m", *command]
        if at is not None:
            line = [sys.executable, "-m", "tallypost.testing", "--at", at, "--", *command]
        return subprocess.run(line, env=self.environ, capture_output=True, check=check, timeout=60)

    def reports(self) -> dict[str, Any]:
        """By day, the local reports."""
        paths = sorted((self.home / "reports").glob("local.*.json"))
        return {path.name[6:16]: json.loads(path.read_bytes()) for path in paths}

    def total(self, name: str) -> int:
        """What all local reports together have of a counter."""
        return sum(
            program["counters"].get(name, 0) for report in self.reports().values() for program in report["programs"]
        )


@pytest.fixture
def user(tmp_path: Path) -> User:
    """A machine on which nothing was counted yet."""
    return User(tmp_path / "user")


@pytest.fixture
def archived() -> Callable[[Path], None]:
    """Makes an archive in a data folder, of a report and a session."""

    def make(data: Path) -> None:
        disk = FaultyDisk()
        segments, stem = data / "segments", "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"
        for folder in (data / "applications", segments / "open"):
            folder.mkdir(parents=True)
        program = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
        counts = {"cmd/export": 12, "cmd/export:pdf": 3, "export/seconds:<=1": 4, "export/seconds:>10": 1}
        counted = {**program, "counters": counts, "stacks": {"crash/KeyError\nmytool.cli:main:+12": 1}}
        events = [{"name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {"format": "pdf", "pages": 3}}] * 2
        report = {"v": 1, "kind": "report", "x": 0.25, "id": "0e" * 16, "app": APPLICATION, "day": "2026-11-24"}
        report |= {"previous": None, "config": None, "programs": [counted]}
        batch = {"v": 1, "kind": "events", "app": APPLICATION, "session": "0f5e8d7c6b5a49382716051423324150"}
        batch |= {"first": 0, "lost": 0, "terminal": 1, "program": program, "events": events}
        at = "2026-11-24T10:00:00.123Z"
        lines = line_of_report(decode_report(json.dumps(report).encode()), received=at, sha256="00" * 32)
        lines += line_of_batch(decode_batch(json.dumps(batch).encode()), received=at, sha256="00" * 32)
        told = Told()
        told.add(lines)
        write_segment(segments, stem, told, [lines], disk=disk)
        clock = FakeClock(datetime.datetime(2026, 11, 24, 11, tzinfo=datetime.timezone.utc))
        coordinator = Coordinator(engine_of(url_of(str(data / "coordinator.sqlite")), clock))
        tables = Tables(FolderStore(data / "archive", disk=disk), clock=clock, point=disk.point)
        archivist = Archivist(
            data,
            coordinator=coordinator,
            tables=tables,
            rules=Rules(delay=0, max_delay=0, batch_seconds=0),
            disk=disk,
            clock=clock,
            token=secrets.token_hex,
        )
        assert 2 == archivist.round().archived
        coordinator.close()

    return make


@pytest.fixture
def day() -> Callable[[int], str]:
    """The UTC day so many days ago."""
    return lambda ago: time.strftime("%Y-%m-%d", time.gmtime(time.time() - ago * 86400))
