"""Every query of what came and of what is known of it, by name.

Takes   a connection in a transaction, and values.
Gives   rows.
Never   decides anything that a name here does not say; each is one statement, or one for each chunk of its input.
        Who works on what is asked in ``work.py``.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from .schema import entries as e
from .schema import facts as f
from .schema import is_batch, is_report, report_waits
from .schema import reports as r
from .schema import segments as sg
from .schema import sessions as s
from .schema import tasks as t
from .schema import totals as to

if TYPE_CHECKING:
    from .session import Session
    from .task import Entry

Key = tuple[str, str]
Item = TypeVar("Item", int, str)
# Databases bound how many values a statement may have; this is below every bound.
_CHUNK = 500


def _chunks(items: Collection[Item]) -> Iterator[list[Item]]:
    iterator = iter(sorted(items))  # Neighbours lie on the same pages.
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


def insert_into(connection: Connection, table: sa.Table) -> Any:
    """An INSERT that knows ON CONFLICT."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _many(connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run a statement for each of many rows; a key of a row is a column, or a parameter's name.

    It is compiled here, once: SQLAlchemy itself looks at each value of each row, which takes longer than the database.
    """
    if not rows:
        return
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
    common = {name: value for name, value in compiled.params.items() if name not in rows[0]}
    values: list[Any] = [{**common, **row} for row in rows] if common else list(rows)
    if compiled.positional:
        values = list(map(operator.itemgetter(*compiled.positiontup), values))
    connection.exec_driver_sql(compiled.string, values)


# -- facts and totals ---------------------------------------------------------------------------------------------


def fact(connection: Connection, name: str) -> str | None:
    """A fact's value."""
    return connection.execute(sa.select(f.c.value).where(f.c.name == name)).scalar()


def keep_fact(connection: Connection, name: str, value: str) -> None:
    """Set a fact."""
    insert = insert_into(connection, f).values(name=name, value=value)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def count(connection: Connection, **more: int) -> None:
    """Add to totals."""
    for name, number in more.items():
        if number:
            insert = insert_into(connection, to).values(name=name, value=number)
            add = {"value": to.c.value + number}
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=add))


def totals(connection: Connection) -> dict[str, int]:
    """All totals."""
    return {row.name: row.value for row in connection.execute(sa.select(to))}


# -- segments -----------------------------------------------------------------------------------------------------


def add_segment(connection: Connection, name: str) -> int | None:
    """A new segment's id; None if it is there."""
    insert = insert_into(connection, sg).values(name=name, settled=False).on_conflict_do_nothing()
    return connection.execute(insert.returning(sg.c.id)).scalar()


def segments(connection: Connection) -> dict[str, bool]:
    """Registered segments, and whether each is settled."""
    return {row.name: row.settled for row in connection.execute(sa.select(sg.c.name, sg.c.settled))}


def segment_names(connection: Connection) -> dict[int, str]:
    """The names by their ids."""
    return {row.id: row.name for row in connection.execute(sa.select(sg.c.id, sg.c.name))}


def mark_settled(connection: Connection) -> None:
    """Mark the segments of which no entry is left."""
    left = sa.exists().where(e.c.segment == sg.c.id)
    connection.execute(sa.update(sg).where(~sg.c.settled, ~left).values(settled=True))


def remove_segment(connection: Connection, name: str) -> None:
    """Forget a segment of which no entry is left."""
    left = sa.exists().where(e.c.segment == sg.c.id)
    connection.execute(sa.delete(sg).where(sg.c.name == name, ~left))


def move_segment(connection: Connection, source: str, target: str | None, places: dict[int, int]) -> None:
    """Let a segment's entries lie in another one, at other lines; those that are not in `places` are no more."""
    old = connection.execute(sa.select(sg.c.id).where(sg.c.name == source)).scalar()
    if old is None:
        return
    if target is not None:
        # It is there if it was registered before anybody knew that it stands in the place of another.
        add_segment(connection, target)
        new = connection.execute(sa.select(sg.c.id).where(sg.c.name == target)).scalar_one()
        rows = connection.execute(sa.select(e.c.id, e.c.line).where(e.c.segment == old)).all()
        moves = [{"of_id": row.id, "its_line": places[row.line]} for row in rows if row.line in places]
        if moves:
            connection.execute(
                sa.update(e).where(e.c.id == sa.bindparam("of_id")).values(segment=new, line=sa.bindparam("its_line")),
                moves,
            )
            connection.execute(sa.update(sg).where(sg.c.id == new).values(settled=False))
    connection.execute(sa.delete(e).where(e.c.segment == old))
    connection.execute(sa.delete(sg).where(sg.c.id == old))


