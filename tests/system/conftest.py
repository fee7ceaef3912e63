"""What the system tests act through: HTTP at the proxy, and the command line in the containers.

Takes   what ``scripts/integration.py`` sets: ``TALLYPOST_SYSTEM_URL`` (the proxy), ``TALLYPOST_SYSTEM_EXEC`` (runs a
        command in the server's container) and ``TALLYPOST_SYSTEM_COMPOSE`` (compose, with project and file).
Gives   fixtures.
Never   imports anything of Tallypost: what these tests know, a user knows.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import os
import secrets
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
import zstandard

APPLICATION = "example.org/system-test"
READY_SECONDS_MAX = 40

Json = dict[str, Any]
NewDocument = Callable[..., Json]
Post = Callable[..., httpx.Response]


@dataclasses.dataclass(frozen=True)
class Segments:
    """The server's folder ``segments/``, as it lies on disk."""

    files: Mapping[str, bytes]

    @property
    def open(self) -> list[str]:
        """The names of what is not sealed."""
        return [name for name in self.files if name.startswith("open/")]

    @property
    def sealed(self) -> dict[str, bytes]:
        """The sealed segments' bytes by name."""
        return {name: held for name, held in self.files.items() if name.endswith(".jsonl.zst")}

    def lines(self) -> list[Json]:
        """Each line of each sealed segment."""
        return [json.loads(line) for held in self.sealed.values() for line in decompressed(held).splitlines()]

    def manifest(self, name: str) -> Json:
        """What lies beside the segment `name`."""
        return dict(json.loads(self.files[f"{name}.manifest.json"]))


@dataclasses.dataclass(frozen=True)
class Containers:
    """The command line: compose and the engine."""

    exec_in_server: list[str]
    compose_command: list[str]
    engine: str = "docker"
    identities: dict[str, str] = dataclasses.field(default_factory=dict)

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the server's container; its exit code is the caller's to judge."""
        return self._run([*self.exec_in_server, *command], check=False)

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run compose on this project."""
        return self._run([*self.compose_command, *arguments], check=check)

    def identity(self, service: str) -> str:
        """The id of a service's container, running or not: it stays the same over stops and starts."""
        if service not in self.identities:
            self.identities[service] = self.compose("ps", "--all", "--quiet", service).stdout.strip()
        return self.identities[service]

    def inspect(self, service: str) -> Json:
        """All that the engine knows about a service's container."""
        return dict(json.loads(self._run([self.engine, "inspect", self.identity(service)]).stdout)[0])

    def kill(self, service: str) -> None:
        """End all of a service's container at once, without a word to its processes."""
        self._run([self.engine, "kill", "--signal", "KILL", self.identity(service)])

    def remove(self, container: str) -> None:
        """End a container and forget it."""
        self._run([self.engine, "rm", "--force", container])

    def segments(self) -> Segments:
        """Copy the server's segments out of its volume; the container may be stopped."""
        source = f"{self.identity('server')}:/var/lib/tallypost/segments"
        copied = subprocess.run([self.engine, "cp", source, "-"], capture_output=True, check=True, timeout=30).stdout
        with tarfile.open(fileobj=io.BytesIO(copied)) as tar:
            members = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
            return Segments({name.partition("/")[2]: held.read() for name, held in members if held is not None})

    def _run(self, command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=55)
        if check and ran.returncode != 0:
            pytest.fail(f"{shlex.join(command)} ended with {ran.returncode}: {ran.stderr or ran.stdout}")
        return ran


def decompressed(held: bytes) -> bytes:
    """All frames of a zstd file, as ``zstdcat`` prints them."""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(held), read_across_frames=True) as reader:
        return reader.read()


def today() -> datetime.date:
    """The UTC day."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def encode(document: Json) -> bytes:
    """A document's bytes, as the client writes them."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set; run these tests with: python scripts/integration.py")
    return value


@pytest.fixture(scope="session")
def containers() -> Containers:
    """The command line in and around the containers."""
    return Containers(
        exec_in_server=shlex.split(_setting("TALLYPOST_SYSTEM_EXEC")),
        compose_command=shlex.split(_setting("TALLYPOST_SYSTEM_COMPOSE")),
    )


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """A client of the proxy, with one connection that it keeps."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    with httpx.Client(base_url=_setting("TALLYPOST_SYSTEM_URL"), limits=limits, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def post(http: httpx.Client) -> Post:
    """Post a document, given as an object or as bytes; a header of None is left out."""

    def post(document: Json | bytes, path: str = "/v1/reports", **headers: str | None) -> httpx.Response:
        given = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        body = document if isinstance(document, bytes) else encode(document)
        return http.post(path, content=body, headers={name: text for name, text in given.items() if text is not None})

    return post


@pytest.fixture
def new_report() -> NewDocument:
    """Make an upload report with an id of its own; what is given replaces or adds a key."""

    def new_report(**changes: Any) -> Json:
        program = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
        counters = {"cmd/export": 12, "cmd/export:pdf": 3, "export/seconds:<=0.1": 5}
        stacks = {"crash/KeyError\nmytool.cli:main:+12\nmytool.io:load:+4": 1}
        document: Json = {"v": 1, "kind": "report", "x": 0.2739, "id": secrets.token_hex(16), "app": APPLICATION}
        document |= {"day": today().isoformat(), "previous": None, "config": None}
        document |= {"programs": [{**program, "counters": counters, "stacks": stacks}]}
        return document | changes

    return new_report


@pytest.fixture
def new_batch() -> NewDocument:
    """Make a batch of two events, the whole of a session of its own; what is given replaces or adds a key."""

    def new_batch(**changes: Any) -> Json:
        program = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
        at = f"{today().isoformat()}T10:00:00.123Z"
        events = [{"name": "export", "at": at, "fields": {"format": "pdf", "pages": pages}} for pages in (3, 4)]
        document: Json = {"v": 1, "kind": "events", "app": APPLICATION, "session": secrets.token_hex(16)}
        document |= {"first": 0, "lost": 0, "terminal": 1, "program": program, "events": events}
        return document | changes

    return new_batch


@pytest.fixture
def show(containers: Containers) -> Callable[[str], list[Json]]:
    """Ask the server's command for a stream's entries."""

    def show(stream: str) -> list[Json]:
        shown = containers.exec("tallypost-server", "show", stream)
        assert 0 == shown.returncode, shown.stderr
        return [json.loads(line) for line in shown.stdout.splitlines()]

    return show


@pytest.fixture
def until_ready(http: httpx.Client) -> Callable[[], None]:
    """Wait until the server says, through the proxy, that it can store."""

    def until_ready() -> None:
        last: object = None
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                last = http.get("/readyz")
            except httpx.TransportError as error:
                last = error
            if isinstance(last, httpx.Response) and last.status_code == httpx.codes.OK:
                return
            time.sleep(0.1)
        pytest.fail(f"the server was not ready within {READY_SECONDS_MAX} s; the last answer was {last!r}")

    return until_ready
