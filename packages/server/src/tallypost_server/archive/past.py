"""What the archive tells of the past, for a coordinator that is made anew.

Takes   the tables.
Gives   the sessions and reports of the horizon, as the coordinator keeps them.
Never   reads what is older than the horizon.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ..clock import DAY, micros, moment_at
from ..streams.coordinator import Mark, Restored
from ..streams.ranges import ranges
from ..streams.session import Session, part_of
from .rows import by_partition, ranges_in, session_rows
from .tables import Tables


def tell_index(tables: Tables, lane: int, mark: Mark, renew: Callable[[], None]) -> None:
    """See that the index tells what the task of this mark has written to `events`, when nobody else knows of it.

    A task writes its events first. Where it died in between and the coordinator was lost after that, its rows would be
    archived again.
    """
    rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
    seen: dict[tuple[str, str], tuple[int, int]] = {}
    files: dict[datetime.date, str] = {}
    for file in tables.files("events"):
        task = file.path.rpartition("/")[2].removesuffix(".parquet")
        if Mark.of(mark.number, task) != mark:
            continue
        files[file.day] = file.path
        day = micros(datetime.datetime.combine(file.day, datetime.time(), datetime.timezone.utc))
        for row in tables.read("events", file.path, ["app", "session", "index", "received"]).to_pylist():
            key = (row["app"], row["session"])
            rows.setdefault(key, []).append((row["index"], row["index"]))
            received = micros(row["received"])
            first, last = seen.get(key, (received, received))
            # The partition is that of the day on which the session was first seen.
            seen[key] = (max(day, min(first, received)) if received < day + DAY else day, max(last, received))
    known = {(session.app, session.stream): session for session in _sessions(tables, 0)}
    parts = {}
    for key, indexes in rows.items():
        session = known.get(key) or Session(*key, *seen[key])
        session = msgspec.structs.replace(
            session, first_seen=seen[key][0], last_entry=max(session.last_entry, seen[key][1])
        )
        parts[key] = part_of(session, ranges(indexes))
    if parts:
        task = next(iter(files.values())).rpartition("/")[2].removesuffix(".parquet")
        index = session_rows(lane, mark.number, parts, files)
        tables.write("sessions", lane, mark, task, by_partition(index), renew)


def past_of(tables: Tables, numbers: dict[int, int], since: int) -> Restored:
    """All of which something came since then (microseconds since 1970)."""
    return Restored(numbers, _sessions(tables, since), _reports(tables, since))


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
            terminal_received=None if told is None else last_entry,
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