def unsettled_segment(connection: Connection, name: str) -> int | None:
    """The id of a segment of which something is not settled."""
    return connection.execute(sa.select(sg.c.id).where(sg.c.name == name, ~sg.c.settled)).scalar()


def is_begun_with(connection: Connection, segment: int) -> bool:
    """Whether a task that has a number reads a segment."""
    reads = sa.select(e.c.id).join(t, t.c.id == e.c.task).where(e.c.segment == segment, t.c.number.isnot(None)).limit(1)
    return connection.execute(reads).first() is not None


def remove_lost(connection: Connection, segment: int) -> dict[str, set[Key]]:
    """Forget a segment with its entries; whose those were, by kind."""
    gone: dict[str, set[Key]] = {"report": set(), "events": set()}
    for row in connection.execute(sa.select(e.c.kind, e.c.app, e.c.stream).where(e.c.segment == segment)):
        gone[row.kind].add((row.app, row.stream))
    connection.execute(sa.delete(e).where(e.c.segment == segment))
    connection.execute(sa.delete(sg).where(sg.c.id == segment))
    return gone


# -- entries ------------------------------------------------------------------------------------------------------


def entry_id(segment: int, line: int) -> int:
    """What the entry has for its id that is registered from there."""
    return segment << 32 | line


def add_entries(connection: Connection, segment: int, entries: Sequence[tuple[int, Entry]]) -> None:
    """Entries of a segment, each with its lane."""
    _many(
        connection,
        sa.insert(e),
        [
            {**entry._asdict(), "id": entry_id(segment, entry.line), "lane": lane, "segment": segment}
            for lane, entry in entries
        ],
    )


def move_entries(connection: Connection, segment: int, moves: Sequence[tuple[int, Entry]]) -> None:
    """Let entries lie where the same report was received earlier."""
    for place, entry in moves:  # Hardly ever any: segments are registered in the order in which they were begun.
        connection.execute(
            sa.update(e)
            .where(e.c.id == place)
            .values(received=entry.received, segment=segment, line=entry.line, bytes=entry.bytes)
        )


def entries_of_task(connection: Connection, task: str) -> Sequence[Any]:
    """A task's entries, in the order of segment and line: of two received at once the first here wins."""
    return connection.execute(sa.select(e).where(e.c.task == task).order_by(e.c.segment, e.c.line)).all()


def lines_of_task(connection: Connection, task: str) -> Sequence[Any]:
    """Where a task's entries lie, and whose they are: segment, line, app, stream, in the order of `entries_of_task`."""
    columns = (e.c.segment, e.c.line, e.c.app, e.c.stream)
    return connection.execute(sa.select(*columns).where(e.c.task == task).order_by(*columns[:2])).all()


def entries_beside(connection: Connection, task: str) -> Sequence[Any]:
    """The entries of a task's sessions that came too late for it."""
    its = sa.tuple_(e.c.app, e.c.stream).in_(sa.select(s.c.app, s.c.stream).where(s.c.task == task))
    return connection.execute(sa.select(e).where(is_batch, e.c.task.is_(None), its)).all()


def remove_entries_of(connection: Connection, task: str) -> None:
    """Forget a task's entries."""
    connection.execute(sa.delete(e).where(e.c.task == task))


def free_entries(connection: Connection, ids: Collection[int]) -> None:
    """Let entries wait for another task."""
    for chunk in _chunks(ids):
        connection.execute(sa.update(e).where(e.c.id.in_(chunk)).values(task=None))


def entries_of_sessions(connection: Connection, streams: Collection[str]) -> dict[Key, list[Any]]:
    """All entries of some sessions."""
    found: dict[Key, list[Any]] = {}
    for chunk in _chunks(streams):
        for row in connection.execute(sa.select(e).where(is_batch, e.c.stream.in_(chunk))):
            found.setdefault((row.app, row.stream), []).append(row)
    return found


def remove_entries(connection: Connection, ids: Collection[int]) -> None:
    """Forget entries."""
    for chunk in _chunks(ids):
        connection.execute(sa.delete(e).where(e.c.id.in_(chunk)))


def freeze_entries(connection: Connection, task: str) -> None:
    """Give a task all entries of its sessions that have come so far."""
    # A list that is made once: asked row by row, the planner would look through all of the task for each.
    its = sa.tuple_(e.c.app, e.c.stream).in_(sa.select(s.c.app, s.c.stream).where(s.c.task == task))
    connection.execute(sa.update(e).where(is_batch, e.c.task.is_(None), its).values(task=task))


def oldest_waiting(connection: Connection) -> int | None:
    """When the oldest entry was received that is not settled."""
    return connection.execute(sa.select(sa.func.min(e.c.received))).scalar()


# -- reports ------------------------------------------------------------------------------------------------------


_archived = ~sa.exists().where(e.c.id == r.c.entry)


