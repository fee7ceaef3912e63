"""What all tests of the server build on: a faulty disk, a fake clock, documents, and a server without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tallypost_schema import receipts
from tallypost_server.app import App
from tallypost_server.beside import reader
from tallypost_server.clock import SystemClock
from tallypost_server.metrics import Metrics
from tallypost_server.openapi import description
from tallypost_server.segments.reader import SegmentReader
from tallypost_server.settings import Settings, load
from tallypost_server.testing import FakeClock, FaultyDisk, check

from .databases import Database, File, Postgres, Schema, programs

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

[counters."cmd/old"]
why = "Whether it may go"
owner = "export team"
expires = 2026-11-24

[stacks."crash/KeyError"]
why = "Which crashes come first"
owner = "export team"
expires = "never"

[events.export]
why = "Which formats are worth keeping"
owner = "export team"
expires = "never"
fields = { format = ["pdf", "html"], pages = "count" }
"""
PROGRAM = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where the system has such: making and removing folders is most of what these tests do."""
    with tempfile.TemporaryDirectory(prefix="tallypost-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder with one application; after the test all that lies in it is sound."""
    folder = tmp_path / "data"
    (folder / "applications").mkdir(parents=True)
    (folder / "applications" / "mytool.toml").write_text(DECLARATION)
    (folder / "segments" / "open").mkdir(parents=True)
    (folder / "quarantine").mkdir()
    for path in (folder / "segments", folder / "segments" / "open", folder / "quarantine"):
        path.chmod(0o750)
    yield folder
    assert [] == check(folder)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime.datetime(2026, 11, 24, 10, 0, 0, 123000, tzinfo=datetime.timezone.utc))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def token() -> Callable[[int], str]:
    """Distinct words instead of random ones."""
    numbers = itertools.count(1)
    return lambda size: format(next(numbers), "x").rjust(2 * size, "0")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests."""
    found = programs()
    with tempfile.TemporaryDirectory(prefix="tallypost-postgres-", dir=MEMORY) as folder:
        server = Postgres(Path(folder), found)
        server.make()
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def database_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Path], Database]]:
    """Makes a place for a data folder's coordinator: a file in it, or one on the PostgreSQL server."""
    made: list[Schema] = []

    def make(kind: str, data: Path) -> Database:
        if kind != "postgres":
            return File(data / "coordinator.sqlite")
        made.append(request.getfixturevalue("postgres").schema())
        return made[-1]

    yield make
    for schema in made:
        schema.drop()


@pytest.fixture
def make_settings(data: Path) -> Callable[..., Settings]:
    return lambda **flags: load({"data": str(data), "reserve_bytes": 1, **flags}, {}, None)


def _bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@pytest.fixture
def report() -> Callable[..., bytes]:
    """A report's bytes; keyword arguments replace keys."""

    def make(*, counters: dict[str, int] | None = None, stacks: dict[str, int] | None = None, **keys: Any) -> bytes:
        counts = {
            **PROGRAM,
            "counters": {"cmd/export": 12} if counters is None else counters,
            "stacks": {} if stacks is None else stacks,
        }
        document = {
            "v": 1,
            "kind": "report",
            "x": 0.25,
            "id": "0f" * 16,
            "app": APPLICATION,
            "day": "2026-11-24",
            "previous": None,
            "config": None,
            "programs": [counts],
        }
        return _bytes({**document, **keys})

    return make


