"""Every query about who works on what, by name: tasks, and the leases under which they are done.

Takes   a connection in a transaction, and values.
Gives   rows.
Never   decides anything that a name here does not say; what waits, and what is known, is asked in ``queries.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import limits
from .queries import Key, insert_into
from .schema import database_now
from .schema import entries as e
from .schema import leases as le
from .schema import sessions as s
from .schema import tasks as t

# -- tasks --------------------------------------------------------------------------------------------------------


def add_task(
    connection: Connection, task: str, kind: str, lane: int, state: str, made: int, rows: int, size: int
) -> None:
    """A new task without a number."""
    connection.execute(
        sa.insert(t),
        [{"id": task, "kind": kind, "lane": lane, "state": state, "made": made, "rows": rows, "bytes": size}],
    )


def gathering_task(connection: Connection, kind: str, lane: int, rows_max: int, bytes_max: int) -> str | None:
    """The task that has room for more of this kind."""
    return connection.execute(
        sa.select(t.c.id).where(
            t.c.state == "gathering",
            t.c.kind == kind,
            t.c.lane == lane,
            t.c.rows < rows_max,  # A full one waits only to be claimed.
            t.c.bytes < bytes_max,
        )
    ).scalar()


def grow_task(connection: Connection, task: str, rows: int, size: int) -> None:
    """More was put into a task."""
    connection.execute(sa.update(t).where(t.c.id == task).values(rows=t.c.rows + rows, bytes=t.c.bytes + size))


def next_task(
    connection: Connection, lane: int, now: int, batch: int, retry_max: int, rows_max: int, bytes_max: int
) -> Any:
    """The lane's task to work on next: one that was begun, or split off, or that is full or old enough.

    One that a clock has made or put off which was ahead does not wait for that day.
    """
    due = sa.or_(
        t.c.state != "gathering",
        t.c.rows >= rows_max,
        t.c.bytes >= bytes_max,
        t.c.made <= now - batch,
        t.c.made > now + batch,
    )
    may = sa.or_(t.c.not_before <= now, t.c.not_before > now + retry_max)
    return connection.execute(
        sa.select(t)
        .where(t.c.lane == lane, may, due)
        # A number that was given is used up before the next: a table keeps the lane's highest alone.
        .order_by(t.c.number.is_(None), t.c.state == "gathering", t.c.made)
        .limit(1)
    ).first()


class Numbered(NamedTuple):
    """A number that was given, and to which task."""

    number: int
    id: str


def numbered(connection: Connection, lane: int) -> Numbered | None:
    """The lane's task that has a number already."""
    found = sa.select(t.c.number, t.c.id).where(t.c.lane == lane, t.c.number.isnot(None)).limit(1)
    row = connection.execute(found).first()
    return None if row is None else Numbered(*row)


def begin_task(connection: Connection, task: str, number: int, deaths: int) -> None:
    """A task is worked on, with this number."""
    connection.execute(sa.update(t).where(t.c.id == task).values(state="running", number=number, deaths=deaths))


def is_running(connection: Connection, task: str, number: int) -> bool:
    """Whether a task still has this number."""
    found = sa.select(t.c.id).where(t.c.id == task, t.c.state == "running", t.c.number == number)
    return connection.execute(found).first() is not None


def delay_task(connection: Connection, task: str, problem: str, not_before: int) -> None:
    """A task failed for a reason that may pass."""
    failed = {"failures": t.c.failures + 1, "problem": problem, "not_before": not_before}
    connection.execute(sa.update(t).where(t.c.id == task).values(state="waiting", **failed))


def put_off(connection: Connection, task: str) -> None:
    """Let a task wait for a number again, so that those behind it come before; one more death is too many."""
    values = {"number": None, "deaths": limits.task_deaths_max - 1}
    connection.execute(sa.update(t).where(t.c.id == task).values(values))


def remove_task(connection: Connection, task: str) -> None:
    """A task is done."""
    connection.execute(sa.delete(t).where(t.c.id == task))


