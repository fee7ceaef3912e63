from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tallypost_server import archiving
from tallypost_server.archive.check import ArchiveChecker
from tallypost_server.archive.tables import Stored
from tallypost_server.disk import ARCHIVE_POINTS, FaultPoint
from tallypost_server.settings import Settings
from tallypost_server.testing import FaultyDisk, Killed

from ..databases import KINDS, Database

Say = Callable[..., tuple[int, str, str]]
Post = Callable[..., Awaitable[None]]
SESSIONS = ("ab" * 16, "cd" * 16, "0e" * 16)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, one_lane: Callable[[str], Database]) -> Database:
    """With one lane on a server too: these tests count files."""
    return one_lane(request.param)


def facts_of(say: Say) -> tuple[int, Any]:
    status, out, _ = say("verify", "--json")
    return status, json.loads(out)["archive"]


def file_of(data: Path, table: str) -> Path:
    return next((data / "archive" / table).rglob("*.parquet"))


def open_tables(settings: Settings) -> Any:
    return archiving.tables(settings)


def put_instead(tables: Any, table: Any, source: Stored, target: str, rows: Any) -> None:
    tables.replace(table, [source], rows, target, renew=lambda: None, owner="a test")


@pytest.fixture
async def filled(post: Post, report: Callable[..., bytes], batch: Callable[..., bytes], archive: Any) -> None:
    """An archive of three reports and three sessions, one of them in two parts and with a gap."""
    await post(
        *(report(id=f"{number}" * 32) for number in range(3)),
        *(batch(4, session=session, terminal=3) for session in SESSIONS[:2]),
        batch(2, session=SESSIONS[2]),
    )
    archive(archive_max_delay=0)
    await post(batch(2, session=SESSIONS[2], first=5))
    archive(archive_max_delay=0)


async def test_verify_of_a_sound_archive_ends_with_0(say: Say, filled: None) -> None:
    """All rows are there, each once, and index and coordinator tell the same."""
    status, archive = facts_of(say)

    assert 0 == status
    assert {
        "tables": {
            "reports": {"files": 1, "rows": 3},
            "events": {"files": 2, "rows": 12},
            "sessions": {"files": 2, "rows": 4},
        },
        "damaged": [],
        "damaged_not_told": 0,
        "half_done": 0,
        "strangers": [],
    } == archive
    assert "read the archive with 3 reports, 12 events, 4 sessions; 0 damaged\n" in say("verify")[1]


async def test_verify_without_an_archive_checks_segments_alone(say: Say, post: Post, batch: Any, data: Path) -> None:
    """It makes none."""
    await post(batch())

    status, archive = facts_of(say)

    assert (0, None) == (status, archive)
    assert not (data / "archive").exists()
    assert not (data / "coordinator.sqlite").exists()


@pytest.mark.parametrize("table", ["reports", "events", "sessions"])
async def test_verify_tells_a_file_that_is_missing(say: Say, filled: None, data: Path, table: str) -> None:
    """The log names it, and it is not there."""
    path = file_of(data, table)
    path.unlink()

    status, archive = facts_of(say)

    assert 1 == status
    assert f"{table}/{path.relative_to(data / 'archive' / table)}" == archive["damaged"][0]["file"]
    assert "missing" in archive["damaged"][0]["problem"]
    assert "missing" in say("verify")[1]


@pytest.mark.parametrize("table", ["reports", "events", "sessions"])
async def test_verify_tells_a_byte_that_is_damaged(say: Say, filled: None, data: Path, table: str) -> None:
    """Every page has a checksum: there is no byte of the rows that could be another one unseen."""
    path = file_of(data, table)
    whole = path.read_bytes()
    end = min(pq.ParquetFile(path).metadata.row_group(0).column(0).total_compressed_size, 80)

    for place in range(4, end, 19):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert 1 == facts_of(say)[0], place


async def test_verify_tells_a_file_of_another_size(say: Say, filled: None, data: Path) -> None:
    """As a torn write leaves it."""
    path = file_of(data, "events")
    path.write_bytes(path.read_bytes() + b"\0")

    status, archive = facts_of(say)

    assert 1 == status
    assert "the log tells" in archive["damaged"][0]["problem"]


@pytest.mark.parametrize(("table", "key"), [("reports", "id"), ("events", "session"), ("sessions", "session")])
async def test_verify_tells_a_row_that_is_there_twice(
    say: Say, filled: None, make_settings: Any, table: Any, key: str
) -> None:
    """The same rows under another name are found, whatever the statistics tell."""
    tables = open_tables(make_settings())
    stored = tables.files(table)[0]
    rows = tables.read(table, stored.path)
    nobody = Stored("day=2026-11-24/none.parquet", 1, 1, stored.day)

    put_instead(tables, table, nobody, f"day={stored.day}/twice.parquet", rows)

    status, archive = facts_of(say)
    assert 1 == status
    assert set(rows.column(key).to_pylist()) == {fault["stream"] for fault in archive["damaged"]}
    assert all("more than once" in fault["problem"] for fault in archive["damaged"])