@pytest.fixture
def batch() -> Callable[..., bytes]:
    """A batch's bytes, with so many events; keyword arguments replace keys."""

    def make(count: int = 1, **keys: Any) -> bytes:
        event = {"name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {"format": "pdf", "pages": 3}}
        document = {
            "v": 1,
            "kind": "events",
            "app": APPLICATION,
            "session": "ab" * 16,
            "first": 0,
            "lost": 0,
            "terminal": None,
            "program": PROGRAM,
            "events": [event] * count,
        }
        return _bytes({**document, **keys})

    return make


class Client(httpx.AsyncClient):
    """Posts documents to an app without a socket."""

    async def post_report(self, body: bytes, coding: str | None = None, **headers: str) -> httpx.Response:
        return await self.post_to("/v1/reports", body, coding, **headers)

    async def post_to(self, path: str, body: bytes, coding: str | None = None, **headers: str) -> httpx.Response:
        given = {"content-type": "application/json", **{key.replace("_", "-"): text for key, text in headers.items()}}
        if coding is not None:
            given["content-encoding"] = coding
        return await self.post(path, content=body, headers={key: text for key, text in given.items() if text})


class Described:
    """The OpenAPI description, held against answers: whatever a test asks for, in whatever circumstance."""

    def __init__(self) -> None:
        self.document = json.loads(description())
        self.seen: set[tuple[str, str, int, str | None]] = set()
        self._validators: dict[str, Any] = {}

    async def check(self, response: httpx.Response) -> None:
        """Fail if this answer is not in the description, or is not as it says there."""
        await response.aread()
        request, status = response.request, response.status_code
        error = receipts.error_in(response.content)
        code = None if error is None else error.code
        path = next((path for path in self.document["paths"] if self._leads(path, request.url.path)), None)
        method = "get" if request.method == "HEAD" else request.method.lower()
        if path is None or method not in self.document["paths"][path]:
            allowed = (404, "not_found") if path is None else (405, "method_not_allowed")
            assert request.method == "HEAD" or (status, code) == allowed
            return
        self.seen.add((method, path, status, code))
        operation = self.document["paths"][path][method]
        answer = operation["responses"].get(str(status))
        assert answer is not None, f"{method} {path} is answered {status} {code}, which is not in the description"
        for name, header in answer.get("headers", {}).items():
            self.validate(header["$ref"] + "/schema", self._typed(response.headers[name]))
        if request.method == "HEAD" or "content" not in answer:
            assert not response.content
            return
        media_type = response.headers["content-type"].partition(";")[0]
        where = f"#/paths/{_escaped(path)}/{method}/responses/{status}/content/{_escaped(media_type)}/schema"
        assert media_type in answer["content"]
        self.validate(where, json.loads(response.content) if media_type == "application/json" else response.text)
        plain = method == "post" and status == 200 and "content-encoding" not in request.headers
        if plain and len(request.content) < 65536:  # The validator is slow, and a large document has nothing new.
            kind = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            self.validate(kind, json.loads(request.content))

    def validate(self, where: str, value: object) -> None:
        """Fail unless `value` is what the schema at a place of the description says."""
        if where not in self._validators:
            # The rest of the description stands beside the reference, so that its own references lead somewhere.
            self._validators[where] = jsonschema.Draft202012Validator({**self.document, "$ref": where})
        self._validators[where].validate(value)

    def documented(self) -> set[tuple[str, str, int, str | None]]:
        """Each answer that the description has: method, path, status and code."""
        return {
            (method, path, int(status), code)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
            for status, answer in operation["responses"].items()
            for code in _codes(answer)
        }

    @staticmethod
    def _leads(path: str, asked: str) -> bool:
        return asked.startswith(path.partition("{")[0]) if "{" in path else asked == path

    @staticmethod
    def _typed(header: str) -> object:
        return int(header) if header.isdigit() else header


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


def _codes(answer: dict[str, Any]) -> list[str | None]:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    if "allOf" not in schema:
        return [None]
    codes: list[str | None] = schema["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"]
    return codes


@pytest.fixture(scope="session")
def described() -> Described:
    return Described()


@pytest.fixture
def running(
    make_settings: Callable[..., Settings],
    disk: FaultyDisk,
    clock: FakeClock,
    token: Callable[[int], str],
    described: Described,
) -> Callable[..., contextlib.AbstractAsyncContextManager[tuple[App, Client]]]:
    """A server that has started, on the faulty disk and the fake clock; it stops at the end of the block."""

    @contextlib.asynccontextmanager
    async def run(*, started: bool = True, stopped: bool = True, **options: Any) -> AsyncIterator[tuple[App, Client]]:
        app_options = {key: options.pop(key) for key in ("body_seconds_max", "waiting_bytes_max") if key in options}
        app = App(make_settings(**options), disk=disk, clock=clock, token=token, **app_options)
        try:
            if started:
                await app.start()
                await asyncio.sleep(0)  # Its tasks have begun to sleep, so that the clock can wake them.
            async with Client(
                transport=httpx.ASGITransport(app),  # type: ignore[arg-type]
                base_url="http://server",
                event_hooks={"response": [described.check]},
            ) as client:
                yield app, client
        finally:
            disk.open_gate()
            if started and stopped:
                assert await app.stop()
            app.close()

    return run


@pytest.fixture
def segments(make_settings: Callable[..., Settings], data: Path) -> SegmentReader:
    return reader(make_settings())


@pytest.fixture
def stored(segments: SegmentReader) -> Callable[[], list[dict[str, Any]]]:
    """Every stored line, decoded."""
    return lambda: [json.loads(line) for line in segments.lines()]


class Process:
    """A real server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address

    def client(self, **options: Any) -> httpx.Client:
        if self.address.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.address.removeprefix("unix:"))
            return httpx.Client(base_url="http://server", transport=transport, **options)
        return httpx.Client(base_url=f"http://{self.address}", **options)


@pytest.fixture
def spawn(data: Path) -> Iterator[Callable[..., Process]]:
    """Starts ``tallypost-server serve`` and waits until it takes documents."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, listen: str = "127.0.0.1:0") -> Process:
        environment = {key: text for key, text in os.environ.items() if not key.startswith("TALLYPOST")}
        command = [sys.executable, "-m", "tallypost_server", "--data", str(data), "serve", "--listen", listen]
        command += ["--reserve-bytes", "1", *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        assert process.stderr is not None
        said = ""
        while (found := re.search(r"listening on (\S+),", said)) is None:
            line = process.stderr.readline()
            assert line, f"the server ended: {said}"
            said += line
        server = Process(process, found[1])
        with server.client() as client:
            for _ in range(500):
                if client.get("/readyz").status_code == 200:
                    break
        return server

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def today() -> str:
    return SystemClock().now().date().isoformat()


@pytest.fixture
def soon() -> Callable[[Callable[[], bool]], Any]:
    """Waits in the event loop until something holds that another thread brings about."""

    async def wait(holds: Callable[[], bool]) -> None:
        for _ in range(5000):
            if holds():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("it did not come to hold")

    return wait
