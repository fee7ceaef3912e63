"""The queue of events: where `Telemetry.event` puts them, and all that it does.

Takes   events, from any thread, signal handler or destructor.
Gives   nothing: putting never raises, prints or waits. Full: the event is dropped and counted.
Never   looks at an event; that is the writer's.
"""

from __future__ import annotations

from _collections import deque  # type: ignore[import-not-found]  # As `collections` has it, which takes 1 ms to load.
from _queue import SimpleQueue
from _thread import allocate_lock

from .. import limits
from ..counts.fork_mark import fork_mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Item = tuple[float, object, dict[str, object]]


# Why the writer was not started: the mode is off, or there is no thread to be had (what waits is written at the end).
OFF, LATER = "off", "later"


class EventQueue:
    """Events that wait for their writer, oldest first."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        start: Callable[[], str | None],
        drop: Callable[[], None],
        forked: Callable[[], None],
    ) -> None:
        """`start` starts the writer, or says why not; `drop` counts a loss; `forked` is told of a fork made from C."""
        self._now, self._start, self._drop, self._forked = now, start, drop, forked
        self.forget_parent()

    def put(self, name: object, fields: dict[str, object]) -> None:
        """Have an event wait."""
        try:
            now = self._now()
            if not self._ours[0]:
                self._forked()
            if not self._is_started and self._starts(now) == OFF:
                return
            # Appending never waits, as a queue with a bound of its own would: threads may go over it by one each.
            if len(self._items) >= limits.events_queued_max:
                self._drop()
                return
            self._items.append((now, name, fields))
            if not self._bell.qsize():
                self.ring()
        except Exception:  # noqa: BLE001  # The host must not notice.
            self._drop()

    def ring(self) -> None:
        """Have whoever waits look."""
        self._bell.put(None)

    def wait(self) -> None:
        """Return when something waits; it stays in the queue."""
        self._bell.get()

    def take(self) -> list[Item]:
        """What waits, as much as one append takes. Only under the writer's lock: what was taken is its to lose."""
        items: list[Item] = []
        try:
            while len(items) < limits.events_per_append_max:
                items.append(self._items.popleft())
        except IndexError:  # Not looked for before: a signal handler may take the last one meanwhile.
            return items
        return items

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that the queue is of, and not a child that was forked from C."""
        return self._ours[0]

    def __len__(self) -> int:
        return len(self._items)

    def start_anew(self) -> None:
        """Have the next event ask again whether it is wanted: the mode has changed."""
        self._asked_at = float("-inf")

    def forget_parent(self) -> None:
        """In a child after a fork: what waits is the parent's, and so is the writer."""
        self._items: deque[Item] = deque()
        # Rung when something has come: waiting for it is done outside of any lock.
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._ours = fork_mark()
        self._is_started, self._starting = False, allocate_lock()
        self._why: str | None = LATER
        self._asked_at = float("-inf")

    def _starts(self, now: float) -> str | None:
        """Start the writer; asked in vain, it is asked again after a while, or when the clock was set back."""
        is_time = not self._asked_at <= now < self._asked_at + limits.writer_retry_seconds
        if is_time and self._starting.acquire(False):  # Whoever comes meanwhile goes by the answer before.
            try:
                self._asked_at, self._why = now, self._start()
                self._is_started = self._why is None
            finally:
                self._starting.release()
        return self._why
