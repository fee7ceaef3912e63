"""The archive's whole way, in a folder and on a real S3-compatible store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_server import limits
from tallypost_server.archive.reader import ArchiveReader
from tallypost_server.archive.store import ObjectStore
from tallypost_server.disk import ARCHIVE_POINTS, FaultPoint
from tallypost_server.errors import ArchiveForeign
from tallypost_server.segments.told import Told
from tallypost_server.streams.task import Mark
from tallypost_server.testing import FaultyDisk, Killed

REPORT = "0f" * 16
SESSION = "ab" * 16


@pytest.mark.parametrize("point", ARCHIVE_POINTS)
def test_archivist_that_was_killed_is_followed_by_one_that_goes_on(
    archive: Any, disk: FaultyDisk, report: Callable[..., bytes], batch: Callable[..., bytes], point: FaultPoint
) -> None:
    """Wherever it was killed, each row is there once, and the segment goes."""
    archive.seal(report(), batch(3, terminal=2))
    disk.kill_at(point)
    with pytest.raises(Killed):
        archive.work()
    disk.kill_at("before_seal")
    archive.clock.advance(121)

    archive.work()

    assert {REPORT: 1} == archive.reports()
    assert {(SESSION, index): 1 for index in range(3)} == archive.events()
    assert 1 == len(archive.rows("sessions"))
    assert [] == archive.segments()


def test_archived_streams_are_shown(archive: Any, report: Callable[..., bytes], batch: Callable[..., bytes]) -> None:
    """What is read back is what was posted."""
    archive.seal(report(), batch(2, lost=1, terminal=2))
    archive.work()
    reader = ArchiveReader(archive.tables())
    shown, events = Told(), Told()

    reader.tell(REPORT, shown)
    reader.tell(SESSION, events)

    assert not shown.is_empty
    assert not events.is_empty
    assert [{"cmd/export": 12}] == [dict(row["programs"][0]["counters"]) for row in archive.rows("reports")]
    assert ["pdf", "pdf"] == [dict(row["words"])["format"] for row in archive.rows("events")]


def test_archive_is_one_data_folders(
    on: Callable[..., Any], store: ObjectStore, data: Path, tmp_path: Path, report: Callable[..., bytes]
) -> None:
    """Whoever comes from another one is refused before it takes what is there for its own; its segments stay."""
    ours, theirs = on(data, store), on(tmp_path / "theirs", store)
    for world, node in ((ours, "0a0a0a0a"), (theirs, "0b0b0b0b")):
        (world.data / "segments" / "open").mkdir(parents=True, exist_ok=True)
        (world.data / "node").write_text(f"{node}\n")
    ours.seal(report())
    ours.work()
    theirs.seal(report(id="1" * 32))

    with pytest.raises(ArchiveForeign, match="theirs"):
        theirs.archivist()

    assert 1 == len(theirs.segments())
    ours.seal(report(id="2" * 32))
    ours.work()
    assert {REPORT: 1, "2" * 32: 1} == ours.reports()


@pytest.mark.long
@pytest.mark.timeout(300)  # A hundred commits, one after the other.
def test_log_begins_anew_with_a_checkpoint_and_goes_on(archive: Any, report: Callable[..., bytes]) -> None:
    """Older entries go once it is durable and was read; rows and lanes' numbers stay."""
    archive.seal(report())
    archive.work()
    tables = archive.tables()
    assert not tables.checkpoint("reports")
    for number in range(limits.checkpoint_commits):
        tables.spend("reports", 1, Mark.of(number + 1, "ab" * 16))

    assert tables.checkpoint("reports")

    version = tables.handle("reports").version()
    names = [name for name in archive.store.names("reports/_delta_log") if name]
    expected = [f"{version:020d}.checkpoint.parquet", f"{version:020d}.json", "_last_checkpoint"]
    assert expected == names
    assert {REPORT: 1} == archive.reports()
    assert Mark.of(limits.checkpoint_commits, "ab" * 16).spent == archive.tables().mark("reports", 1)
    archive.seal(report(id="01" * 16), report())
    archive.work()
    assert {REPORT: 1, "01" * 16: 1} == archive.reports()


def test_commits_of_many_lanes_at_once_are_all_there(archive: Any) -> None:
    """An entry of the log is put on the condition that there is none of its name: no commit replaces another."""
    archive.tables().handle("reports")
    lanes, numbers = 4, 5
    failures: list[Exception] = []

    def commit(lane: int) -> None:
        tables = archive.tables()
        try:
            for number in range(1, numbers + 1):
                tables.spend("reports", lane, Mark.of(number, "ab" * 16))
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=commit, args=(lane,)) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failures
    assert lanes * numbers == archive.tables().handle("reports").version()
    marks = {archive.tables().mark("reports", lane) for lane in range(lanes)}
    assert {Mark.of(numbers, "ab" * 16).spent} == marks


@pytest.mark.s3
@pytest.mark.timeout(300)  # The libraries try again for a while before they give up.
def test_store_that_goes_away_and_comes_back_parks_nothing(
    on: Callable[..., Any], data: Any, seaweed: Any, bucket: Callable[[], ObjectStore], report: Callable[..., bytes]
) -> None:
    """A real server that is killed and started again: the task is tried later, and done."""
    archive = on(data, bucket())
    archive.seal(report())
    archive.work()
    archive.seal(report(id="01" * 16))
    archivist = archive.archivist()
    seaweed.stop()
    try:
        assert (0, 1) == archivist.round()[1:3]
        assert not (data / "parked").exists()
    finally:
        seaweed.start()
    archive.clock.advance(900)

    archive.work(archivist)

    assert {REPORT: 1, "01" * 16: 1} == archive.reports()
    assert [] == archive.segments()
