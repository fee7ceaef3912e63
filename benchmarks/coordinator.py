"""Whether the coordinator's size and a scan's time follow from the horizon, and not from history.

Takes   weeks of documents under a clock that is moved on, at one rate and at four times that rate.
Gives   the coordinator's bytes and the time of a scan that finds nothing new, twenty days after the horizon was reached
        beside the day after it, and at the higher rate beside the lower one.
Never   reads or writes a row of the archive: what is claimed is finished at once.
"""

from __future__ import annotations

import dataclasses
import datetime
import random
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallypost_server import limits
from tallypost_server.clock import micros
from tallypost_server.testing import FakeClock

from .harness import CannotMeasure, Comparison, Goal, Measured, Plan, in_turn

if TYPE_CHECKING:
    from tallypost_server.streams.coordinator import Coordinator
    from tallypost_server.streams.task import Entry

APPLICATION = "example.org/bench"
BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
DAY = 86_400
# What is due at the latest is archived after a week; nothing of it is remembered longer than this.
EARLY_DAY = limits.remembered_days + 3
LATE_DAY = EARLY_DAY + 20
DELAY, MAX_DELAY, BATCH = 300.0, 604_800.0, 900.0
SCAN_MAX, SIZE_MAX = Goal("at most", 1.5), Goal("at most", 1.1)


@dataclasses.dataclass(frozen=True)
class Amount:
    """How many reports, and as many sessions, come on a day at the lower rate, in how many segments; how many scans."""

    each: int
    segments: int
    scans: int


# A thousandth of a million each a day.
FULL, QUICK = Amount(each=1000, segments=4, scans=50), Amount(each=60, segments=1, scans=8)


def measure(plan: Plan) -> Measured:
    amount = QUICK if plan.quick else FULL
    states: dict[str, Path] = {}
    facts: dict[str, Any] = {}
    for times in (1, 4):
        weeks = Weeks(plan.scratch / f"{times}", dataclasses.replace(amount, each=times * amount.each))
        for day in (EARLY_DAY, LATE_DAY):
            weeks.go_to(day)
            name = f"{times} × {amount.each} a day, day {day}"
            states[name] = weeks.kept(plan.scratch / f"{times}-{day}.sqlite")
            facts[name] = f"{sum(weeks.rows().values())} rows, {size_of(states[name])} bytes"
        weeks.close()
    scans = scan_in_turn(states, amount.scans)
    for name, taken in scans.items():
        facts[name] += f", a scan {statistics.median(taken):.2f} ms of processor"
    early, late, _, high = states
    by_time, by_rate = (
        list(zip(scans[late], scans[early], strict=True)),
        list(zip(scans[high], scans[late], strict=True)),
    )
    sizes = [(size_of(states[late]), size_of(states[early]))]
    return Measured(
        [
            Comparison("coordinator/scan", late, early, "ms", by_time, goal=SCAN_MAX),
            Comparison("coordinator/scan-by-rate", high, late, "ms", by_rate),
            Comparison("coordinator/size", late, early, "bytes", sizes, goal=SIZE_MAX),
        ],
        facts,
    )


class Weeks:
    """A coordinator to which documents come day by day, and whose tasks are done at once."""

    def __init__(self, folder: Path, amount: Amount) -> None:
        folder.mkdir()
        self._path, self._amount = folder / "coordinator.sqlite", amount
        self._clock, self._draw, self._segments = FakeClock(BEGIN), random.Random(20260101), 0
        self._coordinator = opened(self._path, self._clock)

    def close(self) -> None:
        self._coordinator.close()

    def go_to(self, day: int) -> None:
        """Let time pass until so many days are over."""
        while self._clock.now() < BEGIN + datetime.timedelta(days=day):
            self._segments += 1
            name = f"documents-{self._segments:012d}"
            if not self._coordinator.register(name, list(self._entries())):
                raise CannotMeasure(f"{name} was registered before")
            self._clock.advance(DAY / self._amount.segments)
            scan(self._coordinator, self._clock)

    def kept(self, target: Path) -> Path:
        """A copy of the coordinator as it is now, that nothing more comes to."""
        self._coordinator.close()
        shutil.copy(self._path, target)
        self._coordinator = opened(self._path, self._clock)
        return target

    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        import sqlalchemy as sa

        from tallypost_server.streams.schema import metadata

        with self._coordinator._engine.begin() as connection:
            return {
                table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
                for table in metadata.sorted_tables
            }

    def _entries(self) -> Iterator[Entry]:
        """A segment: reports, some of which come twice, and sessions of one batch, some of which never end."""
        from tallypost_server.streams.task import Entry

        now, before = micros(self._clock.now()), ""
        for number in range(self._amount.each // self._amount.segments):
            report, session = (f"{self._draw.getrandbits(128):032x}" for _ in range(2))
            again = before if number % 20 == 1 else report
            yield Entry("report", APPLICATION, again, now, 2 * number, 1200)
            terminal = None if number % 20 == 2 else 19
            yield Entry("events", APPLICATION, session, now, 2 * number + 1, 2500, 0, 19, 0, terminal)
            before = report


def opened(path: Path, clock: FakeClock) -> Coordinator:
    from tallypost_server.streams.coordinator import Coordinator
    from tallypost_server.streams.database import engine_of, url_of

    return Coordinator(engine_of(url_of(str(path)), clock))


def scan(coordinator: Coordinator, clock: FakeClock) -> int:
    """What an archivist asks of a coordinator in a round, without the archive; how many tasks it did."""
    now, done = micros(clock.now()), 0
    token = lambda size: f"{random.getrandbits(8 * size):0{2 * size}x}"  # noqa: E731  It is handed on.
    coordinator.hold("scan", "bench")
    coordinator.segments()
    coordinator.gather(now, delay=DELAY, max_delay=MAX_DELAY, new_id=token)
    coordinator.hold("lane-0", "bench")
    while (task := coordinator.claim(0, "bench", now, batch_seconds=BATCH)) is not None:
        coordinator.plan(task)
        coordinator.finish(task, "bench")
        done += 1
    for name in coordinator.settled():
        coordinator.forget_segment(name)
    coordinator.prune(now - limits.remembered_days * DAY * 1_000_000)
    return done


def scan_in_turn(states: dict[str, Path], times: int) -> dict[str, list[float]]:
    """Milliseconds of processor that scans of each state take, with nothing new in it; the disk's share is alike."""
    clocks = {name: FakeClock(BEGIN + datetime.timedelta(days=int(name.rpartition(" ")[2]))) for name in states}
    coordinators = {name: opened(path, clocks[name]) for name, path in states.items()}
    for name, coordinator in coordinators.items():
        # What is gathered and waits for more comes first.
        clocks[name].advance(BATCH)
        scan(coordinator, clocks[name])
    taken: dict[str, list[float]] = {name: [] for name in states}
    for _, name in in_turn(tuple(states), times):
        begin = time.process_time()
        if scan(coordinators[name], clocks[name]):
            raise CannotMeasure(f"{name}: there was something to do")
        taken[name].append((time.process_time() - begin) * 1e3)
    for coordinator in coordinators.values():
        coordinator.close()
    return taken


def size_of(path: Path) -> int:
    """A closed database's bytes: its log was taken into it."""
    return path.stat().st_size
