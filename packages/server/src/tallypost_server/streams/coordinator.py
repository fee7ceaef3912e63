"""The coordinator: what waits for the archive, who works on it, and when it is settled.

Takes   sealed segments' entries; the outcomes of tasks.
Gives   tasks with frozen input, one archivist at a time a lane; segments that may go; counts.
Never   reads a segment or the archive: it is told what lies there. What it knows can be made anew from both.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .. import limits
from ..errors import CoordinatorUnusable, LeaseLost
from . import queries as q
from . import waiting as ws
from . import work as w
from .database import DURABLE, address_of, scrub
from .migrations import make_anew, migrate
from .session import Part, Session
from .task import Entry, Kind, Mark, Plan, Task


class Known(NamedTuple):
    """What is known of a session, and what a task that has begun archives of it."""

    session: Session
    part: Part | None


class Counts(NamedTuple):
    """What ``status`` shows of it."""

    streams: dict[str, int]
    tasks: dict[str, int]
    oldest_waiting: int | None


class Restored(NamedTuple):
    """What the archive tells of the past: lanes' numbers, then sessions, then reports (app, id, received)."""

    numbers: dict[int, int]
    sessions: Iterable[Session]
    reports: Iterable[tuple[str, str, int]]


class Coordinator:
    """One database. Its methods block, each is one transaction, and whatever ends the process leaves it whole."""

    def __init__(self, engine: Engine, *, lanes: int = 1, task_rows_max: int = limits.task_rows_max) -> None:
        """`lanes` is how many a new coordinator gets; one that is there keeps its own. A task is full at so many rows.

        Raises:
            CoordinatorUnusable: the database is damaged, or away.
            CoordinatorNewer: it is of a later version.
        """
        self._engine, self._task_rows_max = engine, task_rows_max
        self._place = address_of(engine)
        self._reached = self._looked_at = 0  # How often a server was connected to, and when the archive was looked at.
        if engine.dialect.name == "postgresql":
            sa.event.listen(engine, "connect", self._note)
        self.look_anew()
        with self._begin() as connection:
            self.lanes = migrate(connection, lanes=lanes)

    def close(self) -> None:
        """Give the database back."""
        self._engine.dispose()

    def look_anew(self) -> None:
        """Use the database that is there now, also if it is another than before: what it knows is compared next.

        Raises:
            CoordinatorUnusable: it is away.
        """
        try:
            self._engine.connect().close()
        except sa.exc.DBAPIError as failure:
            raise CoordinatorUnusable(self._place, failure) from failure
        self._looked_at = self._reached

    def _note(self, *_: object) -> None:
        self._reached += 1

    @contextlib.contextmanager
    def _begin(self, *, durable: bool = False) -> Iterator[Connection]:
        """A transaction. One that is durable, and changes something, is on disk at its end, with all before it."""
        try:
            with self._engine.execution_options(**{DURABLE: durable}).begin() as connection:
                if self._reached != self._looked_at:
                    # A server that was away may be another one, which lacks what the last one did: numbers that it
                    # gives out may be in the tables.
                    raise CoordinatorUnusable(self._place, ConnectionResetError("it was away, and is looked at first"))
                yield connection
        except sa.exc.DBAPIError as failure:
            raise CoordinatorUnusable(self._place, failure) from failure

    def belongs_to(self, node: str) -> bool:
        """Whether this is the coordinator of a node's data folder; the first one that asks has it from then on."""
        with self._begin() as connection:
            of = q.fact(connection, "node")
            if of is None:
                q.keep_fact(connection, "node", node)
            return of in (None, node)

    # -- what is known ----------------------------------------------------------------------------------------------

    def segments(self) -> dict[str, bool]:
        """The registered segments by name, and whether all that is in one is settled."""
        with self._begin() as connection:
            return q.segments(connection)

    def known(self, low: str, high: str) -> dict[tuple[str, str], Known]:
        """The sessions from one name on and below another."""
        with self._begin() as connection:
            rows = q.sessions_between(connection, low, high)
        return {
            (row.app, row.stream): Known(ws.session_in(row.known), None if row.part is None else ws.part_in(row.part))
            for row in rows
        }

    def archived_reports(self, low: str, high: str) -> dict[tuple[str, str], int]:
        """The archived reports from one name on and below another, and when something of each came last."""
        with self._begin() as connection:
            return q.archived_reports(connection, low, high)

    def tasks(self) -> set[str]:
        """The ids of the tasks that are not done."""
        with self._begin() as connection:
            return w.task_ids(connection)

    def counts(self) -> Counts:
        """How much there is of what."""
        with self._begin() as connection:
            totals = q.totals(connection)
            states = q.sessions_by_state(connection)
            return Counts(
                {
                    "open": states.get("open", 0),
                    "complete": states.get("complete", 0),
                    "sparse": states.get("sparse", 0),
                    **{
                        name: totals.get(name, 0)
                        for name in ("supplements", "contradictions", "duplicates", "archived_rows")
                    },
                },
                w.tasks_by_state(connection),
                q.oldest_waiting(connection),
            )

    def believed(self) -> int | None:
        """The moment that was believed last; None of a new coordinator."""
        with self._begin() as connection:
            told = q.fact(connection, "believed")
            return None if told is None else int(told)

    def believe(self, at: int) -> None:
        """Keep it."""
        with self._begin() as connection:
            q.keep_fact(connection, "believed", str(at))

    # -- what comes in ----------------------------------------------------------------------------------------------

    def register(self, name: str, entries: Sequence[Entry]) -> bool:
        """Take up a sealed segment with all that is in it. False if that was done before."""
        with self._begin() as connection:
            segment = q.add_segment(connection, name)
            if segment is None:
                return False
            reports = [entry for entry in entries if entry.kind == "report"]
            batches = [entry for entry in entries if entry.kind == "events"]
            duplicates = ws.add_reports(connection, segment, reports, self.lanes)
            found = ws.add_batches(connection, segment, batches, self.lanes)
            q.count(connection, duplicates=duplicates + found.duplicates, contradictions=found.contradictions)
            return True

    # -- what is due ------------------------------------------------------------------------------------------------

    def gather(
        self, now: int, *, delay: float, max_delay: float, new_id: Callable[[int], str], sessions: bool = True
    ) -> int:
        """Put what is due into tasks; return how many streams that were.

        A report is due as it comes. A session is due when it is complete and `delay` seconds have passed since its last
        entry, or when its oldest entry that is not archived is older than `max_delay` seconds. With `sessions` off none
        is looked at: while segments wait to be registered, what one lacks may lie there.
        """
        gathered = 0
        with self._begin() as connection:
            for lane in range(self.lanes):
                gathered += self._gather_reports(connection, lane, now, new_id)
            if not sessions:
                return gathered
            puts, grown = [], dict[str, list[int]]()
            rooms: dict[int, str] = {}
            for row in q.due_sessions(connection, now, micros_in(delay), micros_in(max_delay)):
                task = rooms.get(row.lane) or self._room(connection, "events", row.lane, now, new_id)
                rooms[row.lane] = task
                puts.append((task, row.app, row.stream))
                size = grown.setdefault(task, [0, 0])
                size[0] += max(row.rows, 1)
                size[1] += row.bytes
                if size[0] >= self._task_rows_max or size[1] >= limits.task_bytes_max:
                    w.grow_task(connection, task, *grown.pop(task))
                    del rooms[row.lane]
            for task, size in grown.items():
                w.grow_task(connection, task, *size)
            q.put_sessions(connection, puts)
        return gathered + len(puts)

    def _gather_reports(self, connection: Connection, lane: int, now: int, new_id: Callable[[int], str]) -> int:
        gathered = 0
        while True:
            chunk = q.waiting_reports(connection, lane, limits.gather_rows)
            if not chunk.rows:
                return gathered
            task = self._room(connection, "report", lane, now, new_id)
            q.put_reports(connection, task, lane, chunk.last)
            w.grow_task(connection, task, chunk.rows, chunk.bytes)
            gathered += chunk.rows

    def _room(self, connection: Connection, kind: Kind, lane: int, now: int, new_id: Callable[[int], str]) -> str:
        """The task that still gathers, or a new one."""
        task = w.gathering_task(connection, kind, lane, self._task_rows_max, limits.task_bytes_max)
        if task is None:
            task = new_id(16)
            w.add_task(connection, task, kind, lane, "gathering", now, 0, 0)
        return task

    # -- who works --------------------------------------------------------------------------------------------------

    def hold(self, name: str, holder: str) -> bool:
        """Take or renew a lease, for so long as a lease lasts. False if another holds it."""
        with self._begin() as connection:
            return w.hold(connection, name, holder, micros_in(limits.lease_seconds))

    def renew(self, name: str, holder: str) -> bool:
        """Renew a lease. False if another has held it meanwhile, whoever holds it now."""
        with self._begin() as connection:
            return w.renew(connection, name, holder, micros_in(limits.lease_seconds))

    def let_go(self, name: str, holder: str) -> None:
        """Give a lease back."""
        with self._begin() as connection:
            w.let_go(connection, name, holder)

    def claim(self, lane: int, holder: str, now: int, *, batch_seconds: float) -> Task | None:
        """The lane's next task that is due, with its input frozen and its number; None if there is none.

        The lane must be held. One that was begun before comes first, with the number that it has.

        Raises:
            LeaseLost: the lane is not held by `holder`.
        """
        with self._begin() as connection:
            self._must_hold(connection, lane, holder)
            batch, retry_max = micros_in(batch_seconds), micros_in(limits.archive_retry_seconds_max)
            row = w.next_task(connection, lane, now, batch, retry_max, self._task_rows_max, limits.task_bytes_max)
            # A table keeps the lane's highest number alone: while one is given out, no other is.
            if row is None or (row.number is None and w.numbered(connection, lane) is not None):
                return None
            if row.state == "gathering" and row.kind == "events":  # A report's entry says all.
                ws.freeze(connection, row.id, rows_max=self._task_rows_max)
            number = row.number
            if number is None:
                number = w.take_number(connection, lane)
            deaths = row.deaths + (row.state == "running")
            w.begin_task(connection, row.id, number, deaths)
            return Task(row.id, row.kind, lane, number, row.rows, row.failures, deaths)

    def plan(self, task: Task) -> Plan:
        """A task's input. It is the same however often it is asked for."""
        with self._begin() as connection:
            return ws.plan(connection, task)

    def finish(self, task: Task, holder: str) -> None:
        """A task's rows are in the archive, durably: settle what it held.

        Raises:
            LeaseLost: the lane is not held by `holder`; who holds it finds the rows and finishes.
        """
        with self._begin() as connection:
            self._must_hold(connection, task.lane, holder)
            if not w.is_running(connection, task.id, task.number):
                raise LeaseLost(f"lane-{task.lane}", holder)
            if task.kind == "report":
                written, supplements = q.settle_reports(connection, task.id), 0
            else:
                written, supplements = ws.finish(connection, task.id, self.lanes)
            w.remove_task(connection, task.id)
            q.count(connection, supplements=supplements, archived_rows=written)
            q.mark_settled(connection)

    def _must_hold(self, connection: Connection, lane: int, holder: str) -> None:
        if not w.holds(connection, f"lane-{lane}", holder):
            raise LeaseLost(f"lane-{lane}", holder)

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def try_later(self, task: Task, problem: str, not_before: int) -> None:
        """Trouble that is not the task's own: try it again, with its number."""
        with self._begin() as connection:
            w.delay_task(connection, task.id, problem, not_before)

    def put_off(self, task: Task, holder: str, problem: str, not_before: int) -> None:
        """Let all others of its lane come before a task. Its number was spent before.

        Raises:
            LeaseLost: the lane is not held by `holder`.
        """
        with self._begin() as connection:
            self._must_hold(connection, task.lane, holder)
            w.delay_task(connection, task.id, problem, not_before)
            w.put_off(connection, task.id)

    def streams(self, task: Task) -> list[tuple[str, str]]:
        """A task's streams, by application and name."""
        with self._begin() as connection:
            return w.streams_of_task(connection, task.kind, task.id)

    def split(self, task: Task, holder: str, now: int, new_id: Callable[[int], str]) -> None:
        """Put a task's streams into two tasks, whose number is yet to come. Its own was spent before.

        Raises:
            LeaseLost: the lane is not held by `holder`.
        """
        with self._begin() as connection:
            self._must_hold(connection, task.lane, holder)
            streams = w.streams_of_task(connection, task.kind, task.id)
            middle = len(streams) // 2
            for number, last in ((middle, streams[middle - 1]), (len(streams) - middle, None)):
                new = new_id(16)
                w.add_task(connection, new, task.kind, task.lane, "waiting", now, number, 0)
                w.move_streams(connection, task.kind, task.id, new, last)
            w.remove_task(connection, task.id)

    def park(self, task: Task, holder: str) -> None:
        """Give up a task of one stream, a copy of which lies elsewhere.

        Raises:
            LeaseLost: the lane is not held by `holder`.
        """
        with self._begin() as connection:
            self._must_hold(connection, task.lane, holder)
            # What is parked is not archived: it is a gap, and would be tried again if it came again.
            if task.kind == "report":
                q.forget(connection, w.streams_of_task(connection, task.kind, task.id), [])
            q.settle_reports(connection, task.id)
            ws.park(connection, task.id, self.lanes)
            w.remove_task(connection, task.id)
            q.mark_settled(connection)

    def give_back(self, task: Task, holder: str) -> None:
        """Let a task's streams wait again. Its number was spent before.

        Raises:
            LeaseLost: the lane is not held by `holder`.
        """
        with self._begin() as connection:
            self._must_hold(connection, task.lane, holder)
            w.give_back(connection, task.id)

    def lose_segment(self, name: str) -> bool:
        """Forget a segment with all that waits in it: it is gone, or damaged. What is archived of it stays.

        False, and nothing is forgotten, while a task that has a number reads it.
        """
        with self._begin() as connection:
            segment = q.unsettled_segment(connection, name)
            if segment is None:
                return True
            if q.is_begun_with(connection, segment):
                return False
            ws.lose(connection, segment, self.lanes)
            return True

    # -- what goes --------------------------------------------------------------------------------------------------

    def settled(self) -> list[str]:
        """The segments of which all is archived, a duplicate, or parked, and that no task may read. They may go.

        That is durable: a coordinator that has lost it would look for them.
        """
        with self._begin(durable=True) as connection:
            q.mark_settled(connection)
            names = [name for name, settled in q.segments(connection).items() if settled]
            if names:
                q.keep_fact(connection, "durable", names[-1])  # What changes nothing would not be written.
            return names

    def forget_segment(self, name: str) -> None:
        """The file is gone, durably."""
        with self._begin() as connection:
            q.remove_segment(connection, name)

    def prune(self, before: int) -> None:
        """Forget sessions and reports of which nothing came since `before` and nothing waits."""
        with self._begin() as connection:
            q.prune(connection, before)

    def erase(self, stream: str) -> int:
        """Forget a stream, also where a task holds it; how many rows that were. Its segments are rewritten by others.

        All leases must be held: whoever writes has planned with it.
        """
        with self._begin() as connection:
            gone = q.erase(connection, stream)
            q.mark_settled(connection)
            return gone

    def move_segment(self, source: str, target: str | None, places: dict[int, int]) -> None:
        """Another segment stands in the place of one, or none; `places` tells where each line is now. It is durable."""
        with self._begin(durable=True) as connection:
            q.move_segment(connection, source, target, places)
            q.mark_settled(connection)

    def scrub(self) -> None:
        """Return once the tables' files hold nothing of what was deleted."""
        try:
            scrub(self._engine)
        except (sa.exc.DBAPIError, sqlite3.Error) as failure:
            raise CoordinatorUnusable(self._place, failure) from failure

    # -- made anew --------------------------------------------------------------------------------------------------

    def done(self, lane: int) -> int:
        """The number of the lane's last task that is done, which has its mark in a table; 0 before the first."""
        with self._begin() as connection:
            return w.number(connection, lane) - (w.numbered(connection, lane) is not None)

    def knows(self, lane: int, mark: Mark) -> bool:
        """Whether this is the mark of a task that was given out here, or an older one's."""
        with self._begin() as connection:
            if mark.number != w.number(connection, lane):
                return mark.number < w.number(connection, lane)
            given = w.numbered(connection, lane)
            return given is None or given.number != mark.number or Mark.of(*given).spent == mark.spent

    def restore(self, past: Restored) -> None:
        """Forget all, and take up what the archive tells; segments are registered anew afterwards."""
        # The archive is read before: nobody waits for that, and no database for a transaction in which nothing comes.
        sessions = [ws.row_of(session, [], self.lanes) for session in past.sessions]
        reports = [(*key, at, None) for key, at in ws.latest(past.reports).items()]
        with self._begin() as connection:
            make_anew(connection, lanes=self.lanes)
            for lane, number in past.numbers.items():
                w.raise_number(connection, lane, number)
            q.add_sessions(connection, sessions)
            q.add_reports(connection, reports)


def micros_in(seconds: float) -> int:
    """Microseconds in so many seconds."""
    return int(seconds * 1_000_000)
