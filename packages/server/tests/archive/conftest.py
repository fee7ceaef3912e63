"""What tests of the archive share: sealed segments, archivists on any store, and what the tables hold in the end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pyarrow import fs

from tallypost_schema import documents, receipts
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.columns import TABLES, TableName
from tallypost_server.archive.store import FolderStore, ObjectStore, S3Store
from tallypost_server.archive.tables import Tables
from tallypost_server.clock import stamp
from tallypost_server.disk import Disk, OsDisk
from tallypost_server.metrics import Metrics
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.seal import Sealer
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.streams.database import engine_of, url_of
from tallypost_server.testing import FakeClock, FaultyDisk
from tallypost_server.testing_archive import MemoryTables

from .world import World

DAY = 86_400.0
_tokens = itertools.count(1)  # No two archives of a test make the same.


class Archive:
    """A data folder with segments, and whoever archives them; nothing waits for more rows."""

    def __init__(self, data: Path, *, store: ObjectStore, disk: Disk, clock: FakeClock, torn: Any) -> None:
        self.data, self.store, self.disk, self.clock, self._torn = data, store, disk, clock, torn
        self._segments = itertools.count(1)
        self._open: list[Coordinator] = []

    def seal(self, *bodies: bytes) -> str:
        """Put documents into a sealed segment, received now; its name."""
        stem = f"documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-{next(self._segments):06d}"
        lines = b"".join(map(self._line, bodies))
        path = self.data / "segments" / "open" / (stem + ".open")
        path.write_bytes(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(lines))
        path.chmod(0o640)
        Sealer(self.data / "segments", disk=OsDisk(), metrics=Metrics(), torn_keeper=self._torn).seal(stem)
        return stem + ".jsonl.zst"

    def _line(self, body: bytes) -> bytes:
        received, sha256 = stamp(self.clock.now()), receipts.hash_of(body)
        if json.loads(body)["kind"] == "report":
            return line_of_report(documents.decode_report(body), received=received, sha256=sha256)
        return line_of_batch(documents.decode_batch(body), received=received, sha256=sha256)

    def coordinator(self, place: Path | None = None) -> Coordinator:
        """The coordinator, opened once more."""
        opened = Coordinator(engine_of(url_of(str(place or self.place)), self.clock))
        self._open.append(opened)
        return opened

    @property
    def place(self) -> Path:
        """Where the coordinator's file lies."""
        return self.data / "coordinator.sqlite"

    def lose_coordinator(self) -> None:
        """Remove the coordinator, while nothing runs."""
        self.close()
        for ending in ("", "-wal", "-shm"):
            self.place.with_name(self.place.name + ending).unlink(missing_ok=True)

    def close(self) -> None:
        """Close what was opened."""
        for opened in self._open:
            opened.close()
        self._open = []

    def tables(self, store: ObjectStore | None = None) -> Tables:
        """The tables."""
        return Tables(store or self.store, clock=self.clock, point=self.disk.point)

    def archivist(self, *, store: ObjectStore | None = None, delay: float = 0.0, started: bool = True) -> Archivist:
        """One more archivist, on a coordinator opened for it; it was started, if nothing else is said."""
        made = Archivist(
            self.data,
            coordinator=self.coordinator(),
            tables=self.tables(store),
            rules=Rules(delay, 7 * DAY, 0.0),
            disk=self.disk,
            clock=self.clock,
            token=self.token,
        )
        if started:
            made.start()
        return made

    def token(self, size: int) -> str:
        """So many bytes in hex, that were not given before, and of which each is another."""
        return format(next(_tokens) * 0x9E3779B97F4A7C15 % 2**64, "016x").ljust(2 * size, "0")

    def work(self, archivist: Archivist | None = None) -> int:
        """Archive until nothing is due; how many tasks were finished."""
        archivist = archivist or self.archivist()
        finished = 0
        while True:
            done = archivist.round()
            finished += done.archived
            if not done.registered and not done.archived and not done.removed:
                return finished

    def rows(self, name: TableName) -> list[dict[str, Any]]:
        """All rows of a table, sorted by their key."""
        tables = self.tables()
        found = [row for file in tables.files(name) for row in tables.read(name, file.path).to_pylist()]
        return sorted(found, key=lambda row: [row[column] for column in TABLES[name].key])

    def reports(self) -> Counter[str]:
        """How often each report is in the archive."""
        return Counter(row["id"] for row in self.rows("reports"))

    def events(self) -> Counter[tuple[str, int]]:
        """How often each event is in the archive."""
        return Counter((row["session"], row["index"]) for row in self.rows("events"))

    def part(self, session: str) -> dict[str, Any]:
        """What the index tells of a session, by its highest part."""
        return [row for row in self.rows("sessions") if row["session"] == session][-1]

    def segments(self) -> list[str]:
        """The sealed segments that are left."""
        return sorted(path.name for path in (self.data / "segments").glob("*.zst"))

    def damages(self) -> list[str]:
        """What is damaged in the tables' logs."""
        return [damage.name for name in TABLES for damage in self.tables().damages(name)]


