"""What waits and what is archived together: entries, tasks, their marks, and a task's input.

Takes   nothing.
Gives   `Entry`, `Task`, `Mark`, `Plan`.
Never   a rule about when something is due (``session.py``, ``coordinator.py``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

from .. import limits
from .session import Batch, Part

Kind: TypeAlias = Literal["report", "events"]


class Entry(NamedTuple):
    """A stored document, as the coordinator knows it; `line` is its place in its segment, from 0."""

    kind: Kind
    app: str
    stream: str
    received: int
    line: int
    bytes: int
    first: int | None = None
    last: int | None = None
    lost: int | None = None
    terminal: int | None = None

    @property
    def batch(self) -> Batch:
        """What a batch tells of its session."""
        assert self.first is not None
        assert self.last is not None
        assert self.lost is not None
        return Batch(self.received, self.first, self.last, self.lost, self.terminal)


class Task(Struct, frozen=True):
    """What is archived together. `number` is the lane's; `mark` goes into the tables with the rows.

    So often was it begun by one who was not heard of again: `deaths`.
    """

    id: str
    kind: Kind
    lane: int
    number: int
    rows: int
    failures: int
    deaths: int = 0

    @property
    def mark(self) -> Mark:
        """What the tables keep of it."""
        return Mark.of(self.number, self.id)


class Mark(int):
    """A task's number and a part of its id in one whole number: the version that a table keeps of a lane.

    An equal number with another id is so seen to be another task's. The lowest bit tells that the number was spent:
    no task will ever write with it.
    """

    @classmethod
    def of(cls, number: int, task: str) -> Mark:
        """The mark of the task with this number and id."""
        tag = int(task[:8], 16) >> (32 - limits.mark_bits)
        return cls(number << limits.mark_bits | tag & ~1)

    @property
    def number(self) -> int:
        """The task's number."""
        return self >> limits.mark_bits

    @property
    def spent(self) -> Mark:
        """The mark of the number once it was spent."""
        return Mark(self | 1)


class Wanted(NamedTuple):
    """Of a line in a segment what the task archives: of a report all, of a batch these indexes."""

    stream: tuple[str, str]
    indexes: tuple[tuple[int, int], ...] | None


class Plan(NamedTuple):
    """A task's input: which lines of which segments, and for each session what its index tells."""

    lines: dict[str, dict[int, Wanted]]
    parts: dict[tuple[str, str], Part]
