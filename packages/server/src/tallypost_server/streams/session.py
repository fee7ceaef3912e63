"""A session as the server puts it together from its batches: what is there, what is archived, what is due.

Takes   batches in any order, repeated, overlapping, contradicting.
Gives   the session after each; what a task archives of it; the session after that.
Never   reads a database or a clock: every rule about sessions stands here, and every time is handed in.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from .. import limits
from .ranges import Range, Ranges, difference, first_of, highest, holds, ranges, union

State: TypeAlias = Literal["open", "complete", "sparse"]


class Batch(NamedTuple):
    """A stored batch, without its events. `received` is in microseconds since 1970."""

    received: int
    first: int
    last: int
    lost: int
    terminal: int | None

    @property
    def content(self) -> Ranges:
        """The indexes of its events."""
        return ranges([(self.first + self.lost, self.last)])

    @property
    def lost_range(self) -> Ranges:
        """The indexes that it tells to be lost."""
        return ranges([(self.first, self.first + self.lost - 1)])


class Session(Struct, frozen=True, array_like=True):
    """What is known of a session. Times are microseconds since 1970. Kept without its keys: there are many."""

    app: str
    stream: str
    first_seen: int
    last_entry: int
    terminal: int | None = None
    terminal_received: int | None = None
    content: Ranges = ()
    """Every index of which an event is known, archived or not."""
    lost: Ranges = ()
    """Every index told to be lost; content may have come for some of them."""
    archived: Ranges = ()
    """Those of `content` that lie in the archive."""
    told_lost: Ranges = ()
    """What the archive tells to be lost."""
    told_terminal: int | None = None
    """The terminal index that the archive knows of, reached or not."""
    part: int = 0
    """How many tasks have written of it."""
    state: State = "open"
    """What the archive has of it: nothing yet, all of it, or a part."""
    contradictions: int = 0
    duplicates: int = 0

    @property
    def complete(self) -> bool:
        """Whether every index from 0 to the terminal one is there, or known to be lost."""
        return self.terminal is not None and not _gaps(self.terminal, union(self.content, self.lost))


class Part(Struct, frozen=True, array_like=True):
    """What one task archives of a session; it does not change while the task is under way."""

    number: int
    first_seen: int
    last_entry: int
    content: Ranges
    """What is written."""
    total: Ranges
    """What the archive has with it."""
    lost: Ranges
    gaps: Ranges
    terminal: int | None
    """None also where the terminal index was not reached."""
    told_terminal: int | None
    """The terminal index that a batch has told, reached or not."""
    complete: bool

    @property
    def state(self) -> State:
        """What the archive has of the session with this part."""
        return "complete" if self.complete else "sparse"


class Added(NamedTuple):
    """A session after one more batch, and whether that brought anything."""

    session: Session
    is_new: bool


def begun(app: str, stream: str, batch: Batch) -> Session:
    """A session of which this batch is the first that was seen; it is still to be added."""
    return Session(app, stream, batch.received, batch.received)


def add(session: Session, batch: Batch) -> Added:
    """The session with one more batch.

    Of an index that comes twice the batch received first wins unless the other is archived. So a batch is no
    duplicate while an index of it, received earlier than something else, is not archived: the task decides then.
    """
    has = session.content if batch.received >= session.last_entry else session.archived
    content, lost = batch.content, batch.lost_range
    terminal, terminal_received, contradicts = _terminal(session, batch)
    is_new = bool(
        difference(content, has)
        or difference(lost, union(session.lost, session.content))
        or terminal != session.terminal
    )
    known = union(session.content, content)
    if terminal is not None and highest(content) > terminal:
        contradicts = True
    return Added(
        msgspec.structs.replace(
            session,
            first_seen=min(session.first_seen, batch.received),
            last_entry=max(session.last_entry, batch.received),
            terminal=terminal,
            terminal_received=terminal_received,
            content=known,
            lost=union(session.lost, lost),
            contradictions=session.contradictions + contradicts,
            duplicates=session.duplicates + (not is_new),
        ),
        is_new,
    )


def part_of(session: Session, waiting: Ranges, *, rows_max: int = limits.task_rows_max) -> Part:
    """What a task archives now, of a session of which the events `waiting` wait: the first so many, the rest later.

    Source: ARCHITECTURE, "Streams": what is there is archived, gaps are recorded, an unreached terminal is dropped.
    """
    content = first_of(difference(waiting, session.archived), rows_max)
    total = union(session.archived, content)
    lost = difference(session.lost, total)
    there = union(total, lost)
    terminal = session.terminal if session.terminal is not None and holds(there, session.terminal) else None
    end = max(highest(there), -1 if terminal is None else terminal)
    gaps = _gaps(end, there)
    return Part(
        session.part + 1,
        session.first_seen,
        session.last_entry,
        content,
        total,
        lost,
        gaps,
        terminal,
        session.terminal,
        terminal is not None and not gaps,
    )


def with_part(session: Session, part: Part) -> Session:
    """The session once `part` of it is archived."""
    return msgspec.structs.replace(
        session,
        archived=union(session.archived, part.content),
        content=union(session.content, part.content),
        told_lost=part.lost,
        told_terminal=part.told_terminal,
        part=part.number,
        state=part.state,
    )


def without(session: Session, left: list[Batch]) -> Session:
    """The session when of what waits only `left` is still there: the rest is as if it had never come."""
    known = msgspec.structs.replace(
        session,
        content=session.archived,
        lost=session.told_lost,
        terminal=session.told_terminal,
        terminal_received=None if session.told_terminal is None else session.terminal_received,
    )
    for batch in sorted(left, key=lambda batch: batch.received):
        known = add(known, batch).session
    return msgspec.structs.replace(known, contradictions=session.contradictions, duplicates=session.duplicates)


def is_settled(session: Session, batch: Batch) -> bool:
    """Whether the archive tells all that this batch told: then its line is needed no more."""
    return (
        not difference(batch.content, session.archived)
        and not difference(batch.lost_range, union(session.told_lost, session.archived))
        and (batch.terminal != session.terminal or batch.terminal == session.told_terminal)
    )


def is_begun(session: Session, part: Part, batch: Batch) -> bool:
    """Whether nothing of this batch waits, or a part takes up the first of it; else it is all for a later part."""
    waiting = difference(batch.content, session.archived)
    return not waiting or waiting[0][0] <= highest(part.content)


def shares(batches: list[Batch], content: Ranges) -> list[Ranges]:
    """Which indexes of `content` come from which batch: of each the first received; of equal ones, the first here."""
    found: list[Ranges] = [()] * len(batches)
    rest = content
    for place in sorted(range(len(batches)), key=lambda place: batches[place].received):
        left = difference(rest, batches[place].content)
        found[place] = difference(rest, left)
        rest = left
    return found


def _terminal(session: Session, batch: Batch) -> tuple[int | None, int | None, bool]:
    """The terminal index, when it was received, and whether the batch contradicts. The first received wins."""
    if batch.terminal is None:
        return session.terminal, session.terminal_received, False
    if session.terminal is None or session.terminal_received is None:
        # Earlier content beyond it stays, and is counted.
        return batch.terminal, batch.received, highest(session.content) > batch.terminal
    if batch.terminal == session.terminal:
        return session.terminal, min(session.terminal_received, batch.received), False
    if batch.received < session.terminal_received and session.state != "complete":
        return batch.terminal, batch.received, True
    return session.terminal, session.terminal_received, True


def _gaps(end: int, there: Ranges) -> Ranges:
    whole: tuple[Range, ...] = ((0, end),) if end >= 0 else ()
    return difference(whole, there)
