from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_server import archiving
from tallypost_server.archive.check import ArchiveChecker
from tallypost_server.archive.columns import TABLES
from tallypost_server.archive.keep import Keeper
from tallypost_server.clock import SystemClock, micros
from tallypost_server.disk import FaultPoint
from tallypost_server.errors import ArchiveUnusable
from tallypost_server.settings import KeepDays, Settings
from tallypost_server.testing import FakeClock, FaultyDisk, Killed

from ..databases import LONG_KINDS, Database

Say = Callable[..., tuple[int, str, str]]
Post = Callable[..., Awaitable[None]]
OTHER_APPLICATION = "example.org/other"
POINTS: tuple[FaultPoint, ...] = ("before_replace_commit", "after_replace_commit")

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LONG_KINDS)
def database(request: pytest.FixtureRequest, one_lane: Callable[[str], Database]) -> Database:
    """With one lane on a server too: these tests count files."""
    return one_lane(request.param)


def rows_in(settings: Settings) -> dict[str, list[Any]]:
    """Every row's key, with its day."""
    tables = archiving.tables(settings)
    return {
        name: sorted(
            tuple(row.values())
            for row in tables.dataset(name).to_table(columns=["day", *table.key]).to_pylist()  # type: ignore[misc]
        )
        for name, table in TABLES.items()
    }


def files_in(data: Path) -> int:
    return len(list((data / "archive").glob("*/day=*/*")))


@pytest.fixture
async def filled(post: Post, report: Any, batch: Any, archive: Any, data: Path, clock: FakeClock) -> None:
    """Two days of two applications, ten days apart: a report and a session of each."""
    declaration = (data / "applications" / "mytool.toml").read_text()
    (data / "applications" / "other.toml").write_text(declaration.replace("example.org/mytool", OTHER_APPLICATION))
    for number in range(2):
        day = clock.now().date().isoformat()
        for app, of in (("example.org/mytool", "a"), (OTHER_APPLICATION, "b")):
            stream = f"{of}{number}" * 16
            await post(report(id=stream, app=app, day=day), batch(3, session=stream, app=app, terminal=2))
            archive()
        clock.advance(864_000)


