"""What tests of the archive share: worlds on any store and database, and a real store."""

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
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from tallypost_server.archive.store import FolderStore, ObjectStore, S3Store
from tallypost_server.disk import Disk
from tallypost_server.testing import FakeClock, FaultyDisk
from tallypost_server.testing_archive import MemoryTables

from ..databases import KINDS, Database
from .world import DELAY, World


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, data: Path, disk: Disk) -> ObjectStore:
    """An empty store: a folder, or a bucket of a real S3-compatible server."""
    return _store(request, data, disk)


def _store(request: pytest.FixtureRequest, data: Path, disk: Disk) -> ObjectStore:
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
def on(disk: Disk, clock: FakeClock, database_of: Callable[[str, Path], Database]) -> Iterator[Callable[..., World]]:
    """Makes a world on a data folder; if nothing else is said its coordinator is in a file there."""
    with contextlib.ExitStack() as stack:

        def make(
            data: Path,
            store: ObjectStore | MemoryTables,
            own_disk: Disk = disk,
            *,
            kind: str = "file",
            **options: float,
        ) -> World:
            made = World(data, clock, own_disk, database_of(kind, data), store, **options)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(
    params=["folder", pytest.param("s3", marks=pytest.mark.s3), pytest.param("postgres", marks=pytest.mark.postgres)]
)
def archive(request: pytest.FixtureRequest, on: Callable[..., World], data: Path, disk: Disk) -> World:
    """A world on each store, and on each database."""
    return on(data, _store(request, data, disk), kind=request.param)


@pytest.fixture(params=KINDS)
def local(request: pytest.FixtureRequest, on: Callable[..., World], data: Path, disk: Disk) -> World:
    """A world whose tables lie in a folder, on each database."""
    return on(data, FolderStore(data / "archive", disk=disk), kind=request.param)


@pytest.fixture(params=["memory", "folder", pytest.param("postgres", marks=pytest.mark.postgres)])
def world(request: pytest.FixtureRequest, on: Callable[..., World], data: Path, disk: FaultyDisk) -> World:
    """A world whose tables lie in memory, and one whose tables are real: both do the same. Sessions wait a while."""
    tables = FolderStore(data / "archive", disk=disk) if request.param == "folder" else MemoryTables(point=disk.point)
    return on(data, tables, kind=request.param, delay=DELAY)


@pytest.fixture(params=KINDS)
def memory(request: pytest.FixtureRequest, on: Callable[..., World], data: Path, disk: FaultyDisk) -> World:
    """A world whose tables lie in memory, on each database. Sessions wait a while."""
    return on(data, MemoryTables(point=disk.point), kind=request.param, delay=DELAY)