async def test_verify_tells_events_that_the_index_lacks(say: Say, filled: None, make_settings: Any) -> None:
    """And those that it has and are not there."""
    tables = open_tables(make_settings())
    stored = max(tables.files("events"), key=lambda file: file.rows)
    rows = tables.read("events", stored.path)
    put_instead(tables, "events", stored, f"day={stored.day}/less.parquet", rows.slice(1))

    first = facts_of(say)
    stored = next(file for file in tables.files("sessions") if file.rows == 3)
    index = tables.read("sessions", stored.path)
    put_instead(tables, "sessions", stored, f"day={stored.day}/less.parquet", index.slice(2))
    second = facts_of(say)

    assert [("events", SESSIONS[2], "1 events of it are missing, from index 0 on")] == [
        (fault["table"], fault["stream"], fault["problem"]) for fault in first[1]["damaged"]
    ]
    assert "4 events of it are not in its index, from index 0 on" in [
        fault["problem"] for fault in second[1]["damaged"]
    ]


async def test_verify_tells_an_archive_older_than_its_coordinator(say: Say, filled: None, make_settings: Any) -> None:
    """A part that was archived is not in the index."""
    tables = open_tables(make_settings())
    for table in ("events", "sessions"):
        stored = min(tables.files(table), key=lambda file: file.rows)
        rows = tables.read(table, stored.path)
        put_instead(tables, table, stored, "unused", rows.slice(0, 0))

    status, archive = facts_of(say)

    assert 1 == status
    assert ["the coordinator knows part 2 of it, the index has part 1"] == [
        fault["problem"] for fault in archive["damaged"]
    ]


async def test_verify_tells_reports_that_the_coordinator_knows_and_the_table_lacks(
    say: Say, filled: None, make_settings: Any
) -> None:
    """They would be taken for repetitions if they came again."""
    tables = open_tables(make_settings())
    (stored,) = tables.files("reports")
    rows = tables.read("reports", stored.path)
    put_instead(tables, "reports", stored, f"day={stored.day}/less.parquet", rows.slice(1))

    status, archive = facts_of(say)

    assert 1 == status
    gone = rows.column("id").to_pylist()[0]
    assert [("reports", gone, "it is missing: the coordinator knows it to be archived")] == [
        (fault["table"], fault["stream"], fault["problem"]) for fault in archive["damaged"]
    ]


async def test_verify_tells_a_registered_segment_that_is_gone(
    say: Say, post: Post, batch: Any, archive: Any, data: Path
) -> None:
    """What it held was never archived."""
    await post(batch(2))
    archive()
    (segment,) = (data / "segments").glob("*.zst")
    for path in (data / "segments").glob("*.zst*"):
        path.unlink()

    status, facts = facts_of(say)

    assert 1 == status
    assert [f"segments/{segment.name}"] == [fault["file"] for fault in facts["damaged"]]


async def test_verify_tells_a_coordinator_that_cannot_be_read(say: Say, filled: None, database: Database) -> None:
    """The tables are checked all the same."""
    database.damage()

    status, archive = facts_of(say)

    assert 1 == status
    assert ["cannot be used" in fault["problem"] for fault in archive["damaged"]] == [True]
    assert 12 == archive["tables"]["events"]["rows"]


async def test_verify_names_files_of_nobody_and_ends_with_0(say: Say, filled: None, data: Path) -> None:
    """What a killed archivist left is in nobody's way."""
    path = file_of(data, "events")
    path.with_name("left.parquet").write_bytes(path.read_bytes())

    status, archive = facts_of(say)

    assert 0 == status
    assert [f"events/{path.parent.name}/left.parquet"] == archive["strangers"]


@pytest.mark.parametrize("point", ARCHIVE_POINTS)
async def test_verify_beside_an_archivist_that_stands_anywhere_ends_with_0(
    say: Say,
    post: Post,
    batch: Any,
    report: Any,
    archivist: Any,
    disk: FaultyDisk,
    data: Path,
    point: FaultPoint,
    filled: None,
) -> None:
    """Whatever an archivist is just doing is no damage, and neither is what it leaves when it is killed there."""
    await post(batch(3, session="ef" * 16, terminal=2), report(id="9" * 32))
    seen: list[tuple[int, Any]] = []
    disk.kill_at(point, lambda: seen.append(facts_of(say)))

    with archivist() as works:
        works.round()
    disk.kill_at(point)
    await post(batch(3, session="ec" * 16, terminal=2), report(id="8" * 32))
    with archivist() as works, pytest.raises(Killed):
        works.round()
    seen.append(facts_of(say))

    # The next archivist goes on there; here what lacks its manifest would be told by the check after each test.
    for path in (data / "segments").glob("*.zst"):
        if not path.with_name(path.name + ".manifest.json").exists():
            path.unlink()

    assert len(seen) > 1
    assert [(0, [])] * len(seen) == [(status, archive["damaged"]) for status, archive in seen]


