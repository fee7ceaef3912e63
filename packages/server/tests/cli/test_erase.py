from __future__ import annotations

import base64
import contextlib
import datetime
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from tallypost_server import archiving
from tallypost_server.archive.parked import Parked
from tallypost_server.clock import SystemClock
from tallypost_server.disk import ARCHIVE_POINTS, ERASE_POINTS, FaultPoint
from tallypost_server.erased import Erased
from tallypost_server.erasing import Erasure
from tallypost_server.errors import LeaseLost, NotErasedYet
from tallypost_server.settings import Settings
from tallypost_server.streams.task import Mark
from tallypost_server.testing import FakeClock, FaultyDisk, Killed

from ..databases import LONG_KINDS, Database, File

Say = Callable[..., tuple[int, str, str]]
Post = Callable[..., Awaitable[None]]
GONE, OTHER = "ab" * 16, "cd" * 16

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LONG_KINDS)
def database(request: pytest.FixtureRequest, data: Path, database_of: Callable[[str, Path], Database]) -> Database:
    return database_of(request.param, data)


def everything_in(data: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file of a data folder, unpacked as far as it is packed."""
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        content = path.read_bytes()
        yield path, str(path.relative_to(data)).encode() + content
        if path.name.endswith((".zst", ".open")):
            for at in [at for at in range(len(content)) if content[at : at + 4] == b"\x28\xb5\x2f\xfd"]:
                frame = zstandard.ZstdDecompressor().decompressobj()
                with contextlib.suppress(zstandard.ZstdError):
                    for place in range(at, len(content)):
                        yield path, frame.decompress(content[place : place + 1])
                        if frame.eof:
                            break
        if path.suffix == ".parquet":
            yield path, str(pq.read_table(path, partitioning=None).to_pylist()).encode()
        if path.parent.name == "quarantine":
            body = base64.b64decode(json.loads(content)["body"])
            yield path, body
            if body.startswith(b"\x28\xb5\x2f\xfd"):
                yield path, zstandard.ZstdDecompressor().decompress(body, max_output_size=1 << 20)


def named_in(data: Path, stream: str = GONE) -> list[str]:
    """The files of a data folder that name a stream."""
    return sorted({str(path.relative_to(data)) for path, text in everything_in(data) if stream.encode() in text})


def erase(say: Say) -> Any:
    status, out, err = say("erase", "--stream", GONE, "--json")
    assert 0 == status, err
    return json.loads(out)["removed"]


@pytest.fixture
async def filled(
    running: Callable[..., contextlib.AbstractAsyncContextManager[tuple[Any, Any]]],
    post: Post,
    report: Callable[..., bytes],
    batch: Callable[..., bytes],
    archive: Any,
    data: Path,
    disk: FaultyDisk,
) -> None:
    """A stream, a session and a report of one name, in every place where something of it may lie."""
    others = [batch(4, session=OTHER, terminal=3), report(id=OTHER), report(id="0e" * 16)]
    await post(batch(3, session=GONE, terminal=2), report(id=GONE), *others)
    archive()
    # More of both sessions, after what is archived: it waits in a segment that is registered.
    await post(batch(2, session=OTHER, first=9), batch(2, session=GONE, first=7), batch(1, session="9e" * 16))
    archive(archive_batch_seconds=900)
    await post(batch(1, session=GONE, first=30), batch(1, session=OTHER, first=20))
    archive(archive_delay=1e6)
    await post(batch(1, session=OTHER, first=12), batch(1, session=GONE, first=40), batch(1, session=OTHER, first=13))
    async with running() as (_, client):
        refused = report(id=GONE, day="2020-01-01")
        assert 422 == (await client.post_report(refused)).status_code
        packed = zstandard.ZstdCompressor().compress(refused)
        assert 422 == (await client.post_report(packed, "zstd")).status_code
        assert 422 == (await client.post_report(report(id=OTHER, day="2020-01-01"))).status_code
    aside = data / "quarantine" / "damaged"
    aside.mkdir(mode=0o750)
    whole = max((data / "segments").glob("*.zst")).read_bytes()
    for name, content in (("a.jsonl.zst", whole[:-2]), ("b.jsonl.zst", whole[:30])):
        (aside / name).write_bytes(content)
        (aside / name).chmod(0o640)
    Parked(data / "parked", disk=disk).keep(
        "example.org/mytool", GONE, [GONE.encode()], reason="none", at=SystemClock().now()
    )


def shown(say: Say) -> list[str]:
    return [say("show", stream)[1] for stream in (OTHER, "0e" * 16, "9e" * 16)]


async def test_erase_leaves_nothing_anywhere(say: Say, filled: None, data: Path, database: Database) -> None:
    """Unpacked or not, no file of the data folder names the stream, not even its mark; others are as they were."""
    torn = data / "archive" / "undone" / "2026-11-24T100000.000Z" / "reports"
    torn.mkdir(parents=True)
    (torn / "00000000000000000009.json").write_text(f'{{"add":{{"stats":"{GONE}"}}}}')
    places = named_in(data)
    before = shown(say)

    removed = erase(say)

    in_a_file = {"coordinator.sqlite"} if isinstance(database, File) else set()
    assert {"archive", "parked", "quarantine", "segments"} | in_a_file <= {
        place.split("/")[0].removesuffix("-wal") for place in places
    }
    assert [] == named_in(data)
    assert {
        "open": 0,
        "segments": 3,
        "reports": 1,
        "events": 5,
        "sessions": 2,
        "parked": 2,
        "quarantine": 2,
        "damaged": 1,
    } == {name: number for name, number in removed.items() if name != "coordinator"}
    assert removed["coordinator"] >= 3
    assert before == shown(say)
    assert 1 == say("show", GONE)[0]
    assert 0 == say("verify")[0]


async def test_erase_tells_what_it_removed_and_what_it_cannot_read(say: Say, filled: None) -> None:
    """In words, and once more that there is nothing."""
    first, second = say("erase", "--stream", GONE), say("erase", "--stream", GONE)

    assert (0, 0) == (first[0], second[0])
    assert "3 lines of sealed segments\n" in first[1]
    assert "5 rows of the archive's events\n" in first[1]
    assert first[1].endswith("it is erased\n")
    assert "quarantine/damaged/b.jsonl.zst is damaged" in first[2]
    assert "nothing was known of it\n" == second[1]


async def test_erase_of_an_unknown_stream_ends_with_0(say: Say, data: Path) -> None:
    """It is marked all the same: something of it may be on its way."""
    status, out, _ = say("erase", "--stream", GONE)

    assert (0, "nothing was known of it\n") == (status, out)
    assert 1 == len(list((data / "erased").iterdir()))
    assert [] == named_in(data)
    assert not (data / "coordinator.sqlite").exists()


async def test_erase_of_what_is_no_stream_is_wrong_use(say: Say, data: Path) -> None:
    """A mark would never mean anything."""
    assert 2 == say("erase", "--stream", "../x")[0]
    assert not (data / "erased").exists()


async def test_erase_of_others_moves_what_waits(say: Say, filled: None, archive: Any, data: Path) -> None:
    """What waited in a segment that was written anew is archived once, from where it lies now."""
    before = shown(say)
    erase(say)

    for _ in range(2):
        archive(archive_max_delay=0)

    assert before == shown(say)
    assert [] == list((data / "segments").glob("*.zst"))
    assert 0 == say("verify")[0]


@pytest.mark.parametrize("point", ERASE_POINTS)
async def test_erase_killed_anywhere_is_finished_by_the_next(
    say: Say, filled: None, make_settings: Any, archive: Any, disk: FaultyDisk, data: Path, point: FaultPoint
) -> None:
    """Also where an archivist works in between; nothing of others is lost or there twice."""
    before = shown(say)
    disk.kill_at(point)
    with pytest.raises(Killed):
        Erasure(make_settings(), disk=disk).erase(GONE)
    disk.kill_at("after_park")
    assert 0 == say("verify")[0]
    archive(archive_max_delay=0)

    erase(say)

    assert [] == named_in(data)
    archive(archive_max_delay=0)
    assert before == shown(say)
    assert [] == named_in(data)
    assert 0 == say("verify")[0]


@pytest.mark.parametrize("point", ARCHIVE_POINTS)
async def test_erase_after_an_archivist_was_killed_anywhere_leaves_nothing(
    say: Say, filled: None, archivist: Any, archive: Any, disk: FaultyDisk, data: Path, point: FaultPoint
) -> None:
    """Not in a file that it had put and not committed, nor by its task when another goes on with it."""
    before = shown(say)
    disk.kill_at(point)
    with archivist(archive_max_delay=0) as works, pytest.raises(Killed):
        works.round()
    disk.kill_at("after_park")

    erase(say)

    assert [] == named_in(data)
    for _ in range(2):
        archive(archive_max_delay=0)
    assert [] == named_in(data)
    assert before == shown(say)
    assert 0 == say("verify")[0]


async def test_erase_beside_a_server_waits_until_it_has_sealed(
    running: Any, batch: Any, make_settings: Any, data: Path, say: Say, soon: Any, clock: Any
) -> None:
    """What came before is left out when its segment is sealed; what comes later gets its receipt and is dropped."""
    async with running() as (app, client):
        for stream in (GONE, OTHER):
            assert 200 == (await client.post_to("/v1/events", batch(2, session=stream, terminal=1))).status_code
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                app._commit.stop(5)
                app._sealing.stop(5)

        removed = Erasure(make_settings(), wait=wait).erase(GONE)

    assert waits[0] >= 4
    assert 2 < len(waits)
    assert (1, 0) == (removed.open, removed.segments)
    assert [] == named_in(data)
    assert 0 == say("show", OTHER)[0]


async def test_document_of_a_marked_stream_is_dropped_with_a_receipt(
    running: Any, batch: Any, report: Any, data: Path, disk: FaultyDisk, clock: Any, soon: Any, stored: Any
) -> None:
    """Its sender has it stored, so that it comes no more; nothing is kept of it, also where it is refused."""
    marks = Erased(data / "erased", disk=disk)
    async with running() as (app, client):
        marks.mark(GONE, clock.now())
        clock.advance(2)
        await soon(lambda: app._erased.any)

        answers = [
            await client.post_to("/v1/events", batch(session=GONE)),
            await client.post_to("/v1/events", batch(3000, session=GONE, terminal=2999)),
            await client.post_report(report(id=GONE)),
            await client.post_report(report(id=OTHER)),
        ]
        refused = await client.post_report(report(id=GONE, day="2020-01-01"))
        text = (await client.get("/metrics")).text

    assert [200] * 4 == [answer.status_code for answer in answers]
    assert all(len(answer.json()["stored"]) == 64 for answer in answers)
    assert 'tallypost_erased_total{where="accept"} 3' in text
    assert 1 == app._metrics.erased.value("refuse")
    assert 'tallypost_documents_stored_total{kind="report"} 1' in text
    assert [OTHER] == [line["stream"] for line in stored()]
    assert 422 == refused.status_code
    assert [] == list((data / "quarantine").iterdir())


async def test_erase_waits_for_an_archivist_at_work(filled: None, make_settings: Any, data: Path) -> None:
    """Who works on a lane has planned with the stream."""
    settings: Settings = make_settings()
    with archiving.coordinator(settings) as coordinator:
        assert coordinator.hold("lane-0", "another")
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                coordinator.let_go("lane-0", "another")

        removed = Erasure(settings, wait=wait).erase(GONE)

        assert 3 == len(waits)
        assert 5 == removed.events
        # Another has the database open, so that nothing of its log goes by itself.
        assert [] == named_in(data)
        assert coordinator.hold("lane-0", "another")
        assert coordinator.hold("scan", "another")


async def test_erase_that_nobody_lets_work_says_so(filled: None, make_settings: Any, clock: Any) -> None:
    """It is marked by then, and to be run again."""
    settings: Settings = make_settings()
    with archiving.coordinator(settings) as coordinator:
        assert coordinator.hold("scan", "another")

        with pytest.raises(NotErasedYet, match="run it again"):
            Erasure(settings, clock=clock, wait=clock.advance).erase(GONE)


async def test_segment_from_a_backup_is_archived_without_what_was_erased(
    say: Say, post: Post, batch: Any, archive: Any, data: Path
) -> None:
    """While the mark is there."""
    await post(batch(2, session=GONE, terminal=1), batch(2, session=OTHER, terminal=1))
    kept = {path: path.read_bytes() for path in (data / "segments").glob("*.zst*")}
    erase(say)
    for path, content in kept.items():
        path.write_bytes(content)
        path.chmod(0o640)

    archive()
    archive()

    assert [] == named_in(data)
    assert 0 == say("show", OTHER)[0]


@pytest.mark.parametrize("killed", [None, *ERASE_POINTS[4:7]])
async def test_archive_from_a_backup_loses_what_is_marked_when_the_coordinator_is_made_anew(
    say: Say, filled: None, archive: Any, data: Path, database: Database, disk: FaultyDisk, killed: FaultPoint | None
) -> None:
    """A backup from before an erasure, with the marks of after it: at the next start the stream is nowhere again."""
    shutil.copytree(data / "archive", data.parent / "backup")
    before = shown(say)
    erase(say)
    shutil.rmtree(data / "archive")
    shutil.copytree(data.parent / "backup", data / "archive")
    database.lose()
    come_back = named_in(data)
    if killed is not None:
        disk.kill_at(killed)
        with pytest.raises(Killed):
            archive()
        disk.kill_at(None)

    archive()
    archive()

    assert [] != come_back
    assert [] == named_in(data)
    assert before == shown(say)
    assert 0 == say("verify")[0]


async def test_archive_from_a_backup_without_its_marks_has_what_was_erased_until_it_is_erased_again(
    say: Say, filled: None, archive: Any, data: Path, database: Database
) -> None:
    """Nobody knows of it any more but who asked for it."""
    shutil.copytree(data / "archive", data.parent / "backup")
    erase(say)
    for folder in ("archive", "erased"):
        shutil.rmtree(data / folder)
    shutil.copytree(data.parent / "backup", data / "archive")
    database.lose()

    archive()
    come_back = named_in(data)
    erase(say)

    assert [] != come_back
    assert [] == named_in(data)


async def test_marks_outlive_the_horizon_and_are_pruned_then(
    archive: Any, data: Path, disk: FaultyDisk, clock: FakeClock
) -> None:
    """A mark is for what may still come."""
    marks, now = Erased(data / "erased", disk=disk), clock.now()
    for days, stream in ((21, GONE), (23, OTHER)):
        marks.mark(stream, now - datetime.timedelta(days=days))

    archive()
    marks.scan()

    assert (True, False) == (marks.has(GONE), marks.has(OTHER))


async def test_archivist_that_slept_through_an_erasure_commits_nothing(
    post: Post,
    batch: Any,
    archivist: Any,
    archive: Any,
    disk: FaultyDisk,
    make_settings: Any,
    data: Path,
    say: Say,
    database: Database,
) -> None:
    """It has rows of the stream in hand, and its lease was over: another had it meanwhile, whoever has it now."""
    await post(batch(3, session=GONE, terminal=2), batch(3, session=OTHER, terminal=2))
    settings: Settings = make_settings()

    def sleep() -> None:
        disk.kill_at("after_park")
        with archiving.coordinator(settings) as coordinator, coordinator._begin() as connection:
            connection.exec_driver_sql("UPDATE leases SET until = 0")
        Erasure(settings, disk=disk).erase(GONE)

    disk.kill_at("before_table_commit", sleep)
    with archivist() as works:
        done = works.round()
        # On a server the other session waits in a lane of its own.
        assert (1, 0 if isinstance(database, File) else 1) == (done.failed, done.archived)
        assert [] == [place for place in named_in(data) if not place.endswith(".parquet")]

    archive()

    assert [] == named_in(data)
    assert 0 == say("verify")[0]
    assert 0 == say("show", OTHER)[0]


async def test_commit_on_a_handle_from_before_an_erasure_is_refused(
    filled: None, make_settings: Any, archivist: Any
) -> None:
    """Also where the lease was seen to be held the moment before: it is looked at again, and lost."""
    tables, others = archiving.tables(make_settings()), archiving.tables(make_settings())
    before = tables.files("reports")
    rows = {before[0].day: tables.read("reports", before[0].path)}
    asked: list[int] = []

    def renew() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise LeaseLost("lane-0", "this one")
        others.fence("reports", [0])

    with pytest.raises(LeaseLost):
        tables.write("reports", 0, Mark.of(99, "ab" * 16), "ab" * 16, rows, renew)

    assert before == tables.files("reports")


@pytest.mark.parametrize("point", ["before_table_commit", "between_tables", "before_finish"])
async def test_task_of_an_erased_stream_alone_is_finished_without_rows(
    say: Say,
    post: Post,
    batch: Any,
    report: Any,
    archivist: Any,
    archive: Any,
    disk: FaultyDisk,
    data: Path,
    point: Any,
) -> None:
    """It has its number, and the lane waits for it."""
    await post(batch(3, session=GONE, terminal=2), report(id=GONE))
    disk.kill_at(point)
    with archivist() as works, pytest.raises(Killed):
        works.round()
    disk.kill_at("after_park")

    erase(say)
    await post(batch(3, session=OTHER, terminal=2), report(id=OTHER))
    rounds = [archive(), archive()]

    assert [] == named_in(data)
    assert [0, 0] == [each.failed for each in rounds]
    assert 3 == json.loads(say("verify", "--json")[1])["archive"]["tables"]["events"]["rows"]
    assert {"waiting": 0, "running": 0, "failed": 0} == json.loads(say("status", "--json")[1])["tasks"]
    assert [] == list((data / "segments").glob("*.zst"))
