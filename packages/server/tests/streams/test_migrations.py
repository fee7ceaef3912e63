"""A coordinator of an earlier version goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tallypost_server.disk import Disk, FaultPoint
from tallypost_server.streams import queries, schema
from tallypost_server.testing import FakeClock, FaultyDisk, Killed
from tallypost_server.testing_archive import MemoryTables

from ..archive.world import APP, World
from ..databases import KINDS, Database

# What the present schema has otherwise than the one of the version.
BACK_TO = {
    1: (
        "ALTER TABLE reports ADD COLUMN archived BOOLEAN",
        "UPDATE reports SET archived = NOT EXISTS (SELECT 1 FROM entries WHERE entries.id = reports.entry)",
        "ALTER TABLE reports DROP COLUMN entry",
        "DROP INDEX batches_of_stream",
        "CREATE INDEX entries_of_stream ON entries (stream, app)",
        "ALTER TABLE tasks DROP COLUMN deaths",
    )
}


@pytest.fixture
def world(
    data: Path, clock: FakeClock, disk: Disk, database_of: Callable[[str, Path], Database], request: Any
) -> Iterator[World]:
    made = World(data, clock, disk, database_of(request.param, data), MemoryTables(point=disk.point))
    yield made
    made.close()


@pytest.mark.parametrize("world", KINDS, indirect=True)
@pytest.mark.parametrize("version", BACK_TO)
def test_coordinator_of_an_earlier_version_goes_on_where_it_was(world: World, disk: FaultyDisk, version: int) -> None:
    """With a report that is archived, one in a task that has begun, one that waits, a session of which more comes."""
    world.report(1)
    world.batch(0, 2)
    world.seal()
    world.work()
    points: list[tuple[int, FaultPoint]] = [(2, "before_table_commit"), (3, "after_register")]
    for number, point in points:
        world.report(number)
        world.seal()
        disk.kill_at(point)
        with pytest.raises(Killed):
            world.archivist().round()
    disk.kill_at("after_park")
    now = schema_of(world)
    go_back(world, version)
    before = schema_of(world)

    archived = world.coordinator().archived_reports("", "~")
    for number in (1, 2, 3):
        world.report(number, config="again")
    world.batch(2, 1, terminal=2)
    world.seal()
    world.work()

    assert before != now == schema_of(world)
    assert {(APP, f"{1:032x}")} == set(archived)
    assert dict.fromkeys((f"{number:032x}" for number in (1, 2, 3)), 1) == world.reports()
    assert ["3"] * 3 == [row["config"] for row in world.rows("reports")]
    assert [0, 1, 2] == world.indexes()
    assert 3 == world.counts()["duplicates"]
    assert [] == world.segments()


def go_back(world: World, version: int) -> None:
    """Let the coordinator be as that version left it."""
    world.close()
    engine = world.database.engine(world.clock)
    with engine.begin() as connection:
        for each in sorted((each for each in BACK_TO if each >= version), reverse=True):
            for statement in BACK_TO[each]:
                connection.exec_driver_sql(statement)
        queries.keep_fact(connection, "version", str(version))
    engine.dispose()


def schema_of(world: World) -> set[tuple[str, str]]:
    """Every column and index, by its table."""
    engine = world.database.engine(world.clock)
    with engine.connect() as connection:
        inspected = sa.inspect(connection)
        found = {
            (table, str(part["name"]))
            for table in schema.metadata.tables
            for part in (*inspected.get_columns(table), *inspected.get_indexes(table))
        }
    engine.dispose()
    return found


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_each_earlier_version_has_its_way_back_here(version: int) -> None:
    """So that none is left out above."""
    assert version in BACK_TO
