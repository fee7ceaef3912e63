"""What is told of one stream, wherever it lies: the entries that ``show`` prints.

Takes   the archive's rows first, then stored lines in the order in which they were received.
Gives   a report, or events, gaps and lost ranges in index order, each index once.
Never   reads a file. What was taken first wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .format import Line


class Told:
    """A stream, as it is put together."""

    def __init__(self) -> None:
        self._report: Any = None
        self._content: dict[int, dict[str, Any]] = {}
        self._lost: list[tuple[int, int]] = []  # From and up to.
        self._ends = [-1]  # The highest of them is the highest index known to have been.
        self._terminal: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was told."""
        return self._report is None and self._ends == [-1]

    def add_line(self, line: Line) -> None:
        """A stored document."""
        if line.kind == "report":
            self.add_report(line.doc)
            return
        assert line.first is not None
        assert line.last is not None
        assert line.lost is not None
        begin = line.first + line.lost
        for place, event in enumerate(msgspec.json.decode(line.doc)["events"]):
            self.add_event(begin + place, event)
        self.add_range(line.first, line.last, lost=line.lost, terminal=line.terminal)

    def add_report(self, doc: Any) -> None:
        """A report."""
        if self._report is None:
            self._report = doc

    def add_event(self, index: int, event: dict[str, Any]) -> None:
        """An event; one without a name keeps its place and says nothing."""
        self._content.setdefault(index, event)
        self._ends.append(index)

    def add_range(self, first: int, last: int, *, lost: int, terminal: int | None) -> None:
        """Indexes that are known to have been, of which the first so many are lost, and the session's last one."""
        if lost:
            self._lost.append((first, first + lost))
        self._ends.append(last)
        self._terminal = terminal if self._terminal is None else self._terminal

    def entries(self) -> list[dict[str, Any]]:
        """A report's document, or events, gaps and lost ranges in index order."""
        if self._report is not None:
            return [{"index": 0, "doc": self._report}]
        entries: list[dict[str, Any]] = []
        position = 0
        end = max(*self._ends, -1 if self._terminal is None else self._terminal)
        for index in [*sorted(self._content), end + 1]:
            # Content that came for a lost index is kept: only what lies between content is looked up among the lost.
            entries += _hole(position, index, self._lost)
            if self._content.get(index):
                entries.append({"index": index, **self._content[index]})
            position = index + 1
        return entries


def _hole(begin: int, end: int, lost: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """What to say of the indexes from `begin` up to `end`, which have no content."""
    for low, high in sorted(lost):
        low, high = max(low, begin), min(high, end)
        if low >= high:
            continue
        if low > begin:
            yield {"gap": [begin, low - 1]}
        yield {"lost": [low, high - 1]}
        begin = high
    if begin < end:
        yield {"gap": [begin, end - 1]}