class Place(NamedTuple):
    """Where a report that waits lies."""

    id: int
    received: int
    task: str | None


class Chunk(NamedTuple):
    """The reports that wait up to an entry."""

    rows: int
    bytes: int
    last: int


def reports(connection: Connection, ids: Collection[str]) -> dict[Key, Place | None]:
    """Which of some reports are known, and where each lies that is not archived."""
    found: dict[Key, Place | None] = {}
    for chunk in _chunks(ids):
        rows = connection.execute(
            sa.select(r.c.app, r.c.id, e.c.id.label("entry"), e.c.received, t.c.id.label("task"))
            # While a task gathers its input may still change.
            .select_from(
                r.outerjoin(e, e.c.id == r.c.entry).outerjoin(
                    t, sa.and_(t.c.id == e.c.task, t.c.state != sa.literal("gathering"))
                )
            )
            .where(r.c.id.in_(chunk))
        )
        for row in rows:
            found[(row.app, row.id)] = None if row.entry is None else Place(row.entry, row.received, row.task)
    return found


def archived_reports(connection: Connection, low: str, high: str) -> dict[Key, int]:
    """The archived reports from one name on and below another, and when something of each came last."""
    rows = connection.execute(sa.select(r.c.app, r.c.id, r.c.last_entry).where(r.c.id >= low, r.c.id < high, _archived))
    return {(row.app, row.id): row.last_entry for row in rows}


def add_reports(connection: Connection, rows: Sequence[tuple[str, str, int, int | None]]) -> None:
    """Reports that were not known: app, id, received, the entry's id if it is not archived."""
    _many(
        connection,
        sa.insert(r),
        [
            {"app": app, "id": report, "last_entry": at, "entry": entry}
            for app, report, at, entry in sorted(rows, key=lambda row: row[1])
        ],
    )


def touch_reports(connection: Connection, rows: Sequence[tuple[str, str, int]]) -> None:
    """Something of known reports came again: app, id, received."""
    _many(
        connection,
        sa.update(r)
        .where(r.c.app == sa.bindparam("of_app"), r.c.id == sa.bindparam("of_id"), r.c.last_entry < sa.bindparam("at"))
        .values(last_entry=sa.bindparam("at")),
        [{"of_app": app, "of_id": report, "at": at} for app, report, at in rows],
    )


def waiting_reports(connection: Connection, lane: int, rows_max: int) -> Chunk:
    """The first so many reports that no task has."""
    waiting = (
        sa.select(e.c.id, e.c.bytes).where(report_waits, e.c.lane == lane).order_by(e.c.id).limit(rows_max).subquery()
    )
    row = connection.execute(
        sa.select(
            sa.func.count(), sa.func.coalesce(sa.func.sum(waiting.c.bytes), 0), sa.func.max(waiting.c.id)
        ).select_from(waiting)
    ).one()
    return Chunk(int(row[0]), int(row[1]), int(row[2] or 0))


def put_reports(connection: Connection, task: str, lane: int, last: int) -> None:
    """Give a task the reports that wait up to an entry."""
    connection.execute(sa.update(e).where(report_waits, e.c.lane == lane, e.c.id <= last).values(task=task))


def settle_reports(connection: Connection, task: str) -> int:
    """A task's reports are archived: they wait no more, and stay known. How many those were."""
    return connection.execute(sa.delete(e).where(e.c.task == task, is_report)).rowcount


# -- sessions -----------------------------------------------------------------------------------------------------


def sessions(connection: Connection, streams: Collection[str]) -> dict[Key, Any]:
    """Sessions by app and stream."""
    found = {}
    for chunk in _chunks(streams):
        for row in connection.execute(sa.select(s).where(s.c.stream.in_(chunk))):
            found[(row.app, row.stream)] = row
    return found


class SessionRow(NamedTuple):
    """A session as it is put down: what is known of it, and what of it waits."""

    lane: int
    session: Session
    known: bytes
    oldest_waiting: int | None
    rows: int
    bytes: int

    def values(self) -> dict[str, Any]:
        """The columns, but the key."""
        return {
            "known": self.known,
            "state": self.session.state,
            "complete": self.session.complete,
            "last_entry": self.session.last_entry,
            "oldest_waiting": self.oldest_waiting,
            "rows": self.rows,
            "bytes": self.bytes,
        }


def add_sessions(connection: Connection, rows: Sequence[SessionRow]) -> None:
    """Sessions that were not known."""
    _many(
        connection,
        sa.insert(s),
        [{**row.values(), "app": row.session.app, "stream": row.session.stream, "lane": row.lane} for row in rows],
    )


