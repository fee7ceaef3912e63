"""The recorder: gives each counter a cell of the count file in force, and changes the file at midnight.

Takes   what a counter could not do alone: its first increment of a day, a bucket, a wrong value.
Gives   cells, each for the instants of one UTC day.
Never   raises, prints, or lets a count of one day into the file of another.
"""

from __future__ import annotations

import sys
from _thread import RLock

from tallypost_schema import names

from .. import limits, losses
from ..clock import day_bounds
from .counter import COUNT_MAX, Counter
from .fork_mark import fork_mark, plain_mark
from .memory_cells import MemoryCells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..seams import Clock
    from .count_file import CountFile, WrittenFile

    Cells = CountFile | WrittenFile | MemoryCells


class Recorder:
    """All counters of one process, and the file that they count in."""

    def __init__(self, *, take: Callable[[float], Cells], clock: Clock, gil: bool | None = None) -> None:
        """`take` opens the count file for an instant; any error of it means counting in memory for a while.

        `gil` says whether this interpreter has a global lock; as it is, if not given.
        """
        self._take, self._clock = take, clock
        self._counters: dict[str, Counter] = {}
        self._attached: dict[str, Counter] = {}
        self._cells: Cells = MemoryCells()
        self._begin = self._end = 0.0
        self._ours, self._has_mark = plain_mark(), False
        self._waiting: list[tuple[Counter, int]] = []
        # Protects everything here. Re-entrant, because a signal handler or a destructor may count in the middle of it.
        self._lock = RLock()
        self._busy = False
        # Without a GIL an increment is no single step: no counter keeps a cell, and each takes the lock.
        self._hands_out_cells = getattr(sys, "_is_gil_enabled", lambda: True)() if gil is None else gil
        self.memory_reason: str | None = None
        self._has_said = False

    def counter(self, name: str) -> Counter:
        """The one counter of that name in this process."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters.setdefault(name, Counter(name, otherwise=self.count, now=self._clock.now))
        return counter

    def count(self, counter: Counter, n: object, bucket: object) -> None:
        """Count what the counter's own fast path did not: never raises."""
        try:
            if not self._ours[0]:
                self.forget_parent()  # Forked from C: no hook told us.
            n = _whole(n)
            if n is None or n < 0:
                self.lose(losses.DROPPED_VALUES)
            elif n > 0:
                if bucket is not None:
                    self._count_bucket(counter, n, bucket)
                self._queue(counter, n)
            if self.memory_reason is not None and not self._has_said:
                self._say(self.memory_reason)
        except Exception as problem:  # noqa: BLE001  # The host must not notice; the reason is kept for `status`.
            self.memory_reason = f"{type(problem).__name__}: {problem}"

    def lose(self, reason: str, n: int = 1) -> None:
        """Count losses under their own counter."""
        self._queue(self.counter(reason), n)

    def change_file(self) -> None:
        """Have the next increment of every counter open a file anew: the mode has changed."""
        with self._lock:
            self._detach_all()
            self._begin = self._end = 0.0

    def forget_parent(self) -> None:
        """In a child after a fork: leave the file to the parent, and take one of our own when something is counted."""
        self._lock, self._busy, self._waiting = RLock(), False, []
        self._ours[0] = True
        self._detach_all()
        self._begin = self._end = 0.0
        cells, self._cells = self._cells, MemoryCells()
        cells.close()

    def close(self) -> None:
        """Give the file up, so that another process may take it. Counting goes on when something is counted."""
        with self._lock:
            self.change_file()
            cells, self._cells = self._cells, MemoryCells()
            cells.close()

    def between_files(self, change: Callable[[], object]) -> None:
        """Give the file up, and call `change` before another one is taken: what `testing.capture` needs."""
        with self._lock:
            self.close()
            change()

    def _say(self, reason: str) -> None:
        """Tell the host's log once, at DEBUG. Outside of the lock: a handler may count, in whichever thread."""
        self._has_said = True
        logging = sys.modules.get("logging")  # Nobody listens where it is not loaded, and loading it would be felt.
        if logging is not None:
            logging.getLogger("tallypost").debug("counting in memory: %s", reason)

    def _count_bucket(self, plain: Counter, n: int, bucket: object) -> None:
        full = f"{plain.name}:{bucket}"
        if full not in self._counters:
            if not (isinstance(bucket, str) and names.is_counter(full)):
                self.lose(losses.DROPPED_BUCKETS)
                return
            if len(self._counters) >= limits.names_per_file_max:
                self.lose(losses.DROPPED_NAMES)
                return
        counter = self.counter(full)
        if self._hands_out_cells and isinstance(bucket, str):
            plain.keep(bucket, counter)
        counter.inc(n)

    def _queue(self, counter: Counter, n: int) -> None:
        """Add under the lock; what a signal handler counts meanwhile, in the same thread, is added after it."""
        self._waiting.append((counter, n))
        while True:
            with self._lock:
                if self._busy:
                    return
                self._busy = True
                try:
                    while self._waiting:
                        self._add(*self._waiting.pop())
                finally:
                    self._busy = False
            if not self._waiting:
                return

    def _add(self, counter: Counter, n: int) -> None:
        now = self._clock.now()
        if not self._begin <= now < self._end or not self._cells.is_there():
            self._open(now)
        cell = self._cell(counter.name)
        if cell is None:
            counter, n = self.counter(losses.DROPPED_NAMES), 1
            cell = self._cell(counter.name)
            if cell is None:
                return  # Opening a file makes this cell, so it is there unless that failed, and then it is memory.
        if self._hands_out_cells and self._cells.hands_out:
            counter.attach(cell, self._begin, self._end, self._ours)
            self._attached[counter.name] = counter
            counter.add(n)
        else:
            _add_to(cell, n)
        self._cells.added(counter.name)

    def _cell(self, name: str) -> memoryview | None:
        try:
            return self._cells.cell(name)
        except OSError as problem:
            self.memory_reason = f"the count file could not grow: {problem}"
            return None

    def _open(self, now: float) -> None:
        self._detach_all()
        old, old_begin, old_end = self._cells, self._begin, self._end
        begin, end = day_bounds(now)
        if not self._has_mark:
            self._ours, self._has_mark = fork_mark(), True
        try:
            self._cells = self._take(now)
            self.memory_reason = None
        except Exception as problem:  # noqa: BLE001  # Whatever the disk or the lookup of it says: memory will do.
            self._cells, end = MemoryCells(), min(end, now + limits.memory_seconds_max)
            self.memory_reason = f"{type(problem).__name__}: {problem}"
        self._begin, self._end = begin, end
        if type(old) is MemoryCells and begin <= old_begin < old_end <= day_bounds(now)[1]:
            self._carry_over(old)
        old.close()

    def _carry_over(self, old: MemoryCells) -> None:
        """What was counted in memory on this very day goes into the file that could be opened at last."""
        for name, cell in old.cells.items():
            self._carry(name, cell[0])

    def _carry(self, name: str, n: int) -> None:
        # By itself, so that no view of one cell is left when the next one makes its file's content grow.
        target = self._cell(name)
        if target is not None:
            _add_to(target, n)
            self._cells.added(name)

    def _detach_all(self) -> None:
        attached, self._attached = self._attached, {}
        for counter in attached.values():
            counter.detach()


def _whole(n: object) -> int | None:
    """A whole number of whichever type, or None."""
    if isinstance(n, int):
        return int(n)
    index = getattr(type(n), "__index__", None)  # Such as numpy's.
    return None if index is None else int(index(n))


def _add_to(cell: memoryview, n: int) -> None:
    """Add to a cell that no counter holds."""
    try:
        cell[0] += n
    except ValueError:  # As in `Counter.add`.
        cell[0] = COUNT_MAX
