"""What waits of reports and sessions, in a transaction: taken up from segments, frozen into a task, settled by it.

Takes   a connection in a transaction, entries, tasks, and how many lanes there are.
Gives   rows of entries, reports and sessions as they are afterwards; a task's input.
Never   begins or ends a transaction; knows who works (``coordinator.py``), or a rule of sessions (``session.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.engine import Connection

from .. import limits
from . import queries as q
from .queries import Key
from .ranges import count, ranges, union
from .session import Batch, Part, Session, add, begun, is_begun, is_settled, part_of, shares, with_part, without
from .task import Entry, Plan, Task, Wanted

_encode = msgspec.json.Encoder().encode
session_in = msgspec.json.Decoder(Session).decode
part_in = msgspec.json.Decoder(Part).decode


def lane_of(stream: str, lanes: int) -> int:
    """The lane that a stream always waits in."""
    if lanes == 1:
        return 0
    return hashlib.blake2s(stream.encode(), digest_size=4).digest()[0] % lanes


class Found(NamedTuple):
    """What of some batches was nothing new, or contradicts."""

    duplicates: int
    contradictions: int


def add_reports(connection: Connection, segment: int, entries: list[Entry], lanes: int) -> int:
    """Take up a segment's reports; how many of them are repetitions."""
    known = q.reports(connection, {entry.stream for entry in entries})
    new: dict[Key, Entry] = {}
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
    q.add_entries(connection, segment, [(lane_of(entry.stream, lanes), entry) for entry in new.values()])
    last = latest((entry.app, entry.stream, entry.received) for entry in entries)
    q.add_reports(connection, [(*key, last[key], q.entry_id(segment, entry.line)) for key, entry in new.items()])
    q.touch_reports(connection, [(*key, received) for key, received in last.items() if key in known])
    return duplicates


def add_batches(connection: Connection, segment: int, entries: list[Entry], lanes: int) -> Found:
    """Take up a segment's batches."""
    rows = q.sessions(connection, {entry.stream for entry in entries})
    states = {key: session_in(row.known) for key, row in rows.items()}
    kept: dict[Key, list[Entry]] = {}
    before = {key: (state.duplicates, state.contradictions) for key, state in states.items()}
    new = []
    for entry in sorted(entries, key=lambda entry: entry.received):
        key = (entry.app, entry.stream)
        added = add(states.get(key) or begun(*key, entry.batch), entry.batch)
        states[key] = added.session
        if added.is_new:
            new.append((lane_of(entry.stream, lanes), entry))
            kept.setdefault(key, []).append(entry)
    q.add_entries(connection, segment, new)
    added_rows, changed = [], []
    for key, state in states.items():
        row, batches = rows.get(key), kept.get(key, [])
        if row is None:
            added_rows.append(row_of(state, batches, lanes))
        else:
            changed.append(row_of(state, batches, lanes, row.oldest_waiting, row.rows, row.bytes))
    q.add_sessions(connection, added_rows)
    q.keep_sessions(connection, changed)
    return Found(
        sum(state.duplicates - before.get(key, (0, 0))[0] for key, state in states.items()),
        sum(state.contradictions - before.get(key, (0, 0))[1] for key, state in states.items()),
    )


def freeze(connection: Connection, task: str, *, rows_max: int) -> None:
    """Fix what a task archives of each of its sessions: of one so many events at most."""
    q.freeze_entries(connection, task)
    batches: dict[Key, list[Batch]] = {}
    for entry in q.entries_of_task(connection, task):
        batches.setdefault((entry.app, entry.stream), []).append(_batch_of(entry))
    parts = []
    for key, row in q.sessions_of_task(connection, task).items():
        waiting: tuple[tuple[int, int], ...] = ()
        for batch in batches.get(key, []):
            waiting += batch.content
        part = part_of(session_in(row.known), ranges(waiting), rows_max=_share(row.rows, row.bytes, rows_max))
        parts.append((*key, _encode(part)))
    q.keep_parts(connection, parts)


