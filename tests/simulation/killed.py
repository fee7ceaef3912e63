"""A process of the application, or of its daily work, that is ended at one named fault point.

Takes   what to do, a folder, a fault point (or ``-`` for none), as arguments.
Gives   exit status 9 where the fault point was reached, and in ``returned`` a dot for each increment that returned.
Never   runs anything after the fault point: the process ends there as by `os._exit`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tallypost import Telemetry
from tallypost.daily import Daily, LastRun
from tallypost.seams import Disk
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk
from tallypost.uploads.pending import Pending
from tallypost.uploads.transport import Answer
from tallypost_schema import documents, receipts
from tallypost_schema.documents import Batch, Event, Program

APPLICATION = "example.org/mytool"
DECLARATION = """
application = "example.org/mytool"
contact = "privacy@example.org"
[counters."cmd/export"]
why = "To be counted"
owner = "tests"
expires = "never"
[events.export]
why = "To be logged"
owner = "tests"
expires = "never"
fields = { pages = "count" }
"""
COUNTS = 5
BATCHES = 254


class KeepingServer:
    """A server that keeps what it takes in a file, and refuses reports if it is told to."""

    def __init__(self, kept: Path, *, refuses: bool) -> None:
        self._kept, self._refuses = kept, refuses

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Keep a document."""
        import zstandard

        document = zstandard.ZstdDecompressor().decompress(body)
        if self._refuses and url.endswith("/reports"):
            return Answer(422, receipts.encode_error("invalid", "refused by the test", retry=False), {})
        with self._kept.open("ab") as file:
            file.write(document + b"\n")
        return Answer(200, receipts.encode_receipt(receipts.hash_of(document)), {})

    def get(self, url: str, etag: str | None) -> Answer:
        """Have no config."""
        return Answer(404, b"", {})


def count(folder: Path, disk: Disk, at: str) -> None:
    """Count and log."""
    telemetry = Telemetry(
        APPLICATION,
        "1.2.3",
        declaration=folder / "telemetry.toml",
        dir=folder / "state",
        uploader="manual",
        environ={"TALLYPOST": "on"},
        clock=FakeClock(at),
        disk=disk,
    )
    counter = telemetry.counter("cmd/export")
    returned = os.open(folder / "returned", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for n in range(COUNTS):
        counter.inc()
        os.write(returned, b".")
        telemetry.event("export", pages=n)
    telemetry.close()


def daily(folder: Path, disk: Disk, at: str) -> None:
    """All three phases."""
    Daily(
        StateDirectory(str(folder / "state"), APPLICATION),
        last_run=LastRun(APPLICATION, "mytool", "1.2.3", "https://telemetry.example.org", "none"),
        declaration=(folder / "telemetry.toml").read_bytes(),
        default="local",
        environ={"TALLYPOST": "on"},
        clock=FakeClock(at),
        disk=disk,
        transport=KeepingServer(folder / "kept", refuses=(folder / "refuses").exists()),
    ).upload()


def fill(folder: Path, disk: Disk, at: str) -> None:
    """Record more batches than may wait, of two sessions."""
    directory = StateDirectory(str(folder / "state"), APPLICATION)
    for path in directory.folders():
        disk.make_folder(path)
    pending = Pending(directory, disk=disk)
    program = Program("mytool", "1.2.3", "3.12", "linux", "x86_64")
    for n in range(BATCHES):
        session = "ab"[n % 2] * 32
        batch = Batch(
            1, "events", APPLICATION, session, n // 2, 0, None, program, [Event("export", f"{at[:19]}.000Z", {})]
        )
        pending.record(f"{session}.{n // 2}.json", documents.encode(batch), "on 2026-11-20 1 user")
    pending.scan()


def main(what: str, folder: str, point: str, at: str) -> None:
    """Do it."""
    disk = FaultyDisk()
    if point != "-":
        disk.at(point, lambda: os._exit(9))
    {"count": count, "daily": daily, "fill": fill}[what](Path(folder), disk, at)
    print(json.dumps(sorted(disk.points)))


if __name__ == "__main__":
    main(*sys.argv[1:])
