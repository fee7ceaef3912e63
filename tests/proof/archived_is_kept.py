"""Archived means kept, once: archivists that are killed under load lose nothing and write nothing twice.

Takes   a folder, seconds, a seed.
Gives   how often an archivist and the server were killed, and how many reports and events were acknowledged and found.
Never   looks into them: documents go in over HTTP, and are found in the tables as any engine reads them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from .acknowledged_is_kept import children_of
from .server import ENVIRON, free_port, start

DECLARATION = """
application = "example.org/proof"
contact = "privacy@example.org"
consent_version = 1
[counters."proof/inc"]
why = "To be found again"
owner = "the proof"
expires = "never"
[events.seen]
why = "To be found again"
owner = "the proof"
expires = "never"
fields = { number = "count" }
"""
SENDERS = 4
PROGRAM = {"program": "proof", "version": "1", "python": "3.12", "os": "linux", "arch": "x86_64"}
ARCHIVAL = {"archive-delay": "0.5", "archive-max-delay": "4", "archive-batch-seconds": "0.5", "scan-seconds": "0.2"}
STANDSTILL_SECONDS_MAX = 90


class Sent:
    """What was posted, and what of it was acknowledged. Each key belongs to one sender."""

    def __init__(self) -> None:
        self.reports: set[str] = set()
        self.events: set[tuple[str, int]] = set()
        self.posted_reports: set[str] = set()
        self.posted_events: set[tuple[str, int]] = set()


def prove(folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """Post for so many seconds, while two archivists work and are killed, and now and then the server with its own."""
    rng = random.Random(seed)
    data = folder / "data"
    (data / "applications").mkdir(parents=True)
    (data / "applications" / "proof.toml").write_text(DECLARATION)
    port, ended, sent = free_port(), threading.Event(), Sent()
    options = [word for name, value in ARCHIVAL.items() for word in (f"--{name}", value)]
    server = start(data, port, "--seal-seconds", "0.5", *options, archive=True)
    other = _archivist(data, options)
    senders = [threading.Thread(target=_send, args=(port, number, seed, sent, ended)) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    kills = server_kills = 0
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            time.sleep(rng.uniform(0.2, 3))
            choice = rng.random()
            if choice < 0.1:
                server.kill()
                server.wait()
                server_kills += 1
                server = start(data, port, "--seal-seconds", "0.5", *options, archive=True)
            elif choice < 0.55:
                for child in children_of(server.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                        kills += 1
            else:
                other.kill()
                other.wait()
                kills += 1
                other = _archivist(data, options)
    finally:
        ended.set()
        for sender in senders:
            sender.join()
    _wait_until_archived(data)
    for process in (other, server):
        process.terminate()
        assert process.wait(30) == 0, "it did not end well after SIGTERM"
    verified = subprocess.run([*_COMMAND, "--data", str(data), "verify"], env=ENVIRON, capture_output=True, text=True)
    assert verified.returncode == 0, f"verify: {verified.stdout}{verified.stderr}"
    reports = Counter(_rows(data, "reports", ["id"]))
    events = Counter(_rows(data, "events", ["session", "index"]))
    _check("reports", {(report,) for report in sent.reports}, {(report,) for report in sent.posted_reports}, reports)
    _check("events", sent.events, sent.posted_events, events)
    assert sent.reports
    assert sent.events
    found = {"archivist_kills": kills, "server_kills": server_kills}
    return {**found, "reports": len(sent.reports), "events": len(sent.events), "archived": len(reports) + len(events)}


_COMMAND = [sys.executable, "-m", "tallypost_server"]


def _archivist(data: Path, options: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*_COMMAND, "--data", str(data), "archive", *options], env=ENVIRON, stderr=subprocess.DEVNULL
    )


def _wait_until_archived(data: Path) -> None:
    """Archivists that were killed leave a backlog; it is worked off as long as it changes."""
    before: dict[str, Any] = {}
    until = time.monotonic() + STANDSTILL_SECONDS_MAX
    while time.monotonic() < until:
        said = subprocess.run([*_COMMAND, "--data", str(data), "--json", "status"], env=ENVIRON, capture_output=True)
        status = {
            key: value for key, value in json.loads(said.stdout).items() if key in ("segments", "streams", "tasks")
        }
        if not any(status["segments"].values()) and not any(status["tasks"].values()):
            return
        if status != before:
            before, until = status, time.monotonic() + STANDSTILL_SECONDS_MAX
        time.sleep(1)
    raise AssertionError(f"not everything was archived, and nothing more is: {before}")


def _rows(data: Path, name: str, columns: list[str]) -> list[tuple[Any, ...]]:
    rows = DeltaTable(str(data / "archive" / name)).to_pyarrow_table(columns=columns)
    return list(zip(*(rows.column(column).to_pylist() for column in columns), strict=True))


def _check(what: str, acknowledged: set[Any], posted: set[Any], archived: Counter[Any]) -> None:
    missing, invented = acknowledged - set(archived), set(archived) - posted
    twice = [key for key, number in archived.items() if number > 1]
    assert not missing, f"{len(missing)} acknowledged {what} are not in the archive, as {sorted(missing)[:3]}"
    assert not invented, f"{len(invented)} {what} that nobody posted, as {sorted(invented)[:3]}"
    assert not twice, f"{len(twice)} {what} are there twice, as {sorted(twice)[:3]}"


def _send(port: int, number: int, seed: int, sent: Sent, ended: threading.Event) -> None:
    """Reports, and sessions whose batches come in any order, some twice, some never."""
    rng = random.Random(f"{seed}-{number}")
    connection: http.client.HTTPConnection | None = None
    while not ended.is_set():
        report = f"{rng.getrandbits(128):032x}"
        documents = [("/v1/reports", _report(report), [(report,)])]
        session, size = f"{rng.getrandbits(128):032x}", rng.randint(1, 6)
        for place in rng.sample(range(size), size) + ([rng.randrange(size)] if rng.random() < 0.3 else []):
            if rng.random() > 0.1:
                documents.append(_batch(session, place, last=place == size - 1))  # noqa: PERF401  By chance.
        for path, document, keys in documents:
            sent.posted_reports.update(key[0] for key in keys if len(key) == 1)
            sent.posted_events.update(key for key in keys if len(key) == 2)
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    sent.reports.update(key[0] for key in keys if len(key) == 1)
                    sent.events.update(key for key in keys if len(key) == 2)
            except (OSError, http.client.HTTPException):
                connection = None
                time.sleep(0.05)
            time.sleep(0.005)  # So much as is archived on the way.


def _batch(session: str, place: int, *, last: bool) -> tuple[str, dict[str, Any], list[tuple[Any, ...]]]:
    first = place * 5
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    events = [{"name": "seen", "at": at, "fields": {"number": first + number}} for number in range(5)]
    terminal = first + 4 if last else None
    batch = {"v": 1, "kind": "events", "app": "example.org/proof", "session": session, "first": first, "lost": 0}
    keys = [(session, first + number) for number in range(5)]
    return "/v1/events", {**batch, "terminal": terminal, "program": PROGRAM, "events": events}, keys


def _report(identity: str) -> dict[str, Any]:
    return {
        "v": 1,
        "kind": "report",
        "x": 0.5,
        "id": identity,
        "app": "example.org/proof",
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "previous": None,
        "config": None,
        "programs": [{**PROGRAM, "counters": {"proof/inc": 1}, "stacks": {}}],
    }
