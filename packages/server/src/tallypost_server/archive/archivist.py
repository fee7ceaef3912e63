"""The archivist: registers sealed segments, archives what is due, removes what is settled.

Takes   the data folder, beside a server and beside other archivists.
Gives   rows in the tables, each once; free space in the folder.
Never   removes a segment before all that it holds is archived durably and read back, a duplicate, or parked.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from .. import limits
from ..clock import Clock, micros, micros_of
from ..disk import Disk
from ..erased import Erased
from ..errors import (
    ArchiveForeign,
    ArchiveUnusable,
    CoordinatorUnusable,
    DataRefused,
    Deadly,
    LeaseLost,
    MarkTaken,
    NumberSpent,
    SegmentDamaged,
    SegmentLost,
)
from ..segments.format import (
    MANIFEST_ENDING,
    SEALED_ENDING,
    Line,
    decode_line,
    is_stem,
    whole_lines,
)
from ..segments.node import kept_node
from ..settings import KeepDays
from ..streams.coordinator import Coordinator, micros_in
from ..streams.task import Entry, Mark, Plan, Task, Wanted
from .believed import Believed
from .columns import TABLES, TableName
from .erase import ArchiveEraser
from .keep import Keeper
from .parked import Parked
from .past import past_of, take_back
from .rows import EventRows, ReportRows, by_partition, session_rows
from .tables import Tables, path_of

_log = logging.getLogger(__name__)


class Rules(NamedTuple):
    """When something is due, in seconds, and for how long it is kept."""

    delay: float
    max_delay: float
    batch_seconds: float
    keep_days: KeepDays = KeepDays()


class Round(NamedTuple):
    """What one round did."""

    registered: int
    archived: int
    """Tasks that were finished."""
    failed: int
    removed: int
    busy: bool = False
    """Whether another archivist held something of it."""
    more: bool = False
    """Whether segments wait that were not taken up yet."""

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.registered or self.archived or self.failed or self.more)


class Archivist:
    """One of those who work on an archive. Its methods block."""

    def __init__(
        self,
        data: Path,
        *,
        coordinator: Coordinator,
        tables: Tables,
        rules: Rules,
        disk: Disk,
        clock: Clock,
        token: Callable[[int], str],
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """`go_on` is asked between two steps; `token` makes so many random bytes, in hex."""
        self._data, self._segments, self._coordinator, self._tables = data, data / "segments", coordinator, tables
        self._rules, self._disk, self._clock, self._token, self._go_on = rules, disk, clock, token, go_on
        self._erased = Erased(data / "erased", disk=disk)
        self._parked = Parked(data / "parked", disk=disk)
        self._name = token(8)
        self._believed = Believed(clock, coordinator=coordinator, newest=self._newest_day)
        self._keeper = Keeper(
            tables,
            keep_days=rules.keep_days,
            now=self._believed.now,
            renew=lambda: self._keep_lease("scan"),
            unfinished=coordinator.tasks,
        )
        self._tidy_at = clock.monotonic()
        self._damaged: set[str] = set()  # Said once each.

    def start(self) -> None:
        """See that the archive is whole, and that the coordinator is of the same day; it is made anew if it is not.

        Needed again after the coordinator was away.

        Raises:
            ArchiveUnusable: the store refuses.
            ArchiveDamaged: what was durable is gone.
            ArchiveForeign: it is another data folder's.
            CoordinatorUnusable: the database refuses.
            LeaseLost: another archivist is at work, or was until a moment ago, and there is something to undo.
        """
        self._coordinator.look_anew()
        node = kept_node(self._data, disk=self._disk)
        if node is not None and not self._tables.belongs_to(node):
            raise ArchiveForeign(self._tables.store.address, self._data)
        if any(self._tables.damages(name) for name in TABLES):
            self._undo()
        for name in TABLES:
            # A coordinator that is made anew goes by what is there: that must not vanish later.
            self._tables.settle(name)
        self._believed.now()  # Looked up while the store answers.
        if self._is_of_one_day():
            return
        with self._alone():
            if self._is_of_one_day():  # Another has made it anew meanwhile.
                return
            _log.warning("the coordinator is not of the same day as the archive: it is made anew")
            if taken := take_back(self._tables, self._lanes(), self._keep_alone):
                _log.warning("%d events of tasks that were not done are archived anew", taken)
            self._erase_marked()
            horizon = self._oldest_left() - micros_in(limits.remembered_days * 86_400)
            numbers = {lane: max(mark.number for mark in marks) for lane, marks in self._marks().items() if marks}
            self._coordinator.restore(past_of(self._tables, numbers, horizon))
            self._believed.keep()

    def _erase_marked(self) -> None:
        """Take from the tables what was erased after they were copied: the marks are here, and the rows are back."""
        self._erased.scan()
        if self._erased.any:
            eraser = ArchiveEraser(self._tables, lanes=self._lanes(), go_on=self._keep_alone, point=self._disk.point)
            if gone := eraser.erase_marked(self._erased.has):
                _log.warning("%d rows of streams that were erased are erased again", gone)

    def _is_of_one_day(self) -> bool:
        """Whether the coordinator knows all that the tables have, and they have all that it takes for archived."""
        # In this order, beside others at work: what is done was written before; a number is given out before that.
        done = {lane: self._coordinator.done(lane) for lane in self._lanes()}
        return all(
            done[lane] <= max((mark.number for mark in marks), default=0)
            and all(self._coordinator.knows(lane, mark) for mark in marks)
            for lane, marks in self._marks().items()
        )

    def _marks(self) -> dict[int, list[Mark]]:
        """The lanes' marks in the tables that have one."""
        lanes = self._lanes()
        marks: dict[int, list[Mark]] = {lane: [] for lane in lanes}
        for name in TABLES:
            for lane, mark in self._tables.marks(name, lanes).items():
                marks[lane].append(mark)
        return marks

    def _lanes(self) -> range:
        """All that there may be: another database may have given out numbers in more lanes than this one has."""
        return range(max(self._coordinator.lanes, limits.postgresql_lanes))

    def round(self) -> Round:
        """Register, gather, archive, remove: all that is due now and that no other archivist holds."""
        registered = removed = archived = failed = 0
        busy = more = False
        with self._lease("scan") as held:
            busy |= not held
            if held:
                removed += self._remove()
                registered, more = self._register()
                self._gather(sessions=not more)
        for lane in range(self._coordinator.lanes):
            with self._lease(f"lane-{lane}") as held:
                busy |= not held
                while held and self._go_on():
                    task = self._claim(lane, more=more)
                    if task is None:
                        break
                    if self._archive(task):
                        archived += 1
                    else:
                        failed += 1
        with self._lease("scan") as held:
            if held:
                removed += self._remove()
                horizon = self._believed.now() - datetime.timedelta(days=limits.remembered_days)
                if set(self._sealed()) <= set(self._coordinator.segments()):  # What waits may be a repetition of it.
                    self._coordinator.prune(micros(horizon))
                self._erased.prune(horizon)
                if self._clock.monotonic() >= self._tidy_at:
                    self._tidy_at = self._clock.monotonic() + limits.tidy_seconds
                    self._tidy()
                for name in TABLES:
                    self._checkpoint(name)
        return Round(registered, archived, failed, removed, busy, more)

    def _tidy(self) -> None:
        """What is not done now is done the next time: it holds nothing up."""
        try:
            self._keeper.tidy()
        except (ArchiveUnusable, LeaseLost) as failure:
            _log.error("the archive is not put in order now: %s", failure)

    def _undo(self) -> None:
        """Take from the tables what a power cut has torn: none of it was told to be done, so its segments are there."""
        with self._alone():
            for name in TABLES:
                for damage in self._tables.undo(name):
                    _log.warning("of the table %s %s was undone: %s", name, damage.name, damage.reason)

    # -- what comes in ----------------------------------------------------------------------------------------------

    def _register(self) -> tuple[int, bool]:
        """Take up segments: how many those were, and whether more wait. A backlog is taken up bit by bit.

        So what is held of it at a time, in memory and in the coordinator, does not grow with it.
        """
        self._erased.scan()
        # In this order: what another removes meanwhile is settled by then, and is not taken for lost.
        known, sealed = self._coordinator.segments(), self._sealed()
        for name in sorted(set(known) - set(sealed)):
            # Before what a repair has made of it is taken up, which would pass for a repetition of what is lost.
            if not self._coordinator.lose_segment(name):
                return 0, False  # A task has begun with it, and gives it back first.
        registered = documents = 0
        for name in sealed:
            if name in known or not self._go_on():
                continue
            if documents >= limits.register_documents_max:
                return registered, True
            try:
                lines = ((place, len(line), decode_line(line)) for place, line in self._lines(name))
                # Erased ones come into a segment only from elsewhere: a backup.
                entries = [
                    _entry(line, place, size) for place, size, line in lines if not self._erased.has(line.stream)
                ]
            except FileNotFoundError:
                continue
            except (SegmentDamaged, msgspec.MsgspecError, ValueError) as damage:
                if name not in self._damaged:
                    self._damaged.add(name)
                    _log.error("%s is not archived: %s; see tallypost-server verify --repair", name, damage)
                continue
            registered += self._coordinator.register(name, entries)
            documents += len(entries)
            self._disk.point("after_register")
            self._coordinator.hold("scan", self._name)
        return registered, False

    def _gather(self, *, sessions: bool) -> None:
        rules = self._rules
        self._coordinator.gather(
            self._now(), delay=rules.delay, max_delay=rules.max_delay, new_id=self._token, sessions=sessions
        )

    def _claim(self, lane: int, *, more: bool) -> Task | None:
        # What still grows in a backlog waits for the rest of it, so that files are large.
        batch_seconds = limits.backlog_seconds_max if more else self._rules.batch_seconds
        try:
            return self._coordinator.claim(lane, self._name, self._now(), batch_seconds=batch_seconds)
        except LeaseLost:
            return None

    # -- what is archived -------------------------------------------------------------------------------------------

    def _archive(self, task: Task) -> bool:
        """Whether the task is done. Whatever else happened is kept with it."""
        try:
            if task.deaths >= limits.task_deaths_max and not self._is_begun(task):
                return self._divide(task, Deadly(task.rows, task.deaths))
            self._write(task, self._coordinator.plan(task))
            self._disk.point("before_finish")
            self._coordinator.finish(task, self._name)
            self._disk.point("after_finish")
        except LeaseLost as failure:
            _log.warning("%s", failure)
        except (DataRefused, NumberSpent) as failure:
            return self._divide(task, failure)
        except SegmentLost as failure:
            return self._give_back(task, failure)
        except (ArchiveUnusable, CoordinatorUnusable, MarkTaken, OSError) as failure:
            self._try_later(task, failure)
        else:
            return True
        return False

    def _write(self, task: Task, plan: Plan) -> None:
        # What one that died has written is not read again: its segments may be damaged by now.
        if task.kind == "report":
            if not self._tables.has_written("reports", task.lane, task.mark):
                self._put(task, "reports", self._report_rows(task, plan))
            return
        if plan.lines and not self._tables.has_written("events", task.lane, task.mark):
            self._put(task, "events", self._event_rows(task, plan))
        self._disk.point("between_tables")
        self._put(task, "sessions", session_rows(task.lane, task.number, plan.parts, lambda day: path_of(day, task.id)))

    def _is_begun(self, task: Task) -> bool:
        """Whether a table has something of the task: it is finished then, and split no more."""
        try:
            return any(self._tables.has_written(name, task.lane, task.mark) for name in _tables_of(task))
        except NumberSpent:
            return False

    def _put(self, task: Task, name: TableName, rows: pa.Table) -> None:
        self._tables.write(name, task.lane, task.mark, task.id, by_partition(rows), lambda: self._renew(task))

    def _report_rows(self, task: Task, plan: Plan) -> pa.Table:
        rows = ReportRows()
        for line, _ in self._wanted(task, plan):
            rows.add(line)
        return rows.table()

    def _event_rows(self, task: Task, plan: Plan) -> pa.Table:
        rows = EventRows()
        for line, wanted in self._wanted(task, plan):
            assert wanted.indexes is not None
            rows.add(line, plan.parts[wanted.stream].first_seen, wanted.indexes)
        return rows.table()

    def _wanted(self, task: Task, plan: Plan) -> Iterator[tuple[Line, Wanted]]:
        """The lines of a plan, segment by segment.

        Raises:
            SegmentLost: one of them has not what was registered.
        """
        for name, places in plan.lines.items():
            self._renew(task)
            for place, line, _ in self._registered(name, places):
                yield line, places[place]

    def _registered(self, name: str, places: Mapping[int, Wanted]) -> Iterator[tuple[int, Line, bytes]]:
        """Some lines of a registered segment, as what they say and as they lie; raises as `_wanted`."""
        left = len(places)
        try:
            for place, data in self._lines(name):
                if place in places:
                    line = decode_line(data)
                    if (line.app, line.stream) != places[place].stream:
                        raise SegmentLost(name, "its lines are not those that were registered")
                    yield place, line, data
                    left -= 1
                if not left:
                    return
        except (SegmentDamaged, FileNotFoundError, msgspec.MsgspecError, ValueError) as damage:
            raise SegmentLost(name, str(damage)) from damage
        raise SegmentLost(name, "it has fewer lines than were registered")

    def _renew(self, task: Task) -> None:
        self._keep_lease(f"lane-{task.lane}")

    def _keep_lease(self, name: str) -> None:
        if not self._coordinator.renew(name, self._name):
            raise LeaseLost(name, self._name)

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def _try_later(self, task: Task, failure: Exception) -> None:
        seconds = min(limits.archive_retry_seconds_min * 2**task.failures, limits.archive_retry_seconds_max)
        _log.error("a task of %d rows is tried again in %d s: %s", task.rows, seconds, failure)
        # If this cannot be kept, the round ends: the same task would be tried again at once, for ever.
        self._coordinator.try_later(task, str(failure), self._now() + micros_in(seconds))

    def _spend(self, task: Task) -> None:
        """See that whoever sleeps with this task in hand does not wake up and commit it."""
        for name in _tables_of(task):
            self._tables.spend(name, task.lane, task.mark)
        self._disk.point("after_spend")

    def _give_back(self, task: Task, failure: SegmentLost) -> bool:
        """Let the task's streams wait again, without what the segment held: a repair may bring that in anew."""
        _log.error("%s; what it held waits for tallypost-server verify --repair", failure)
        try:
            self._spend(task)
            self._coordinator.give_back(task, self._name)
            self._coordinator.lose_segment(failure.name)
        except LeaseLost:
            return False
        except (ArchiveUnusable, CoordinatorUnusable, MarkTaken, OSError) as trouble:
            self._try_later(task, trouble)
            return False
        return True

    def _divide(self, task: Task, failure: Exception) -> bool:
        """Split the task. If that is one stream, park it, or let others come before one that may be deadly."""
        try:
            self._spend(task)
            streams = self._coordinator.streams(task)
            if len(streams) > 1:
                self._coordinator.split(task, self._name, self._now(), self._token)
                return True
            if isinstance(failure, Deadly):
                _log.error("%s", failure)
                later = self._now() + micros_in(limits.archive_retry_seconds_max)
                self._coordinator.put_off(task, self._name, str(failure), later)
                return False
            for app, stream in streams:
                self._park(task, app, stream, str(failure))
            self._disk.point("after_park")
            self._coordinator.park(task, self._name)
        except SegmentLost as lost:
            return self._give_back(task, lost)
        except LeaseLost:
            return False
        except (ArchiveUnusable, CoordinatorUnusable, MarkTaken, OSError) as trouble:
            self._try_later(task, trouble)
            return False
        return True

    def _park(self, task: Task, app: str, stream: str, reason: str) -> None:
        _log.error("%s %s of %s is parked: %s", task.kind, stream, app, reason)
        plan = self._coordinator.plan(task)
        lines = [data for name, places in plan.lines.items() for _, _, data in self._registered(name, places)]
        self._parked.keep(app, stream, lines, reason=reason, at=self._clock.now())

    # -- what goes --------------------------------------------------------------------------------------------------

    def _remove(self) -> int:
        settled = self._coordinator.settled()
        for name in settled:
            # A segment without its manifest is registered again, should the coordinator be lost now, and goes then; a
            # manifest alone would be told as a loss for ever.
            self._disk.unlink(self._segments / (name + MANIFEST_ENDING))
            self._disk.point("after_manifest_unlink")
            self._disk.unlink(self._segments / name)
        if settled:
            self._disk.sync_folder(self._segments)
        for name in settled:
            self._coordinator.forget_segment(name)
        return len(settled)

    def _checkpoint(self, name: TableName) -> None:
        try:
            self._tables.checkpoint(name)
        except ArchiveUnusable as failure:  # The log is only longer than it need be.
            _log.error("%s", failure)

    # -- small things -----------------------------------------------------------------------------------------------

    def _sealed(self) -> list[str]:
        names = self._disk.names(self._segments)
        return [name for name in names if name.endswith(SEALED_ENDING) and is_stem(name.removesuffix(SEALED_ENDING))]

    def _lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        return enumerate(whole_lines(self._disk.pieces(self._segments / name)))

    def _oldest_left(self) -> int:
        """When the oldest document was received that a segment still holds."""
        oldest = micros(self._believed.now())
        for name in self._sealed():
            with contextlib.suppress(
                SegmentDamaged, FileNotFoundError, msgspec.MsgspecError, ValueError, StopIteration
            ):
                oldest = min(oldest, micros_of(decode_line(next(self._lines(name))[1]).received))
        return oldest

    def _newest_day(self) -> datetime.datetime | None:
        """The end of the newest day of which there are rows."""
        newest = max((file.day for name in TABLES for file in self._tables.files(name)), default=None)
        if newest is None:
            return None
        return datetime.datetime.combine(newest, datetime.time.max, datetime.timezone.utc)

    @contextlib.contextmanager
    def _lease(self, name: str) -> Iterator[bool]:
        held = self._coordinator.hold(name, self._name)
        try:
            yield held
        finally:
            if held:
                self._coordinator.let_go(name, self._name)

    @property
    def _leases(self) -> list[str]:
        return ["scan", *(f"lane-{lane}" for lane in range(self._coordinator.lanes))]

    def _keep_alone(self) -> None:
        for name in self._leases:
            self._keep_lease(name)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in self._leases:
                if not stack.enter_context(self._lease(name)):
                    raise LeaseLost(name, self._name)
            yield

    def _now(self) -> int:
        return micros(self._clock.now())


def _tables_of(task: Task) -> tuple[TableName, ...]:
    return ("reports",) if task.kind == "report" else ("events", "sessions")


def _entry(line: Line, place: int, length: int) -> Entry:
    return Entry(
        line.kind,
        line.app,
        line.stream,
        micros_of(line.received),
        place,
        length,
        line.first,
        line.last,
        line.lost,
        line.terminal,
    )