@pytest.fixture
def torn() -> Any:
    class Torn:
        def keep_torn(self, *_: Any) -> None:
            raise AssertionError("a segment is torn")

        def keep_damaged(self, *_: Any) -> None:
            raise AssertionError("a segment is damaged")

    return Torn()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, data: Path, disk: Disk) -> ObjectStore:
    """An empty store: a folder, or a bucket of a real S3-compatible server."""
    if request.param == "s3":
        made: ObjectStore = request.getfixturevalue("bucket")()
        return made
    return FolderStore(data / "archive", disk=disk)


ACCESS_KEY, SECRET_KEY = "tallypost-test", "not-a-secret"


class Server:
    """SeaweedFS, on free ports of this machine alone, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        assert program is not None, "there is no program weed: make s3 installs it"
        keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [{"name": "test", "credentials": keys, "actions": actions}]}))
        (folder / "stored").mkdir(exist_ok=True)
        parts = ("master.port", "volume.port", "filer.port", "s3.port")
        ports = dict(zip([*parts, *(f"{part}.grpc" for part in parts)], free_ports(2 * len(parts)), strict=True))
        self._command = [program, "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        self._command += [f"-dir={folder / 'stored'}", f"-s3.config={config}"]
        self._command += ["-master.volumeSizeLimitMB=64", "-volume.max=64", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        self._command += [f"-{name}={port}" for name, port in ports.items()]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._places = itertools.count(1)
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": endpoint,
        }
        self._objects = fs.S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region="us-east-1",
            scheme="http",
            endpoint_override=endpoint.removeprefix("http://"),
            allow_bucket_creation=True,
        )

    def start(self) -> None:
        """Return once it stores."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._log.parent)
        for _ in range(120):
            if self._stores():
                return
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.25)
        raise AssertionError(self._log.read_text())

    def _stores(self) -> bool:
        try:
            self._objects.create_dir("ready")
            with self._objects.open_output_stream("ready/is") as stream:
                stream.write(b"it")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Be away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def place(self) -> str:
        """A new place in the one bucket: each bucket more would take volumes of its own."""
        self._objects.create_dir("tables")
        return f"s3://tables/of/test-{next(self._places)}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, none of them twice."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Server]:
    """A store for all tests."""
    with tempfile.TemporaryDirectory(prefix="tallypost-s3-") as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def bucket(seaweed: Server) -> Callable[[], S3Store]:
    """Makes an empty store in a bucket."""
    return lambda: S3Store(seaweed.place(), environment=seaweed.environment)


@pytest.fixture
def on(disk: Disk, clock: FakeClock, torn: Any) -> Iterator[Callable[..., Archive]]:
    """Makes an archive on a data folder."""
    with contextlib.ExitStack() as stack:

        def make(data: Path, store: ObjectStore, own_disk: Disk = disk) -> Archive:
            made = Archive(data, store=store, disk=own_disk, clock=clock, torn=torn)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def archive(on: Callable[..., Archive], data: Path, store: ObjectStore) -> Archive:
    """An archive on each store."""
    return on(data, store)


@pytest.fixture
def local(on: Callable[..., Archive], data: Path, disk: Disk) -> Archive:
    """An archive in a folder."""
    return on(data, FolderStore(data / "archive", disk=disk))


@pytest.fixture(params=["memory", "folder"])
def world(request: pytest.FixtureRequest, data: Path, clock: FakeClock, disk: FaultyDisk) -> Iterator[World]:
    """A world whose tables lie in memory, and one whose tables are real: both do the same."""
    tables: Tables = MemoryTables(point=disk.point)
    if request.param == "folder":
        tables = Tables(FolderStore(data / "archive", disk=disk), clock=clock, point=disk.point)
    with contextlib.closing(World(data, clock, disk, tables)) as made:
        yield made


@pytest.fixture
def memory(data: Path, clock: FakeClock, disk: FaultyDisk) -> Iterator[World]:
    """A world whose tables lie in memory."""
    with contextlib.closing(World(data, clock, disk, MemoryTables(point=disk.point))) as made:
        yield made
