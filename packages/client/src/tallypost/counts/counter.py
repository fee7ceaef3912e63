"""The counter: what an application holds in its hand.

Takes   increments.
Gives   nothing: recording never returns, raises, prints, waits or starts anything.
Never   knows files; its cell is a view of eight bytes that the recorder hands it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .recorder import Recorder


class Counter:
    """A named number that only grows within a UTC day. Get one from `Telemetry.counter`."""

    __slots__ = ("_begin", "_cell", "_end", "_now", "_recorder", "name")

    def __init__(self, name: str, *, recorder: Recorder, now: Callable[[], float]) -> None:
        self.name = name
        self._recorder, self._now = recorder, now
        # No instant lies in [0, 0): the first increment asks the recorder for a cell.
        self._begin = self._end = 0.0
        self._cell: memoryview | None = None

    def inc(self, n: int = 1, bucket: str | None = None) -> None:
        """Count `n` more, of today; with a bucket it is counted under ``name:bucket`` and under ``name``."""
        try:
            if bucket is None and n > 0 and self._begin <= self._now() < self._end:
                # One bytecode sequence without a call: under the GIL no other thread can come between the read
                # and the write of the cell, and a cell that was given up meanwhile raises instead of taking it.
                self._cell[0] += n  # type: ignore[index]  # A cell is there whenever begin < end.
                return
        except Exception:  # noqa: BLE001  # A void cell, a full number, a wrong type: all are the recorder's to sort out.
            bucket = bucket or None
        self._recorder.count(self, n, bucket)

    def attach(self, cell: memoryview, begin: float, end: float) -> None:
        """Take a cell for the instants from `begin` up to `end`."""
        self._cell = cell
        self._begin, self._end = begin, end

    def detach(self) -> None:
        """Give the cell up; the next increment asks the recorder."""
        self._begin = self._end = 0.0
        if self._cell is not None:
            self._cell.release()

    def __repr__(self) -> str:
        return f"<Counter {self.name}>"