def keep_sessions(connection: Connection, rows: Sequence[SessionRow], *, let_go: bool = False) -> None:
    """Put sessions down as they are now; `let_go` takes them out of their task."""
    if not rows:
        return
    values: dict[str, Any] = {name: sa.bindparam(f"its_{name}") for name in rows[0].values()}
    if let_go:
        values |= {"task": None, "part": None}
    _many(
        connection,
        sa.update(s).where(s.c.app == sa.bindparam("of_app"), s.c.stream == sa.bindparam("of_stream")).values(values),
        [
            {
                **{f"its_{name}": value for name, value in row.values().items()},
                "of_app": row.session.app,
                "of_stream": row.session.stream,
            }
            for row in rows
        ],
    )


def due_sessions(connection: Connection, now: int, delay: int, max_delay: int) -> Sequence[Any]:
    """Sessions of which something waits, that no task has, and that are complete since long enough, or overdue.

    So are those that came by a clock that was ahead by as much.
    """
    columns = (s.c.app, s.c.stream, s.c.lane, s.c.rows, s.c.bytes)
    waits = sa.and_(s.c.oldest_waiting.isnot(None), s.c.task.is_(None))
    complete, overdue = sa.and_(waits, s.c.complete), waits
    return connection.execute(
        sa.union(
            sa.select(*columns).where(complete, s.c.last_entry <= now - delay),
            sa.select(*columns).where(complete, s.c.last_entry > now + delay),
            sa.select(*columns).where(overdue, s.c.oldest_waiting <= now - max_delay),
            sa.select(*columns).where(overdue, s.c.oldest_waiting > now + max_delay),
        )
    ).all()


def put_sessions(connection: Connection, puts: Sequence[tuple[str, str, str]]) -> None:
    """Give tasks sessions: task, app, stream."""
    _many(
        connection,
        sa.update(s)
        .where(s.c.app == sa.bindparam("of_app"), s.c.stream == sa.bindparam("of_stream"))
        .values(task=sa.bindparam("its_task")),
        [{"its_task": task, "of_app": app, "of_stream": stream} for task, app, stream in puts],
    )


def sessions_of_task(connection: Connection, task: str) -> dict[Key, Any]:
    """A task's sessions."""
    return {(row.app, row.stream): row for row in connection.execute(sa.select(s).where(s.c.task == task))}


def keep_parts(connection: Connection, parts: Sequence[tuple[str, str, bytes]]) -> None:
    """What a task archives of each of its sessions."""
    _many(
        connection,
        sa.update(s)
        .where(s.c.app == sa.bindparam("of_app"), s.c.stream == sa.bindparam("of_stream"))
        .values(part=sa.bindparam("its_part")),
        [{"of_app": app, "of_stream": stream, "its_part": part} for app, stream, part in parts],
    )


def sessions_between(connection: Connection, low: str, high: str) -> Sequence[Any]:
    """The sessions from one name on and below another."""
    columns = (s.c.app, s.c.stream, s.c.known, s.c.part)
    return connection.execute(sa.select(*columns).where(s.c.stream >= low, s.c.stream < high)).all()


def sessions_by_state(connection: Connection) -> dict[str, int]:
    """How many sessions there are in each state."""
    rows = connection.execute(sa.select(s.c.state, sa.func.count()).group_by(s.c.state))
    return {row[0]: row[1] for row in rows}


# -- pruned, erased -----------------------------------------------------------------------------------------------


def prune(connection: Connection, before: int) -> None:
    """Forget what the horizon has passed and of which nothing waits."""
    connection.execute(sa.delete(s).where(s.c.last_entry < before, s.c.oldest_waiting.is_(None), s.c.task.is_(None)))
    connection.execute(sa.delete(r).where(r.c.last_entry < before, _archived))


def forget(connection: Connection, reports: Collection[Key], sessions: Collection[Key]) -> None:
    """Forget reports and sessions of which nothing is left, as if they had never come."""
    for table, name, keys in ((r, r.c.id, reports), (s, s.c.stream, sessions)):
        if keys:
            connection.execute(
                sa.delete(table).where(name == sa.bindparam("of_name"), table.c.app == sa.bindparam("of_app")),
                [{"of_app": app, "of_name": stream} for app, stream in keys],
            )


def erase(connection: Connection, stream: str) -> int:
    """Forget all of a stream; how many rows that were."""
    its = sa.select(r.c.entry).where(r.c.id == stream, r.c.entry.isnot(None))
    gone = connection.execute(sa.delete(e).where(e.c.id.in_(its))).rowcount
    gone += connection.execute(sa.delete(e).where(is_batch, e.c.stream == stream)).rowcount
    gone += connection.execute(sa.delete(s).where(s.c.stream == stream)).rowcount
    gone += connection.execute(sa.delete(r).where(r.c.id == stream)).rowcount
    return gone
