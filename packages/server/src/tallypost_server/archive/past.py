"""What the archive tells of the past, for a coordinator that is made anew.

Takes   the tables.
Gives   the sessions and reports of the horizon, as the coordinator keeps them; tables without half a task.
Never   reads what is older than the horizon.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from ..clock import micros, moment_at
from ..streams.coordinator import Mark, Restored
from ..streams.session import Session
from .rows import ranges_in
from .tables import Stored, Tables


def past_of(tables: Tables, numbers: dict[int, int], since: int) -> Restored:
    """All of which something came since then (microseconds since 1970)."""
    return Restored(numbers, _sessions(tables, since), _reports(tables, since))


def take_back(tables: Tables, lane: int, renew: Callable[[], None]) -> list[Stored]:
    """Remove the events of a task that has not written its index: who knew what it held is no more; what that was.

    Its segments are all there, since it was not done. Left where they are, its rows would be written once more.
    """
    wrote, done = tables.mark("events", lane), tables.mark("sessions", lane)
    if wrote is None or (done is not None and done.number >= wrote.number):
        return []
    files = [file for file in tables.files("events") if _is_of(file, wrote)]
    for file in files:
        tables.replace("events", [file], renew=renew, owner=f"lane-{lane}")
    return files


def _is_of(file: Stored, mark: Mark) -> bool:
    """Whether the task of this mark has written a file: its name is the task's id."""
    task = PurePosixPath(file.path).stem
    return re.fullmatch("[0-9a-f]{32}", task) is not None and Mark.of(mark.number, task) == mark


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
