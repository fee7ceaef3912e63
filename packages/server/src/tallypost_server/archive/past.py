"""What the archive tells of the past, for a coordinator that is made anew.

Takes   the tables.
Gives   the sessions and reports of the horizon, as the coordinator keeps them; tables without half a task.
Never   reads what is older than the horizon.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from ..clock import micros, moment_at
from ..streams.coordinator import Restored
from ..streams.ranges import Ranges, holds, union
from ..streams.session import Session
from ..streams.task import Mark
from .columns import EVENTS, PARTITION
from .rows import ranges_in
from .tables import Tables


def past_of(tables: Tables, numbers: dict[int, int], since: int) -> Restored:
    """All of which something came since then (microseconds since 1970)."""
    return Restored(numbers, _sessions(tables, since), _reports(tables, since))


def half_done(tables: Tables, lanes: Iterable[int]) -> dict[int, Mark]:
    """The marks of those lanes' last tasks that have written events and not yet their index."""
    wrote, ended = tables.marks("events", lanes), tables.marks("sessions", lanes)
    return {lane: mark for lane, mark in wrote.items() if lane not in ended or ended[lane].number < mark.number}


def take_back(tables: Tables, lanes: Iterable[int], renew: Callable[[], None]) -> int:
    """Remove the events of tasks that have not written their index; how many rows that were.

    Who knew what such a task held is no more. Its segments are all there, since it was not done: left where they are,
    its rows would be written once more.
    """
    if not half_done(tables, lanes):
        return 0
    told: dict[tuple[str, str], Ranges] = {}
    done: set[str] = set()
    for file in tables.files("sessions"):
        for row in tables.read("sessions", file.path, ["app", "session", "written", "files"]).to_pylist():
            key = (row["app"], row["session"])
            told[key] = union(told.get(key, ()), ranges_in(row["written"]))
            done.update(row["files"])
    gone = 0
    # A file that is not named there is one of these, or was rewritten since: its rows tell.
    for file in [file for file in tables.files("events") if file.path not in done]:
        rows = tables.read("events", file.path)
        keys = zip(*(rows.column(name).to_pylist() for name in EVENTS.key), strict=True)
        kept = rows.filter(pa.array([holds(told.get((app, session), ()), index) for app, session, index in keys]))
        if kept.num_rows < rows.num_rows:
            gone += rows.num_rows - kept.num_rows
            stem = hashlib.sha256(file.path.encode()).hexdigest()[:32]  # Done again after a crash, it is the same.
            target = f"{PARTITION}={file.day}/{stem}.parquet"
            tables.replace("events", [file], kept, target, renew=renew, owner="take-back")
    return gone


def _sessions(tables: Tables, since: int) -> Iterator[Session]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for file in tables.files("sessions"):
        for row in tables.read("sessions", file.path).to_pylist():
            key = (row["app"], row["session"])
            if key not in rows or rows[key]["part"] < row["part"]:
                rows[key] = row
    for row in rows.values():
        last_entry = micros(row["last_entry"])
        if last_entry < since:
            continue
        content, lost = ranges_in(row["content"]), ranges_in(row["lost"])
        told = row["told_terminal"]
        yield Session(
            row["app"],
            row["session"],
            micros(row["first_seen"]),
            last_entry,
            terminal=told,
            # What the archive tells stays, whatever else comes again of the time before.
            terminal_received=None if told is None else micros(row["first_seen"]),
            content=content,
            lost=lost,
            archived=content,
            told_lost=lost,
            told_terminal=told,
            part=row["part"],
            state=row["state"],
        )


def _reports(tables: Tables, since: int) -> Iterator[tuple[str, str, int]]:
    # A report is taken until its day is older than the horizon, so older partitions have none that could come again.
    first = moment_at(since).date() - datetime.timedelta(days=1)
    for file in tables.files("reports"):
        if file.day < first:
            continue
        rows = tables.read("reports", file.path, ["app", "id", "received"])
        for row in rows.to_pylist():
            yield row["app"], row["id"], micros(row["received"])