def _share(rows: int, size: int, rows_max: int) -> int:
    """How many events of one session a task takes at most, whose lines are so long together."""
    return max(1, min(rows_max, rows * limits.task_bytes_max // max(size, 1)))


def plan(connection: Connection, task: Task) -> Plan:
    """A task's input."""
    lines: dict[str, dict[int, Wanted]] = {}
    names = q.segment_names(connection)
    if task.kind == "report":
        for segment, line, app, stream in q.lines_of_task(connection, task.id):
            lines.setdefault(names[segment], {})[line] = Wanted((app, stream), None)
        return Plan(lines, {})
    rows = q.entries_of_task(connection, task.id)
    parts = {key: part_in(row.part) for key, row in q.sessions_of_task(connection, task.id).items()}
    of_session: dict[Key, list[Any]] = {}
    for row in rows:
        of_session.setdefault((row.app, row.stream), []).append(row)
    for key, part in parts.items():
        its = of_session.get(key, [])
        for row, share in zip(its, shares([_batch_of(row) for row in its], part.content), strict=True):
            if share:
                lines.setdefault(names[row.segment], {})[row.line] = Wanted(key, share)
    return Plan(lines, parts)


def finish(connection: Connection, task: str, lanes: int) -> tuple[int, int]:
    """A task's events are archived: how many those were, and how many of its sessions had a part before."""
    supplements = written = 0
    settled = {}
    for key, row in q.sessions_of_task(connection, task).items():
        part = part_in(row.part)
        supplements += part.number > 1
        written += count(part.content)
        settled[key] = with_part(session_in(row.known), part)
    _settle(connection, task, settled, lambda key, batch: is_settled(settled[key], batch), lanes)
    return written, supplements


def park(connection: Connection, task: str, lanes: int) -> None:
    """A task's sessions are given up as far as it took them; of one that is longer the rest waits."""
    rows = q.sessions_of_task(connection, task)
    sessions = {key: session_in(row.known) for key, row in rows.items()}
    parts = {key: part_in(row.part) for key, row in rows.items()}
    _settle(connection, task, sessions, lambda key, batch: is_begun(sessions[key], parts[key], batch), lanes)


def _settle(
    connection: Connection,
    task: str,
    sessions: dict[Key, Session],
    is_over: Callable[[Key, Batch], bool],
    lanes: int,
) -> None:
    """Take sessions out of a task, with its entries that are over, and with all that are needless now."""
    own = q.entries_of_task(connection, task)
    q.free_entries(connection, [row.id for row in own if not is_over((row.app, row.stream), _batch_of(row))])
    late: dict[Key, list[Any]] = {}
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
        rows.append(row_of(kept, left, lanes))
    q.remove_entries(connection, needless)
    q.keep_sessions(connection, rows, let_go=True)
    q.count(connection, duplicates=len(needless))


def lose(connection: Connection, segment: int, lanes: int) -> None:
    """Forget a segment with all that waits in it; what is archived of it stays."""
    gone = q.remove_lost(connection, segment)
    streams = {stream for _, stream in gone["events"]}
    left = q.entries_of_sessions(connection, streams)
    changed, done, forgotten = [], [], []
    for key, row in q.sessions(connection, streams).items():
        if key not in gone["events"]:
            continue
        entries = left.get(key, [])
        session = without(session_in(row.known), [_batch_of(entry) for entry in entries])
        if entries:
            changed.append(row_of(session, entries, lanes))
        elif session.part:
            done.append(row_of(session, [], lanes))
        else:
            forgotten.append(key)
    q.keep_sessions(connection, changed)
    q.keep_sessions(connection, done, let_go=True)
    q.forget(connection, gone["report"], forgotten)


def row_of(
    session: Session, more: Sequence[Any], lanes: int, oldest: int | None = None, rows: int = 0, size: int = 0
) -> q.SessionRow:
    """A session of which this much waits, and besides it `more` (entries)."""
    moments = [entry.received for entry in more]
    if oldest is not None:
        moments.append(oldest)
    return q.SessionRow(
        lane_of(session.stream, lanes),
        session,
        _encode(session),
        min(moments, default=None),
        rows + sum(count(_batch_of(entry).content) for entry in more),
        size + sum(entry.bytes for entry in more),
    )


def latest(reports: Iterable[tuple[str, str, int]]) -> dict[Key, int]:
    """Each report once, with its latest time."""
    found: dict[Key, int] = {}
    for app, report, at in reports:
        found[(app, report)] = max(at, found.get((app, report), 0))
    return found


def _batch_of(row: Any) -> Batch:
    return Batch(row.received, row.first, row.last, row.lost, row.terminal)
