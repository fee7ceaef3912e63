"""The counter: what an application holds in its hand.

Takes   increments.
Gives   nothing: recording never returns, raises, prints, waits or starts anything.
Never   knows files; its cell is a view of eight bytes that the recorder hands it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


COUNT_MAX = 2**53 - 1
_ONE = 1  # An identity is asked for faster than a type.


class Counter:
    """A named number that only grows within a UTC day. Get one from `Telemetry.counter`."""

    __slots__ = ("_begin", "_buckets", "_cell", "_end", "_now", "_otherwise", "_ours", "_value", "name")

    def __init__(
        self, name: str, *, otherwise: Callable[[Counter, object, object], None], now: Callable[[], float]
    ) -> None:
        """`otherwise` counts what this counter cannot do alone: it is handed the counter, n and the bucket."""
        self.name = name
        self._otherwise, self._now = otherwise, now
        # No instant lies in [0, 0): the first increment asks the recorder for a cell.
        self._begin = self._end = 0.0
        self._cell: memoryview | None = None
        # What the cell holds: this process alone writes to it, and to remember is faster than to read it back.
        self._value = 0
        # True while this is the process that took the cell (``fork_mark.py``).
        self._ours: memoryview[bool] | None = None
        self._buckets: dict[str, Counter] = {}

    def inc(self, n: int = 1, bucket: str | None = None) -> None:
        """Count `n` more, of today; with a bucket it is counted under ``name:bucket`` and under ``name``."""
        # Where a value is added to, no call and no backward jump lies between its read and its write: under the GIL no
        # other thread can come in between. A cell that was given up after the check of the day raises instead, before
        # the value is changed.
        try:
            now = self._now
            if bucket is None:
                if (
                    (n is _ONE or (type(n) is int and n > 0)) and self._begin <= now() < self._end and self._ours[0]  # type: ignore[index]  # As the cell, it is there whenever begin < end.
                ):
                    self._cell[0] = self._value = self._value + n  # type: ignore[index]  # As above.
                    return
            elif type(n) is int and n > 0:
                part = self._buckets[bucket]  # Before the check, since a key may have code of its own.
                if self._begin <= now() < self._end and self._ours[0]:  # type: ignore[index]  # As above.
                    part._cell[0] = part._value = part._value + n  # type: ignore[index]  # Of another day it is void.
                    self._cell[0] = self._value = self._value + n  # type: ignore[index]  # As above.
                    return
        except Exception:  # noqa: BLE001, S110  # A void cell, a full number, a wrong type, a bucket that is new:
            pass  # all of them are the recorder's to sort out.
        self._otherwise(self, n, bucket)

    def add(self, n: int) -> None:
        """Add to the cell that was attached, whatever the time is."""
        try:
            self._cell[0] = self._value = self._value + n  # type: ignore[index]  # The recorder has just attached it.
        except ValueError:  # More than eight bytes hold. Readers take anything from here on for the largest count.
            self._cell[0] = self._value = COUNT_MAX  # type: ignore[index]  # As above.

    def keep(self, bucket: str, counter: Counter) -> None:
        """Know the counter of a bucket from now on."""
        self._buckets[bucket] = counter

    def attach(self, cell: memoryview, begin: float, end: float, ours: memoryview[bool]) -> None:
        """Take a cell for the instants from `begin` up to `end`, in the process in which `ours` holds true.

        It may be the cell that is attached already, which other threads add to meanwhile.
        """
        self._value = cell[0]  # As in `inc`, nothing lies between the read and the write.
        self._cell, self._ours = cell, ours
        self._begin, self._end = begin, end

    def detach(self) -> None:
        """Give the cell up; the next increment asks the recorder."""
        self._begin = self._end = 0.0
        if self._cell is not None:
            self._cell.release()

    def __repr__(self) -> str:
        return f"<Counter {self.name}>"