def streams_of_task(connection: Connection, kind: str, task: str) -> list[Key]:
    """A task's streams, in a fixed order."""
    table = e if kind == "report" else s
    rows = connection.execute(
        sa.select(table.c.app, table.c.stream).where(table.c.task == task).order_by(table.c.app, table.c.stream)
    )
    return [(row.app, row.stream) for row in rows]


def move_streams(connection: Connection, kind: str, source: str, target: str, last: Key | None = None) -> None:
    """Give a task's streams to another, with the frozen input: up to `last` in their order, or all that are left."""
    for table in (e,) if kind == "report" else (e, s):
        its = table.c.task == source
        if last is not None:
            # One comparison: asked stream by stream, the planner would look through all of the task for each.
            its &= sa.tuple_(table.c.app, table.c.stream) <= sa.tuple_(*map(sa.literal, last))
        connection.execute(sa.update(table).where(its).values(task=target))


def task_ids(connection: Connection) -> set[str]:
    """The tasks that are not done."""
    return set(connection.execute(sa.select(t.c.id)).scalars())


def tasks_by_state(connection: Connection) -> dict[str, int]:
    """How many tasks wait, run, and have failed at least once."""
    failed = sa.case((t.c.failures > 0, "failed"), (t.c.state == "running", "running"), else_="waiting")
    rows = connection.execute(sa.select(failed, sa.func.count()).group_by(failed))
    return {"waiting": 0, "running": 0, "failed": 0, **{row[0]: row[1] for row in rows}}


def give_back(connection: Connection, task: str) -> None:
    """Dissolve a task: its streams wait again."""
    connection.execute(sa.update(e).where(e.c.task == task).values(task=None))
    connection.execute(sa.update(s).where(s.c.task == task).values(task=None, part=None))
    remove_task(connection, task)


# -- leases -------------------------------------------------------------------------------------------------------


def add_lease(connection: Connection, name: str) -> None:
    """A lease that nobody holds."""
    connection.execute(sa.insert(le), [{"name": name, "number": 0, "until": 0}])


def hold(connection: Connection, name: str, holder: str, lasts: int) -> bool:
    """Take or renew a lease."""
    taken = connection.execute(
        sa.update(le)
        .where(
            le.c.name == name,
            sa.or_(
                le.c.holder.is_(None),
                le.c.holder == holder,
                le.c.until <= database_now(),  # Who held it died, or sleeps: what it does later is refused.
                le.c.until > database_now() + 2 * lasts,  # It was taken by a clock that was ahead.
            ),
        )
        .values(holder=holder, until=database_now() + lasts)
    )
    return taken.rowcount == 1


def renew(connection: Connection, name: str, holder: str, lasts: int) -> bool:
    """Renew a lease that nobody else has held since."""
    kept = connection.execute(
        sa.update(le).where(le.c.name == name, le.c.holder == holder).values(until=database_now() + lasts)
    )
    return kept.rowcount == 1


def holds(connection: Connection, name: str, holder: str) -> bool:
    """Whether this one holds the lease, and it is not over."""
    found = sa.select(le.c.name).where(le.c.name == name, le.c.holder == holder, le.c.until > database_now())
    return connection.execute(found).first() is not None


def let_go(connection: Connection, name: str, holder: str) -> None:
    """Give a lease back."""
    connection.execute(sa.update(le).where(le.c.name == name, le.c.holder == holder).values(holder=None, until=0))


def number(connection: Connection, lane: int) -> int:
    """The highest number that a task of the lane has, also of one that there was before the coordinator was made."""
    found: int | None = connection.execute(sa.select(le.c.number).where(le.c.name == f"lane-{lane}")).scalar()
    return found or 0


def take_number(connection: Connection, lane: int) -> int:
    """The lane's next number."""
    connection.execute(sa.update(le).where(le.c.name == f"lane-{lane}").values(number=le.c.number + 1))
    return number(connection, lane)


def raise_number(connection: Connection, lane: int, least: int) -> None:
    """Let the lane's numbers go on above one that was found in a table."""
    insert = insert_into(connection, le).values(name=f"lane-{lane}", number=least, until=0)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["name"], set_={"number": least}, where=le.c.number < insert.excluded.number
        )
    )
