"""A coordinator that is lost, or an old copy, is made anew from archive and segments: nothing lost, nothing twice."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_server.archive.past import take_back
from tallypost_server.archive.store import FolderStore
from tallypost_server.disk import ARCHIVE_POINTS, FaultPoint
from tallypost_server.testing import FaultyDisk, Killed

from ..databases import KINDS

DAY = 86_400.0
REPORT = "0f" * 16
SESSION = "ab" * 16


def ranges(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"first": first, "last": last} for first, last in pairs]


def test_rebuilt_coordinator_recognises_what_is_archived(
    archive: Any, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """A report or batch that comes again is a duplicate, and its segment goes."""
    archive.seal(report(), batch(3, terminal=2))
    archive.work()
    archive.lose_coordinator()
    archive.seal(report(), batch(3, terminal=2), batch(1, first=1))

    archive.work()

    assert {REPORT: 1} == archive.reports()
    assert {(SESSION, index): 1 for index in range(3)} == archive.events()
    assert 1 == archive.part(SESSION)["part"]
    assert [] == archive.segments()


def test_rebuilt_coordinator_takes_up_what_waits_in_segments(
    archive: Any, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """What was registered and not archived is registered again."""
    archive.seal(report(), batch(2))
    archive.work()
    assert {} == archive.events()
    archive.lose_coordinator()
    archive.seal(batch(2, first=2, terminal=3))

    archive.work()

    assert {REPORT: 1} == archive.reports()
    assert {(SESSION, index): 1 for index in range(4)} == archive.events()
    assert [] == archive.segments()


def test_rebuilt_coordinator_goes_on_with_a_sparse_session(archive: Any, batch: Callable[..., bytes]) -> None:
    """The next part has the next number, and tells all that is archived."""
    archive.seal(batch(2), batch(1, first=5))
    archive.clock.advance(8 * DAY)
    archive.work()
    assert ("sparse", ranges((2, 4))) == (archive.part(SESSION)["state"], archive.part(SESSION)["gaps"])
    archive.lose_coordinator()
    archive.seal(batch(4, first=2, terminal=5))

    archive.work()

    assert {(SESSION, index): 1 for index in range(6)} == archive.events()
    last = archive.part(SESSION)
    assert (2, "complete", 5) == (last["part"], last["state"], last["terminal"])
    assert (ranges((2, 4)), ranges((0, 5)), []) == (last["written"], last["content"], last["gaps"])
    assert [] == archive.segments()


def test_rebuilt_coordinator_knows_a_terminal_index_that_was_not_reached(
    archive: Any, batch: Callable[..., bytes]
) -> None:
    """A batch told it, and is gone with its segment: the session is complete once the rest has come."""
    archive.seal(batch(2))
    archive.seal(batch(0, first=8, lost=1, terminal=9))
    archive.clock.advance(8 * DAY)
    archive.work()
    first = archive.part(SESSION)
    archive.lose_coordinator()
    archive.seal(batch(6, first=2), batch(1, first=9))

    archive.work()

    last = archive.part(SESSION)
    assert (None, 9) == (first["terminal"], first["told_terminal"])
    assert ("complete", 9, ranges((8, 8))) == (last["state"], last["terminal"], last["lost"])
    assert {(SESSION, index): 1 for index in (*range(8), 9)} == archive.events()


def test_rebuilt_coordinator_keeps_lost_ranges_and_takes_content_for_them(
    archive: Any, batch: Callable[..., bytes]
) -> None:
    """A lost range that is archived need not be told again; content that comes for it is kept."""
    archive.seal(batch(1, first=0, lost=3, terminal=3))
    archive.work()
    assert ("complete", ranges((0, 2))) == (archive.part(SESSION)["state"], archive.part(SESSION)["lost"])
    archive.lose_coordinator()
    archive.seal(batch(1, first=0, lost=3, terminal=3))
    archive.work()
    assert 1 == archive.part(SESSION)["part"]
    archive.seal(batch(1, first=1))
    archive.clock.advance(8 * DAY)

    archive.work()

    last = archive.part(SESSION)
    assert (2, ranges((0, 0), (2, 2))) == (last["part"], last["lost"])
    assert {(SESSION, 1): 1, (SESSION, 3): 1} == archive.events()
    assert [] == archive.segments()


def test_rebuilt_coordinator_lets_the_archived_terminal_index_win(archive: Any, batch: Callable[..., bytes]) -> None:
    """A segment that is still there contradicts what was archived: the first one stays."""
    archive.seal(batch(1, terminal=4))
    archive.clock.advance(60)
    left = archive.seal(batch(1, first=2, terminal=7), batch(1, session="cd" * 16))
    archive.clock.advance(60)
    archive.seal(batch(1, first=3))
    copy = archive.data / "copy"
    for path in (archive.data / "segments").glob(left + "*"):
        copy.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    archive.clock.advance(8 * DAY)
    archive.work()
    archive.lose_coordinator()
    for path in copy.iterdir():
        shutil.move(path, archive.data / "segments" / path.name)

    archive.work()

    assert 4 == archive.part(SESSION)["told_terminal"]
    assert {(SESSION, index): 1 for index in (0, 2, 3)} | {("cd" * 16, 0): 1} == archive.events()


@pytest.mark.parametrize("since", ["reports", "sessions", "both"])
def test_old_copy_of_the_coordinator_is_noticed_and_made_anew(
    archive: Any, data: Path, report: Callable[..., bytes], batch: Callable[..., bytes], since: str
) -> None:
    """Its lane number is below that of a table: what it thinks to be waiting is archived."""
    waits = [report(id="01" * 16), batch(1, session="cd" * 16, terminal=0)]
    archive.seal(report(), batch(3, terminal=2))
    archive.work()
    archive.seal(*waits)
    archive.archivist(delay=DAY).round()  # Registered, and its report archived.
    archive.close()
    archive.database.copy()
    archive.seal(
        *([report(id="02" * 16)] if since != "sessions" else []),
        *([batch(2, session="ef" * 16, terminal=1)] if since != "reports" else []),
    )
    archive.work()
    archive.close()
    archive.database.put_back()
    archive.seal(*waits)
    archive.seal(report(id="03" * 16), batch(1, session="03" * 16, terminal=0))

    archive.work()

    assert set(archive.reports().values()) == {1}
    assert set(archive.events().values()) == {1}
    assert {("cd" * 16, 0), ("03" * 16, 0)} <= set(archive.events())
    assert "03" * 16 in archive.reports()
    assert [] == archive.segments()
    coordinator = archive.coordinator()
    marks = [archive.tables().mark(name, 0) for name in ("reports", "events", "sessions")]
    assert all(coordinator.knows(0, mark) for mark in marks)


@pytest.mark.parametrize("point", ARCHIVE_POINTS)
def test_coordinator_lost_with_its_archivist_loses_and_doubles_nothing(
    archive: Any, disk: FaultyDisk, report: Callable[..., bytes], batch: Callable[..., bytes], point: FaultPoint
) -> None:
    """Wherever in a task the archivist was killed."""
    archive.seal(report(), batch(3, terminal=2), batch(2, session="cd" * 16, terminal=1))
    disk.kill_at(point)
    with pytest.raises(Killed):
        archive.work()
    disk.kill_at("before_seal")
    archive.lose_coordinator()

    archive.work()

    assert {REPORT: 1} == archive.reports()
    assert {(SESSION, 0): 1, (SESSION, 1): 1, (SESSION, 2): 1, ("cd" * 16, 0): 1, ("cd" * 16, 1): 1} == archive.events()
    assert [] == archive.segments()


def test_coordinator_lost_half_way_doubles_nothing_whatever_the_files_are_called(
    archive: Any, disk: FaultyDisk, batch: Callable[..., bytes]
) -> None:
    """Files of events are rewritten under other names meanwhile, as by an erasure: their rows tell whose they are."""
    archive.seal(batch(3, terminal=2), batch(2, session="cd" * 16, terminal=1))
    archive.work()
    archive.seal(batch(2, session="ef" * 16, terminal=1), batch(1, session="01" * 16, terminal=0))
    disk.kill_at("between_tables")
    with pytest.raises(Killed):
        archive.work()
    disk.kill_at("before_seal")
    tables = archive.tables()
    for number, file in enumerate(tables.files("events")):
        name = f"day={file.day}/{number:032x}.parquet"
        rows = tables.read("events", file.path)
        tables.replace("events", [file], rows, name, renew=lambda: None, owner="erase")
    archive.lose_coordinator()

    archive.work()

    sizes = {SESSION: 3, "cd" * 16: 2, "ef" * 16: 2, "01" * 16: 1}
    assert {(name, index): 1 for name, size in sizes.items() for index in range(size)} == archive.events()
    assert [] == archive.segments()


def test_take_back_leaves_what_is_in_the_index(archive: Any, batch: Callable[..., bytes]) -> None:
    """Only events of a task without an index go."""
    archive.seal(batch(3, terminal=2))
    archive.work()

    assert 0 == take_back(archive.tables(), [0], lambda: None)
    assert 3 == len(archive.events())


def test_rebuilt_coordinator_forgets_what_nobody_may_send_again(
    archive: Any, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """Its size follows from the horizon, not from history."""
    archive.seal(report(), batch(3, terminal=2))
    archive.work()
    archive.clock.advance(30 * DAY)
    archive.seal(batch(3, session="cd" * 16, terminal=2))
    archive.work()
    archive.lose_coordinator()

    archive.archivist()

    assert 1 == archive.coordinator().counts().streams["complete"]


def history(seed: int) -> list[tuple[str, Any]]:
    """What comes of three sessions, in any order, repeated and lost; when time passes; when it is archived.

    All of it within the horizon: what comes later is not known any more with a coordinator that was never lost either.
    """
    chance = random.Random(seed)
    batches = []
    for session in ("ab" * 16, "cd" * 16, "ef" * 16):
        terminal, at = chance.randrange(4, 12), 0
        while at <= terminal:
            size = chance.randrange(1, 4)
            end = min(at + size, terminal + 1)
            lost = chance.choice((0, 0, 1, end - at))
            told = terminal if end > terminal else None
            batches.append(
                {
                    "session": session,
                    "first": at,
                    "lost": min(lost, end - at),
                    "count": end - at - min(lost, end - at),
                    "terminal": told,
                }
            )
            at = end
    batches += chance.sample(batches, 4)
    chance.shuffle(batches)
    steps: list[tuple[str, Any]] = []
    overdue = set(chance.sample(range(len(batches)), 2))
    for place, each in enumerate(batches):
        steps.append(("seal", each))
        if place in overdue:
            steps.append(("pass", 8 * DAY))
        steps += chance.choice(([], [("work", None)], [("work", None)], [("pass", 60.0)]))
    return [*steps, ("pass", 8 * DAY), ("work", None)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 12))])
def test_history_with_a_coordinator_lost_all_the_time_ends_as_without(
    on: Callable[..., Any], data: Path, tmp_path: Path, batch: Callable[..., bytes], seed: int, kind: str
) -> None:
    """The archive holds the same in the end, whenever the coordinator was made anew."""
    ends = []
    begin = None
    for loses in (False, True):
        folder = tmp_path / f"loses-{loses}"
        (folder / "segments" / "open").mkdir(parents=True)
        archive = on(folder, FolderStore(folder / "archive", disk=FaultyDisk()), kind=kind)
        begin = begin or archive.clock.now()
        archive.clock.advance((begin - archive.clock.now()).total_seconds())
        for step, value in history(seed):
            if step == "seal":
                value = dict(value)
                archive.seal(batch(value.pop("count"), **value))
            elif step == "pass":
                archive.clock.advance(value)
            else:
                archive.work()
                if loses:
                    archive.lose_coordinator()
        told = ("state", "terminal", "told_terminal", "content", "lost", "gaps")
        parts = {row["session"]: {name: row[name] for name in told} for row in archive.rows("sessions")}
        ends.append((archive.events(), parts, archive.segments()))

    assert set(ends[1][0].values()) == {1}
    assert ends[0] == ends[1]
    assert [] == ends[1][2]


@pytest.mark.parametrize("of", ["reports", "sessions", "both"])
def test_coordinator_of_a_later_day_than_the_archive_is_made_anew(
    local: Any, data: Path, report: Callable[..., bytes], batch: Callable[..., bytes], of: str
) -> None:
    """An archive put back from a backup lacks what the coordinator takes for archived: what is in segments is new."""
    local.seal(report(), batch(3, terminal=2))
    local.work()
    shutil.copytree(data / "archive", data / "copy")
    later = [
        *([report(id="02" * 16)] if of != "sessions" else []),
        *([batch(2, session="ef" * 16, terminal=1)] if of != "reports" else []),
    ]
    local.seal(*later)
    local.work()
    local.close()
    shutil.rmtree(data / "archive")
    shutil.move(data / "copy", data / "archive")
    local.seal(report(), *later)

    local.work()

    assert {REPORT: 1} | ({"02" * 16: 1} if of != "sessions" else {}) == local.reports()
    more = {("ef" * 16, index): 1 for index in range(2)} if of != "reports" else {}
    assert {(SESSION, index): 1 for index in range(3)} | more == local.events()
    assert [] == local.segments()


def test_rebuilt_coordinator_recognises_what_lies_in_old_segments_that_are_put_back(
    local: Any, data: Path, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """However old a backup is: it remembers as far back as the oldest segment needs it."""
    name = local.seal(report(), batch(3, terminal=2))
    kept = {path: path.read_bytes() for path in (data / "segments").glob(f"{name}*")}
    local.work()
    local.clock.advance(400 * DAY)
    local.work()
    local.lose_coordinator()
    for path, content in kept.items():
        path.write_bytes(content)

    local.work()

    assert {REPORT: 1} == local.reports()
    assert {(SESSION, index): 1 for index in range(3)} == local.events()
    assert [] == local.segments()