@pytest.fixture(scope="module")
def made_scattered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `scattered` keeps what it made: it takes long."""
    return tmp_path_factory.mktemp("made") / "scattered"


@pytest.fixture
async def scattered(
    made_scattered: Path, post: Post, report: Any, batch: Any, archive: Any, clock: FakeClock, data: Path
) -> None:
    """A day in nine files a table, and the next day in two."""
    seconds = [86_400 if number == 8 else 1 for number in range(11)]
    if made_scattered.exists():
        shutil.copytree(made_scattered, data, dirs_exist_ok=True)
        clock.advance(sum(seconds))
        return
    for number, passed in enumerate(seconds):
        stream = f"{number:x}" * 32
        day = clock.now().date().isoformat()
        await post(report(id=stream, day=day), batch(2, session=stream, terminal=1))
        archive()
        clock.advance(passed)
    shutil.copytree(data, made_scattered)


def found(settings: Settings, clock: FakeClock) -> Any:
    """What a check of the archive finds."""
    with archiving.coordinator(settings) as coordinator:
        checked = ArchiveChecker(
            archiving.tables(settings),
            coordinator=coordinator,
            sealed=list,
            keep_days=settings.keep_days,
            today=clock.now().date(),
        ).check()
    return checked.faults, checked.strangers


async def test_rows_are_kept_for_ever_if_nothing_is_said(filled: None, make_settings: Any, archive: Any) -> None:
    """Nobody loses what he did not ask to lose."""
    before = rows_in(make_settings())

    archive()

    assert before == rows_in(make_settings())
    assert [4, 12, 4] == [len(rows) for rows in before.values()]


async def test_partitions_that_are_over_go_from_all_tables(
    filled: None, make_settings: Any, archive: Any, clock: FakeClock, data: Path
) -> None:
    """The day itself and so many days behind it are kept; files go with their rows."""
    first = datetime.date(2026, 11, 24)
    before = rows_in(make_settings())

    archive(keep_days=20)
    kept = rows_in(make_settings())
    clock.advance(86_400)
    archive(keep_days=20)

    assert before == kept
    assert {name: [row for row in rows if row[0] > first] for name, rows in before.items()} == rows_in(make_settings())
    assert 6 == files_in(data)
    assert ([], []) == found(make_settings(keep_days=20), clock)


async def test_rows_of_one_application_go_alone(
    filled: None, make_settings: Any, archive: Any, clock: FakeClock
) -> None:
    """Where others have rows in the same files too."""
    before = rows_in(make_settings())

    archive(keep_days=f"{OTHER_APPLICATION}=15")

    wanted = {
        name: [row for row in rows if row[0] > datetime.date(2026, 11, 24) or row[1] != OTHER_APPLICATION]
        for name, rows in before.items()
    }
    assert wanted == rows_in(make_settings())
    assert [3, 9, 3] == [len(rows) for rows in wanted.values()]
    assert ([], []) == found(make_settings(keep_days=f"{OTHER_APPLICATION}=15"), clock)


async def test_file_of_two_applications_loses_the_rows_of_one(
    scattered: None, filled: None, make_settings: Any, archive: Any, clock: FakeClock
) -> None:
    """It is written anew."""
    archive()
    clock.advance(864_000)
    archive()
    before = rows_in(make_settings())
    assert 1 == len([file for file in archiving.tables(make_settings()).files("reports") if file.rows == 9])

    archive(keep_days="0,example.org/mytool=1")

    kept = {name: [row for row in rows if row[1] == OTHER_APPLICATION] for name, rows in before.items()}
    assert kept == rows_in(make_settings())
    assert ([], []) == found(make_settings(keep_days="0,example.org/mytool=1"), clock)


async def test_many_small_files_of_a_day_become_one(
    scattered: None, make_settings: Any, archive: Any, clock: FakeClock, data: Path, say: Say
) -> None:
    """Once no task writes there often; the rows are the same, sorted, and the log says that none has changed."""
    before, shown = rows_in(make_settings()), say("show", "3" * 32)
    archive()
    assert 33 == files_in(data)

    clock.advance(86_400)
    archive()

    assert before == rows_in(make_settings())
    assert shown == say("show", "3" * 32)
    assert 9 == files_in(data)
    assert ([], []) == found(make_settings(), clock)
    tables = archiving.tables(make_settings())
    (merged,) = [stored for stored in tables.files("events") if stored.rows == 18]
    keys = tables.read("events", merged.path, ["app", "session", "index"]).to_pylist()
    assert keys == sorted(keys, key=lambda row: tuple(row.values()))
    entries = [
        json.loads(line)
        for path in (data / "archive" / "events" / "_delta_log").glob("*.json")
        for line in path.read_text().splitlines()
        if merged.path in line or '"remove"' in line
    ]
    assert 10 == len(entries)
    assert not any((entry.get("add") or entry["remove"])["dataChange"] for entry in entries)


async def test_status_tells_a_clock_that_is_not_believed(
    filled: None, make_settings: Any, archive: Any, say: Say
) -> None:
    """Whoever wonders why nothing goes any more, or has a wrong clock, finds it there."""
    with archiving.coordinator(make_settings()) as coordinator:
        coordinator.believe(micros(SystemClock().now() - datetime.timedelta(days=100)))

    status, out, _ = say("status")

    assert 0 == status
    assert "clock     100 days ahead of what archivists go by" in out
    assert 100 == json.loads(say("status", "--json")[1])["clock"]["ahead_s"] // 86_400


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kept", [0, 9])
async def test_keeper_killed_anywhere_is_finished_by_the_next(
    scattered: None, make_settings: Any, archive: Any, clock: FakeClock, disk: FaultyDisk, point: FaultPoint, kept: int
) -> None:
    """Each row is there once, or went whole; no file is left."""
    clock.advance(864_000)
    before = rows_in(make_settings())
    disk.kill_at(point)
    with pytest.raises(Killed):
        archive(keep_days=kept)
    disk.kill_at("after_park")
    faults, _ = found(make_settings(keep_days=kept), clock)
    assert [] == faults

    archive(keep_days=kept)

    assert ([], []) == found(make_settings(keep_days=kept), clock)
    assert (before if not kept else {name: [] for name in TABLES}) == rows_in(make_settings())


async def test_keeper_that_slept_while_another_swept_commits_nothing(
    scattered: None, make_settings: Any, clock: FakeClock
) -> None:
    """What it has put is gone by then: were it committed, its rows would be too."""
    clock.advance(864_000)
    settings = make_settings()
    before, asked = rows_in(settings), []

    def keeper(renew: Callable[[], None], files_min: int) -> Keeper:
        return Keeper(
            archiving.tables(settings),
            keep_days=KeepDays(),
            now=clock.now,
            renew=renew,
            unfinished=set,
            files_min=files_min,
        )

    def sleep() -> None:
        asked.append(1)
        if len(asked) == 2:
            keeper(lambda: None, 99).tidy()

    with pytest.raises(ArchiveUnusable):
        keeper(sleep, 8).tidy()

    assert before == rows_in(settings)
    assert ([], []) == found(settings, clock)


async def test_task_that_commits_in_the_middle_of_a_compaction_loses_nothing(
    scattered: None, post: Post, batch: Any, archive: Any, make_settings: Any, clock: FakeClock
) -> None:
    """Both commit, whoever is first."""
    clock.advance(864_000)
    settings = make_settings()
    await post(batch(2, session="ff" * 16, terminal=1))
    asked: list[int] = []

    def meanwhile() -> None:
        asked.append(1)
        if len(asked) == 2:
            archive()

    # The other one merges nothing: its own time to look has not come.
    keeper = Keeper(
        archiving.tables(settings),
        keep_days=KeepDays(),
        now=clock.now,
        renew=lambda: None,
        unfinished=set,
        files_min=99,
    )
    keeper.tidy()
    with archiving.coordinator(settings) as coordinator:
        merging = Keeper(
            archiving.tables(settings),
            keep_days=KeepDays(),
            now=clock.now,
            renew=meanwhile,
            unfinished=coordinator.tasks,
        )
        with pytest.raises(ArchiveUnusable):
            merging.tidy()  # The archivist has merged, too: one of the two is refused.

    assert 2 == len([row for row in rows_in(settings)["events"] if row[2] == "ff" * 16])
    assert ([], []) == found(settings, clock)


async def test_sweep_leaves_what_is_not_ours_and_what_a_task_has_put(
    scattered: None, make_settings: Any, clock: FakeClock, data: Path
) -> None:
    """A file of somebody else's is told by verify, and is nobody's to remove."""
    settings = make_settings()
    folder = next((data / "archive" / "events").glob("day=*"))
    names = ["mine.parquet", "ab" * 16 + ".parquet", "cd" * 16 + ".parquet"]
    for name in names:
        (folder / name).write_bytes(b"some")

    Keeper(
        archiving.tables(settings),
        keep_days=KeepDays(),
        now=clock.now,
        renew=lambda: None,
        unfinished=lambda: {"ab" * 16},
    ).tidy()

    assert [True, True, False] == [(folder / name).exists() for name in names]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (0, KeepDays()),
        ("365", KeepDays(365)),
        ("365,example.org/a=9", KeepDays(365, (("example.org/a", 9),))),
        ({"all": 365, "example.org/a": 9}, KeepDays(365, (("example.org/a", 9),))),
        ("example.org/a=9", KeepDays(0, (("example.org/a", 9),))),
    ],
)
async def test_keep_days_may_be_said_in_each_place(given: object, wanted: KeepDays, make_settings: Any) -> None:
    """As a number, a text or a table; an archivist that the server starts is told the same."""
    settings = make_settings(keep_days=given)

    assert wanted == settings.keep_days
    assert wanted == make_settings(keep_days=str(settings.keep_days)).keep_days


@pytest.mark.parametrize("given", ["-1", "many", "", "1,2", "a=1", {"all": "x"}, {"a": 1}, 99_999, True, 1.5])
async def test_keep_days_that_mean_nothing_are_refused(given: object, say: Say, data: Path, make_settings: Any) -> None:
    """Nobody's rows go by a misspelling."""
    with pytest.raises(Exception, match="for ever"):
        make_settings(keep_days=given)
