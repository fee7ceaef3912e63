"""A machine's clock that leaps ahead makes nobody forget, and removes nothing, before it has proved right."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from tallypost_server import limits
from tallypost_server.archive.archivist import Archivist, Rules
from tallypost_server.archive.believed import believed
from tallypost_server.erased import Erased
from tallypost_server.settings import KeepDays
from tallypost_server.testing import FakeClock, FaultyDisk

DAY = 86_400.0
YEARS = 4000 * DAY
REPORT = "0f" * 16
NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.timezone.utc)


def days(number: float) -> datetime.timedelta:
    return datetime.timedelta(days=number)


@pytest.mark.parametrize(
    ("ahead", "ran_seconds", "wanted"),
    [
        (days(0), 0.0, days(0)),
        (days(-3), 0.0, days(-3)),
        (days(-limits.clock_leap_days_max), 0.0, days(-limits.clock_leap_days_max)),
        (days(-4000), 0.0, days(0)),
        (days(-4000), 3600.0, days(-1)),
        (days(-4000), 9e9, days(-4000)),
        (days(limits.clock_leap_days_max), 0.0, days(limits.clock_leap_days_max)),
        (days(limits.clock_leap_days_max + 1), 0.0, days(0)),
        (days(4000), 3600.0, days(1)),
        (days(4000), 5.0, datetime.timedelta(seconds=120)),
        (days(20), 1e9, days(20)),
    ],
)
def test_believed_follows_a_clock_at_once_or_little_by_little(
    ahead: datetime.timedelta, ran_seconds: float, wanted: datetime.timedelta
) -> None:
    """A few days at once, further away a day for each hour that it ran so; never beyond the clock."""
    assert NOON + wanted == believed(NOON, NOON + ahead, ran_seconds)


@pytest.fixture
def started(archive: Any) -> Callable[..., Archivist]:
    """Starts an archivist that keeps rows for 30 days, as after a restart of the machine."""

    def start(batch_seconds: float = 0.0, delay: float = 0.0) -> Archivist:
        made = Archivist(
            archive.data,
            coordinator=archive.coordinator(),
            tables=archive.tables(),
            rules=Rules(delay, 7 * DAY, batch_seconds, KeepDays(30)),
            disk=archive.disk,
            clock=archive.clock,
            token=archive.token,
        )
        made.start()
        return made

    return start


@pytest.mark.parametrize("coordinator", ["is there", "is lost too"])
def test_clock_that_is_years_ahead_removes_and_forgets_nothing(
    archive: Any,
    started: Callable[..., Archivist],
    disk: FaultyDisk,
    report: Callable[..., bytes],
    batch: Callable[..., bytes],
    coordinator: str,
) -> None:
    """Rows stay, what comes again is recognised, marks are kept, by each archivist that starts meanwhile."""
    archive.seal(report(), batch(3, terminal=2))
    archive.work(started())
    marks = Erased(archive.data / "erased", disk=disk)
    marks.mark("cd" * 16, archive.clock.now())
    if coordinator == "is lost too":
        archive.lose_coordinator()

    archive.clock.advance(YEARS)
    for _ in range(3):
        archive.work(started())
    archive.clock.advance(-YEARS)
    archive.seal(report(), batch(3, terminal=2))
    archive.work(started())

    assert {REPORT: 1} == archive.reports()
    assert 3 == sum(archive.events().values())
    marks.scan()
    assert marks.has("cd" * 16)


def test_clock_that_leaps_under_an_archivist_removes_nothing(
    archive: Any, started: Callable[..., Archivist], clock: FakeClock, report: Callable[..., bytes]
) -> None:
    """It ran for an hour with it, and goes back with it."""
    archive.seal(report())
    archivist = started()
    archive.work(archivist)
    clock._now += datetime.timedelta(seconds=YEARS)

    clock.advance(2 * limits.tidy_seconds)
    archivist.round()

    assert {REPORT: 1} == archive.reports()


def test_machine_that_was_off_for_years_removes_what_is_over_in_the_end(
    archive: Any, started: Callable[..., Archivist], report: Callable[..., bytes]
) -> None:
    """A clock that stays as it is is believed, though no document ever comes again, and whatever is started anew."""
    archive.seal(report())
    archive.work(started())
    archive.clock.advance(400 * DAY)

    for _ in range(20):
        archivist = started()
        for _ in range(21):
            archivist.round()
            archive.clock.advance(3600.0)

    assert {} == archive.reports()
    assert archive.coordinator().believed() > 400 * DAY * 1e6


def test_clock_that_was_years_behind_for_a_moment_is_believed_at_once_when_it_is_right(
    archive: Any, started: Callable[..., Archivist], report: Callable[..., bytes]
) -> None:
    """As of a machine without a battery, which starts in 1970: what is over goes on the day."""
    archive.seal(report())
    archive.work(started())
    archive.clock.advance(-YEARS)
    archive.work(started())
    assert {REPORT: 1} == archive.reports()

    archive.clock.advance(YEARS)
    for _ in range(4):
        archive.clock.advance(10 * DAY)
        archive.work(started())

    assert {} == archive.reports()


def away() -> None:
    raise OSError("the store is away")


@pytest.mark.parametrize("what", ["a lease", "a task that failed", "a task that gathers", "a session", "a part of one"])
def test_what_a_clock_that_was_ahead_has_put_down_holds_nothing_up(
    archive: Any,
    started: Callable[..., Archivist],
    disk: FaultyDisk,
    report: Callable[..., bytes],
    batch: Callable[..., bytes],
    what: str,
) -> None:
    """Once it is set right nothing waits for the day that it told."""
    batch_seconds = 900.0 if what == "a task that gathers" else 0.0
    archive.clock.advance(YEARS)
    archive.seal({"a session": batch(3, terminal=2), "a part of one": batch(3)}.get(what, report()))
    if what == "a lease":
        coordinator = archive.coordinator()
        assert all(coordinator.hold(name, "dead") for name in ("scan", "lane-0"))
    else:
        disk.kill_at("before_table_commit", away)
        assert (0, what == "a task that failed") == started(batch_seconds, delay=300.0).round()[1:3]
    disk.kill_at(None)
    archive.clock.advance(-YEARS)

    for _ in range(2):
        started(batch_seconds, delay=300.0).round()

    assert sum(archive.reports().values()) + sum(archive.events().values()) in (1, 3)
    assert [] == archive.segments()
