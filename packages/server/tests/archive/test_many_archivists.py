"""Many archivists at the same time, each with its own connection to one PostgreSQL server, by the server's clock."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallypost_server import limits
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.store import FolderStore
from tallypost_server.archive.tables import Tables
from tallypost_server.clock import SystemClock
from tallypost_server.disk import OsDisk
from tallypost_server.errors import CannotArchive
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.streams.database import engine_of
from tallypost_server.streams.waiting import lane_of
from tallypost_server.testing import FaultyDisk, Killed

from ..databases import Postgres, Schema
from ..together import together
from .world import MAX_DELAY, World

REPORT = "0f" * 16
SESSION = "ab" * 16
NAMES = [format(number * 0x9E3779B97F4A7C15 % 2**64, "016x") * 2 for number in range(48)]


@pytest.fixture
def shared(on: Callable[..., World], data: Path) -> World:
    """A world whose coordinator lies on a server, with as many lanes as it gets there."""
    made = on(data, FolderStore(data / "archive", disk=OsDisk()), OsDisk(), kind="postgres")
    made.lanes = limits.postgresql_lanes
    return made


def fill(world: World, report: Callable[..., bytes], batch: Callable[..., bytes]) -> None:
    """Segments with reports, and with sessions that are spread over them, in no order; some of it comes twice."""
    bodies = [report(id=name) for name in NAMES]
    bodies += [batch(2, session=name, first=first, terminal=5) for first in (4, 0, 2) for name in NAMES]
    bodies += bodies[::7]
    for begin in range(0, len(bodies), 40):
        world.seal(*bodies[begin : begin + 40])


def assert_each_once(world: World) -> None:
    assert dict.fromkeys(NAMES, 1) == world.reports()
    assert {(name, index): 1 for name in NAMES for index in range(6)} == world.events()
    assert ["complete"] * len(NAMES) == [world.part(name)["state"] for name in NAMES]
    assert [] == world.segments()
    assert {"waiting": 0, "running": 0, "failed": 0} == world.coordinator().counts().tasks


@contextlib.contextmanager
def archivist(world: World, name: int, go_on: Callable[[], bool] = lambda: True) -> Iterator[Archivist]:
    """One that works by the real clocks: its own, and the server's."""
    assert isinstance(world.database, Schema)
    clock = SystemClock()
    opened = Coordinator(engine_of(world.database.place, clock))
    try:
        yield Archivist(
            world.data,
            coordinator=opened,
            tables=Tables(world.store, clock=clock, point=lambda point: None),
            rules=Rules(0.0, MAX_DELAY, 0.0),
            disk=OsDisk(),
            clock=clock,
            token=lambda size: f"{name:02x}" + world.token(size - 1),
            go_on=go_on,
        )
    finally:
        opened.close()


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_archivists_at_once_over_many_lanes_archive_each_row_once(
    shared: World, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """They start together on an empty database, and segments come while they work."""
    fill(shared, report, batch)
    shared.coordinator().close()
    worked: list[int] = []

    def work(name: int, _: threading.Event) -> None:
        with archivist(shared, name) as works:
            works.start()
            idle = 0
            while idle < 3:
                done = works.round()
                worked.extend([name] * done.archived)
                idle = idle + 1 if done.idle and not done.busy else 0

    with together(3, work):
        pass

    assert_each_once(shared)
    assert len(set(worked)) > 1, "one did all the work"


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_archivists_that_are_processes_archive_each_row_once(
    shared: World, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """As the command starts them, several at once; one is killed in the middle, and the others end with all done."""
    assert isinstance(shared.database, Schema)
    fill(shared, report, batch)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TALLYPOST_SERVER")}
    environment["TALLYPOST_SERVER_COORDINATOR"] = shared.database.place
    command = [sys.executable, "-m", "tallypost_server", "--data", str(shared.data)]
    archive = [*command, "archive", "--once", "--archive-delay", "0"]
    processes = [subprocess.Popen(archive, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    while not shared.coordinator().counts().tasks["running"] and shared.segments():
        shared.close()
    processes[0].kill()

    said = [process.communicate(timeout=200)[1] for process in processes]

    assert [0, 0] == [process.returncode for process in processes[1:]], said
    assert_each_once(shared)
    verified = subprocess.run(
        [*command, "verify"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert 0 == verified.returncode, verified.stdout + verified.stderr


@pytest.mark.postgres
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "point", ["after_register", "before_table_commit", "after_table_commit", "between_tables", "before_finish"]
)
def test_outage_of_the_database_parks_nothing_and_passes_by_itself(
    on: Callable[..., World],
    postgres: Postgres,
    data: Path,
    disk: FaultyDisk,
    report: Callable[..., bytes],
    batch: Callable[..., bytes],
    point: Any,
) -> None:
    """The server is killed in the middle of a task, and stays away; once it is back each row is there once."""
    world = on(data, FolderStore(data / "archive", disk=disk), kind="postgres")
    world.seal(report(), batch(3, terminal=2))
    archivist = world.archivist()
    disk.kill_at(point, postgres.kill)
    try:
        for _ in range(3):
            with pytest.raises(CannotArchive, match="connect"):
                archivist.round()
            disk.kill_at("before_seal")  # Which is not passed here.
            world.clock.advance(60)
        assert not (data / "parked").exists()
        assert world.segments()
    finally:
        postgres.kill()
        postgres.start()

    archivist.start()
    done = archivist.round()
    world.clock.advance(limits.archive_retry_seconds_max)
    world.work(archivist)

    assert 0 == done.failed
    assert {REPORT: 1} == world.reports()
    assert {(SESSION, index): 1 for index in range(3)} == world.events()
    assert [] == world.segments()
    assert not (data / "parked").exists()


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_database_that_was_away_between_two_rounds_is_found_again(
    on: Callable[..., World], postgres: Postgres, data: Path, disk: FaultyDisk, report: Callable[..., bytes]
) -> None:
    """Connections of before are dead; it is looked at anew before anything is done, and no task fails for it."""
    world = on(data, FolderStore(data / "archive", disk=disk), kind="postgres")
    archivist = world.archivist()
    archivist.round()
    postgres.kill()
    postgres.start()
    world.seal(report())

    with pytest.raises(CannotArchive, match="looked at first"):
        archivist.round()
    archivist.start()

    assert (1, 1, 0, 1, False, False) == archivist.round()


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_archivist_that_is_a_process_goes_on_by_itself_when_the_database_is_back(
    shared: World, postgres: Postgres, report: Callable[..., bytes]
) -> None:
    """Nobody needs to start it again."""
    assert isinstance(shared.database, Schema)
    environment = {**os.environ, "TALLYPOST_SERVER_COORDINATOR": shared.database.place}
    command = [sys.executable, "-m", "tallypost_server", "--data", str(shared.data), "archive"]
    command += ["--archive-batch-seconds", "0", "--scan-seconds", "0.2"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        for name in NAMES[:3]:
            shared.seal(report(id=name))
            for _ in range(600):
                if not shared.segments():
                    break
                assert process.poll() is None
                time.sleep(0.1)
            assert [] == shared.segments()
            postgres.kill()
            time.sleep(0.5)
            postgres.start()
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[1]

    assert 0 == process.returncode, said
    assert dict.fromkeys(NAMES[:3], 1) == shared.reports()


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_database_that_comes_back_without_the_last_transactions_is_made_anew(
    on: Callable[..., World],
    postgres: Postgres,
    data: Path,
    disk: FaultyDisk,
    report: Callable[..., bytes],
    batch: Callable[..., bytes],
) -> None:
    """As a replica that took over: a number is given out twice, for tasks of two kinds, and no row is there twice."""
    world = on(data, FolderStore(data / "archive", disk=disk), kind="postgres")
    archivist = world.archivist()
    archivist.round()
    world.database.copy()
    world.seal(report())
    archivist.round()
    postgres.kill()
    postgres.start()
    world.database.put_back()

    for bodies in ([batch(1, terminal=0)], [report(), report(id="01" * 16)]):
        world.seal(*bodies)
        try:
            archivist.round()
        except CannotArchive:
            archivist.start()
            archivist.round()

    assert {REPORT: 1, "01" * 16: 1} == world.reports()
    assert {(SESSION, 0): 1} == world.events()
    assert [] == world.segments()


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_database_that_dies_again_and_again_under_many_archivists_costs_nothing(
    shared: World, postgres: Postgres, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """At any moment, also while it commits: whoever finds it gone tries again, and each row is there once."""
    fill(shared, report, batch)
    shared.coordinator().close()

    def work(name: int, ended: threading.Event) -> None:
        with archivist(shared, name, lambda: not ended.is_set()) as works:
            while not ended.is_set():
                with contextlib.suppress(CannotArchive):
                    works.start()
                    works.round()

    with together(2, work) as failures:
        for moment in range(6):
            time.sleep(0.3 + 0.37 * moment)
            postgres.kill()
            postgres.start()
        for _ in range(400):
            if not shared.segments() or failures:
                break
            time.sleep(0.25)

    assert_each_once(shared)
    assert not list((shared.data / "parked").glob("*"))


@pytest.mark.postgres
def test_archive_that_moves_to_a_server_and_back_goes_on(
    on: Callable[..., World], data: Path, disk: FaultyDisk, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """Each database is made anew from archive and segments: what is archived is known, in however many lanes."""
    store = FolderStore(data / "archive", disk=disk)
    expected: dict[str, int] = {}
    for round_, (kind, lanes) in enumerate([("file", 1), ("postgres", 16), ("file", 1), ("postgres", 16)]):
        world = on(data, store, kind=kind)
        world.lanes = lanes
        world.database.lose()
        new = NAMES[round_ * 8 : round_ * 8 + 8]
        expected |= dict.fromkeys(new, 1)
        world.seal(*(report(id=name) for name in expected), *(batch(2, session=name, terminal=1) for name in expected))
        world.work()
        world.close()
        assert expected == world.reports()
        assert {(name, index): 1 for name in expected for index in range(2)} == world.events()
        assert [] == world.segments()


@pytest.mark.postgres
@pytest.mark.parametrize("lane", [0, 7])
def test_archive_that_moves_back_in_the_middle_of_a_task_doubles_nothing(
    on: Callable[..., World], data: Path, disk: FaultyDisk, batch: Callable[..., bytes], lane: int
) -> None:
    """Events whose index was not written are taken back, in whatever lane they were."""
    store = FolderStore(data / "archive", disk=disk)
    session = next(name for name in NAMES if lane_of(name, 16) == lane)
    world = on(data, store, kind="postgres")
    world.lanes = 16
    world.seal(batch(3, session=session, terminal=2))
    disk.kill_at("between_tables")
    with pytest.raises(Killed):
        world.work()
    disk.kill_at("before_seal")  # Which is not passed here.
    world.close()
    world = on(data, store)

    world.work()

    assert {(session, index): 1 for index in range(3)} == world.events()
    assert 1 == len(world.rows("sessions"))
    assert [] == world.segments()
