"""The coordinator: what waits for the archive, who works on it, and when it is settled.

Takes   sealed segments' entries; the outcomes of tasks.
Gives   tasks with frozen input, one archivist at a time a lane; segments that may go; counts.
Never   reads a segment or the archive: it is told what lies there. What it knows can be made anew from both.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .. import limits
from ..errors import CoordinatorUnusable, LeaseLost
from ..settings import without_password
from . import queries as q
from . import work as w
from .database import scrub
from .migrations import make_anew, migrate
from .ranges import count, ranges, union
from .session import Batch, Part, Session, add, begun, is_begun, is_settled, part_of, shares, with_part, without
from .task import Entry, Kind, Mark, Plan, Task, Wanted


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


_encode = msgspec.json.Encoder().encode
_session = msgspec.json.Decoder(Session).decode
_part = msgspec.json.Decoder(Part).decode


def lane_of(stream: str, lanes: int) -> int:
    """The lane that a stream always waits in."""
    return hashlib.blake2s(stream.encode(), digest_size=4).digest()[0] % lanes


class Coordinator:
    """One database. Its methods block, each is one transaction, and whatever ends the process leaves it whole."""

    def __init__(self, engine: Engine, *, lanes: int = 1, task_rows_max: int = limits.task_rows_max) -> None:
        """`lanes` is how many a new coordinator gets; one that is there keeps its own. A task is full at so many rows.

        Raises:
            CoordinatorUnusable: the database is damaged, or away.
            CoordinatorNewer: it is of a later version.
        """
        self._engine, self._task_rows_max = engine, task_rows_max
        self._place = without_password(engine.url.render_as_string(hide_password=False))
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
    def _begin(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
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
            (row.app, row.stream): Known(_session(row.known), None if row.part is None else _part(row.part))
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
            duplicates = self._add_reports(connection, segment, [entry for entry in entries if entry.kind == "report"])
            found = self._add_batches(connection, segment, [entry for entry in entries if entry.kind == "events"])
            q.count(connection, duplicates=duplicates + found.duplicates, contradictions=found.contradictions)
            return True

    def _add_reports(self, connection: Connection, segment: int, entries: list[Entry]) -> int:
        known = q.reports(connection, {entry.stream for entry in entries})
        new: dict[tuple[str, str], Entry] = {}
        duplicates = 0
        earlier = []
        for entry in sorted(entries, key=lambda entry: entry.received):
            key = (entry.app, entry.stream)
            if key in known or key in new:
                duplicates += 1
                place = known.get(key)
                if place is not None and place.task is None and entry.received < place.received:
                    earlier.append((place.id, entry))
                    known[key] = place._replace(received=entry.received)
            else:
                new[key] = entry
        q.move_entries(connection, segment, earlier)
        q.add_entries(connection, segment, [(self._lane(entry.stream), entry) for entry in new.values()])
        last = latest((entry.app, entry.stream, entry.received) for entry in entries)
        q.add_reports(connection, [(*key, last[key], q.entry_id(segment, entry.line)) for key, entry in new.items()])
        q.touch_reports(connection, [(*key, received) for key, received in last.items() if key in known])
        return duplicates

    def _add_batches(self, connection: Connection, segment: int, entries: list[Entry]) -> _Found:
        rows = q.sessions(connection, {entry.stream for entry in entries})
        states = {key: _session(row.known) for key, row in rows.items()}
        kept: dict[tuple[str, str], list[Entry]] = {}
        before = {key: (state.duplicates, state.contradictions) for key, state in states.items()}
        new = []
        for entry in sorted(entries, key=lambda entry: entry.received):
            key = (entry.app, entry.stream)
            added = add(states.get(key) or begun(*key, entry.batch), entry.batch)
            states[key] = added.session
            if added.is_new:
                new.append((self._lane(entry.stream), entry))
                kept.setdefault(key, []).append(entry)
        q.add_entries(connection, segment, new)
        added_rows, changed = [], []
        for key, state in states.items():
            row, batches = rows.get(key), kept.get(key, [])
            if row is None:
                added_rows.append(self._row(state, batches))
            else:
                changed.append(self._row(state, batches, row.oldest_waiting, row.rows, row.bytes))
        q.add_sessions(connection, added_rows)
        q.keep_sessions(connection, changed)
        return _Found(
            sum(state.duplicates - before.get(key, (0, 0))[0] for key, state in states.items()),
            sum(state.contradictions - before.get(key, (0, 0))[1] for key, state in states.items()),
        )

    def _row(
        self, session: Session, more: Sequence[Any], oldest: int | None = None, rows: int = 0, size: int = 0
    ) -> q.SessionRow:
        """A session of which this much waits, and besides it `more` (entries)."""
        moments = [entry.received for entry in more]
        if oldest is not None:
            moments.append(oldest)
        return q.SessionRow(
            self._lane(session.stream),
            session,
            _encode(session),
            min(moments, default=None),
            rows + sum(count(_batch_of(entry).content) for entry in more),
            size + sum(entry.bytes for entry in more),
        )

    def _lane(self, stream: str) -> int:
        return lane_of(stream, self.lanes) if self.lanes > 1 else 0

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
            if row.state == "gathering":
                self._freeze(connection, row.id, row.kind)
            number = row.number
            if number is None:
                number = w.take_number(connection, lane)
            deaths = row.deaths + (row.state == "running")
            w.begin_task(connection, row.id, number, deaths)
            return Task(row.id, row.kind, lane, number, row.rows, row.failures, deaths)

    def plan(self, task: Task) -> Plan:
        """A task's input. It is the same however often it is asked for."""
        lines: dict[str, dict[int, Wanted]] = {}
        with self._begin() as connection:
            names = q.segment_names(connection)
            if task.kind == "report":
                for segment, line, app, stream in q.lines_of_task(connection, task.id):
                    lines.setdefault(names[segment], {})[line] = Wanted((app, stream), None)
                return Plan(lines, {})
            rows = q.entries_of_task(connection, task.id)
            parts = {key: _part(row.part) for key, row in q.sessions_of_task(connection, task.id).items()}
        of_session: dict[tuple[str, str], list[Any]] = {}
        for row in rows:
            of_session.setdefault((row.app, row.stream), []).append(row)
        for key, part in parts.items():
            its = of_session.get(key, [])
            for row, share in zip(its, shares([_batch_of(row) for row in its], part.content), strict=True):
                if share:
                    lines.setdefault(names[row.segment], {})[row.line] = Wanted(key, share)
        return Plan(lines, parts)

    def finish(self, task: Task, holder: str) -> None:
        """A task's rows are in the archive, durably: settle what it held.

        Raises:
            LeaseLost: the lane is not held by `holder`; who holds it finds the rows and finishes.
        """
        with self._begin() as connection:
            self._must_hold(connection, task.lane, holder)
            if not w.is_running(connection, task.id, task.number):
                raise LeaseLost(f"lane-{task.lane}", holder)
            supplements = written = 0
            if task.kind == "report":
                written = q.settle_reports(connection, task.id)
            else:
                settled = {}
                for key, row in q.sessions_of_task(connection, task.id).items():
                    part = _part(row.part)
                    supplements += part.number > 1
                    written += count(part.content)
                    settled[key] = with_part(_session(row.known), part)
                self._settle(connection, task.id, settled, lambda key, batch: is_settled(settled[key], batch))
            w.remove_task(connection, task.id)
            q.count(connection, supplements=supplements, archived_rows=written)
            q.mark_settled(connection)

    def _settle(
        self,
        connection: Connection,
        task: str,
        sessions: dict[tuple[str, str], Session],
        is_over: Callable[[tuple[str, str], Batch], bool],
    ) -> None:
        """Take sessions out of a task, with its entries that are over, and with all that are needless now."""
        own = q.entries_of_task(connection, task)
        q.free_entries(connection, [row.id for row in own if not is_over((row.app, row.stream), _batch_of(row))])
        late: dict[tuple[str, str], list[Any]] = {}
        for entry in q.entries_beside(connection, task):
            late.setdefault((entry.app, entry.stream), []).append(entry)
        q.remove_entries_of(connection, task)
        needless, rows = [], []
        for key, session in sessions.items():
            left, content = [], session.archived
            for entry in late.get(key, []):
                if is_settled(session, _batch_of(entry)):
                    needless.append(entry.id)
                else:
                    left.append(entry)
                    content = union(content, _batch_of(entry).content)
            gone = len(late.get(key, [])) - len(left)
            kept = msgspec.structs.replace(session, content=content, duplicates=session.duplicates + gone)
            rows.append(self._row(kept, left))
        q.remove_entries(connection, needless)
        q.keep_sessions(connection, rows, let_go=True)
        q.count(connection, duplicates=len(needless))

    def _freeze(self, connection: Connection, task: str, kind: Kind) -> None:
        if kind == "report":
            return  # A report's entry says all.
        q.freeze_entries(connection, task)
        batches: dict[tuple[str, str], list[Batch]] = {}
        for entry in q.entries_of_task(connection, task):
            batches.setdefault((entry.app, entry.stream), []).append(_batch_of(entry))
        parts = []
        for key, row in q.sessions_of_task(connection, task).items():
            waiting: tuple[tuple[int, int], ...] = ()
            for batch in batches.get(key, []):
                waiting += batch.content
            part = part_of(_session(row.known), ranges(waiting), rows_max=self._share(row.rows, row.bytes))
            parts.append((*key, _encode(part)))
        q.keep_parts(connection, parts)

    def _share(self, rows: int, size: int) -> int:
        """How many events of one session a task takes at most, whose lines are so long together."""
        return max(1, min(self._task_rows_max, rows * limits.task_bytes_max // max(size, 1)))

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
            rows = q.sessions_of_task(connection, task.id)
            sessions = {key: _session(row.known) for key, row in rows.items()}
            parts = {key: _part(row.part) for key, row in rows.items()}
            self._settle(connection, task.id, sessions, lambda key, batch: is_begun(sessions[key], parts[key], batch))
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
            gone = q.remove_lost(connection, segment)
            streams = {stream for _, stream in gone["events"]}
            left = q.entries_of_sessions(connection, streams)
            changed, done, forgotten = [], [], []
            for key, row in q.sessions(connection, streams).items():
                if key not in gone["events"]:
                    continue
                entries = left.get(key, [])
                session = without(_session(row.known), [_batch_of(entry) for entry in entries])
                if entries:
                    changed.append(self._row(session, entries))
                elif session.part:
                    done.append(self._row(session, []))
                else:
                    forgotten.append(key)
            q.keep_sessions(connection, changed)
            q.keep_sessions(connection, done, let_go=True)
            q.forget(connection, gone["report"], forgotten)
            return True

    # -- what goes --------------------------------------------------------------------------------------------------

    def settled(self) -> list[str]:
        """The segments of which all is archived, a duplicate, or parked, and that no task may read."""
        with self._begin() as connection:
            q.mark_settled(connection)
            return [name for name, settled in q.segments(connection).items() if settled]

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
        """Another segment stands in the place of one, or none; `places` tells where each line is now."""
        with self._begin() as connection:
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
        sessions = [self._row(session, []) for session in past.sessions]
        reports = [(*key, at, None) for key, at in latest(past.reports).items()]
        with self._begin() as connection:
            make_anew(connection, lanes=self.lanes)
            for lane, number in past.numbers.items():
                w.raise_number(connection, lane, number)
            q.add_sessions(connection, sessions)
            q.add_reports(connection, reports)


class _Found(NamedTuple):
    duplicates: int
    contradictions: int


def latest(reports: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str], int]:
    """Each report once, with its latest time."""
    found: dict[tuple[str, str], int] = {}
    for app, report, at in reports:
        found[(app, report)] = max(at, found.get((app, report), 0))
    return found


def micros_in(seconds: float) -> int:
    """Microseconds in so many seconds."""
    return int(seconds * 1_000_000)


def _batch_of(row: Any) -> Batch:
    return Batch(row.received, row.first, row.last, row.lost, row.terminal)