async def test_checker_in_many_slices_finds_the_same(filled: None, make_settings: Any) -> None:
    """How much is held at a time is no matter of what is found."""
    settings = make_settings()
    tables = open_tables(settings)
    for number, table in enumerate(("events", "reports")):
        stored = tables.files(table)[0]
        nobody = Stored("none", 1, 1, stored.day)
        put_instead(tables, table, nobody, f"day={stored.day}/{number}.parquet", tables.read(table, stored.path))

    with archiving.coordinator(settings) as coordinator:
        found = [
            ArchiveChecker(tables, coordinator=coordinator, sealed=list, rows_max=rows_max).check()
            for rows_max in (1_000_000, 4)
        ]

    assert len(set(map(str, (sorted(map(str, each.faults)) for each in found)))) == 1
    assert len(found[0].faults) >= 4


@pytest.mark.parametrize("made", [False, True], ids=["none", "empty"])
async def test_verify_of_a_copy_of_the_instant_between_two_tables_ends_with_0(
    say: Say,
    post: Post,
    batch: Any,
    archivist: Any,
    disk: FaultyDisk,
    database: Database,
    filled: None,
    make_settings: Any,
    *,
    made: bool,
) -> None:
    """Without a coordinator, or with one that was not filled yet: what was not done is told, and no damage."""
    await post(batch(3, session="ef" * 16, terminal=2), batch(2, session=SESSIONS[2], first=9))
    disk.kill_at("between_tables")
    with archivist(archive_max_delay=0) as works, pytest.raises(Killed):
        works.round()
    disk.kill_at("after_park")
    database.lose()
    if made:
        with archiving.coordinator(make_settings()):
            pass

    status, facts = facts_of(say)
    out = say("verify")[1]
    tables = open_tables(make_settings())
    stored = tables.files("reports")[0]
    put_instead(tables, "reports", stored, "twice.parquet", pa.concat_tables([tables.read("reports", stored.path)] * 2))
    damaged = facts_of(say)

    assert (0, [], 5) == (status, facts["damaged"], facts["half_done"])
    assert "5 events are of tasks that were not done" in out
    assert (1, 3) == (damaged[0], len(damaged[1]["damaged"]))


async def test_verify_tells_what_the_index_lacks_beside_a_task_that_the_coordinator_knows(
    say: Say, post: Post, batch: Any, archivist: Any, disk: FaultyDisk, filled: None, make_settings: Any
) -> None:
    """Whose events are of that task is known, so all others are damage."""
    await post(batch(3, session="ef" * 16, terminal=2))
    disk.kill_at("between_tables")
    with archivist() as works, pytest.raises(Killed):
        works.round()
    disk.kill_at("after_park")
    tables = open_tables(make_settings())
    stored = next(file for file in tables.files("sessions") if file.rows == 3)
    index = tables.read("sessions", stored.path)
    put_instead(tables, "sessions", stored, f"day={stored.day}/less.parquet", index.slice(0, 2))

    status, archive = facts_of(say)

    assert (1, 0) == (status, archive["half_done"])
    assert index["session"].to_pylist()[2:] == [fault["stream"] for fault in archive["damaged"]]


@pytest.mark.parametrize("point", ARCHIVE_POINTS)
async def test_coordinator_lost_with_a_task_begun_costs_no_event_and_doubles_none(
    say: Say,
    post: Post,
    batch: Any,
    report: Any,
    archivist: Any,
    archive: Any,
    disk: FaultyDisk,
    data: Path,
    database: Database,
    point: FaultPoint,
    filled: None,
) -> None:
    """Events that were written without their index are written anew from the segments, in place of those."""
    await post(batch(3, session="ef" * 16, terminal=2), report(id="9" * 32), batch(2, session=SESSIONS[2], first=9))
    before = [say("show", stream)[1] for stream in ("ef" * 16, "9" * 32, *SESSIONS)]
    disk.kill_at(point)
    with archivist(archive_max_delay=0) as works, pytest.raises(Killed):
        works.round()
    disk.kill_at("after_park")
    database.lose()

    for _ in range(2):
        archive(archive_max_delay=0)

    status, facts = facts_of(say)
    assert (0, []) == (status, facts["damaged"])
    assert before == [say("show", stream)[1] for stream in ("ef" * 16, "9" * 32, *SESSIONS)]
    assert [] == list((data / "segments").glob("*.zst"))
