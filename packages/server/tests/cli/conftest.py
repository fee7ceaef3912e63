"""What all tests of commands build on."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallypost_server import archiving
from tallypost_server.archive.archivist import Archivist, Round, Rules
from tallypost_server.archive.store import FolderStore
from tallypost_server.archive.tables import Tables
from tallypost_server.cli.main import main
from tallypost_server.settings import Settings
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.testing import FakeClock, FaultyDisk

from ..databases import Database, File


@pytest.fixture
def database(data: Path) -> Database:
    """Where the coordinator lies; modules that are about it have it on a PostgreSQL server too."""
    return File(data / "coordinator.sqlite")


@pytest.fixture
def one_lane(data: Path, database_of: Callable[[str, Path], Database], clock: FakeClock) -> Callable[[str], Database]:
    """A database with one lane, of whatever kind."""

    def make(kind: str) -> Database:
        made = database_of(kind, data)
        if kind == "postgres":
            Coordinator(made.engine(clock), lanes=1).close()
        return made

    return make


@pytest.fixture
def make_settings(make_settings: Callable[..., Settings], database: Database) -> Callable[..., Settings]:
    return lambda **flags: make_settings(**({"coordinator": database.place} | flags))


@pytest.fixture
def say(data: Path, database: Database, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the data folder: its exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["--data", str(data), *arguments], {"TALLYPOST_SERVER_COORDINATOR": database.place})
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def post(
    running: Callable[..., contextlib.AbstractAsyncContextManager[tuple[Any, Any]]],
) -> Callable[..., Awaitable[None]]:
    """Posts documents to a server, which then stops: they are in one sealed segment."""

    async def send(*documents: bytes) -> None:
        async with running() as (_, client):
            for document in documents:
                path = "/v1/reports" if b'"kind":"report"' in document else "/v1/events"
                assert 200 == (await client.post_to(path, document)).status_code

    return send


@pytest.fixture
def archivist(
    make_settings: Callable[..., Settings], disk: FaultyDisk, clock: FakeClock
) -> Callable[..., contextlib.AbstractContextManager[Archivist]]:
    """An archivist on the faulty disk that has started; settings may be given, complete sessions wait for nothing."""

    @contextlib.contextmanager
    def start(**options: Any) -> Iterator[Archivist]:
        settings = make_settings(**{"archive_delay": 0, **options})
        store = FolderStore(Path(settings.archive), disk=disk)
        with archiving.coordinator(settings) as opened:
            works = Archivist(
                settings.data,
                coordinator=opened,
                tables=Tables(store, clock=clock, point=disk.point),
                rules=Rules(settings.archive_delay, settings.archive_max_delay, 0.0, settings.keep_days),
                disk=disk,
                clock=clock,
                token=secrets.token_hex,
            )
            works.start()
            yield works

    return start


@pytest.fixture
def archive(archivist: Callable[..., contextlib.AbstractContextManager[Archivist]]) -> Callable[..., Round]:
    """Archives what is due, in one round."""

    def work(**options: Any) -> Round:
        with archivist(**options) as works:
            return works.round()

    return work
