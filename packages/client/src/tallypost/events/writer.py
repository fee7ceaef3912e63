"""The writer: a thread that takes events from the queue, checks them, and appends them to the session's log.

Takes   queued events, the declared ones, and what a session is begun under.
Gives   each event that fits an index, and a line in the log.
Never   delays the end of the process; never starts before the first event; never loses one uncounted.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # As `signal` has it, which takes a while to load.
import sys
from _queue import Empty, SimpleQueue
from _thread import RLock, start_new_thread

from .. import limits
from ..clock import day_of
from .declared_events import misfit, plain
from .event_queue import LATER, OFF
from .session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..seams import Clock
    from .declared_events import Table
    from .event_queue import EventQueue, Item


class EventWriter:
    """The events of one process, behind the queue."""

    def __init__(
        self,
        queue: EventQueue,
        *,
        wanted: Callable[[], bool],
        terms: Callable[[float], dict[str, str] | None],
        begin: Callable[[dict[str, str]], Session],
        table: Callable[[str], Table],
        cut: Callable[[str], object],
        lose: Callable[[int], None],
        clock: Clock,
    ) -> None:
        """`wanted` says whether the mode is another than *off*, `terms` the facts of a session at an instant (None: it
        is *off*), `begin` begins a session under them, `table` has the declared events of a declaration's key.
        """
        self._queue, self._clock = queue, clock
        self._wanted, self._terms, self._begin = wanted, terms, begin
        self._table, self._cut, self._lose = table, cut, lose
        self._session: Session | None = None
        self._decided_on = ""
        self._is_changed = self._is_stopped = self._is_stuck = self._is_writing = False
        self._waiting: list[Item] = []
        self.trouble: str | None = None
        # Protects everything here, between the thread and a process that ends. Re-entrant: a signal handler may end it.
        self._lock = RLock()
        self._stops: SimpleQueue[None] = SimpleQueue()

    def start(self) -> str | None:
        """Start the thread; or why not: in mode *off* there is none, and where the system has none events wait."""
        if not self._wanted():
            return OFF
        try:
            _start_thread(self._run)
        except RuntimeError as problem:
            self.trouble = f"no thread: {problem}"
            return LATER
        return None

    def flush(self, seconds: float, *, ends: bool = False) -> None:
        """Write what waits, in this thread, within so many seconds; what then still waits is counted as lost.

        A thread that did not let go of the disk within that time is waited for no second time.
        """
        until = self._clock.now() + seconds
        lost = 0
        if self._lock.acquire(True, 0 if self._is_stuck else seconds):
            try:
                if self._is_writing:
                    return  # A signal handler, or a destructor, in the middle of it: whoever is at it goes on.
                self._is_stuck = False
                self._write_until(until)
                lost, self._waiting = len(self._waiting), []
                if ends:
                    self._end()
            finally:
                self._lock.release()
        elif not self._is_stuck:
            # The thread is at it, and slow; whether it will come to its end nobody knows.
            self._is_stuck, lost = True, len(self._waiting)
        while items := self._queue.take():
            lost += len(items)
        if lost:
            self._lose(lost)

    def end_session(self, seconds: float = limits.exit_seconds_max) -> None:
        """Write what waits and give the session up; the next event begins another."""
        self.flush(seconds, ends=True)

    def stop(self) -> None:
        """End the thread, once what waits is written."""
        self._is_stopped = True
        self._queue.ring()
        self._stops.put(None)

    def change_session(self) -> None:
        """Have the next event decide anew: the mode has changed."""
        self._is_changed = True

    def forget_parent(self) -> None:
        """In a child after a fork: the session, the thread and what waits are the parent's."""
        self._lock, self._stops, self._waiting = RLock(), SimpleQueue(), []
        self._is_stuck = self._is_writing = False
        self.trouble = None
        self._end()

    def _run(self) -> None:
        _hear_no_signals()
        while not self._is_stopped:
            if self._waiting:  # The disk refused. Not again with each event: the processor is the host's.
                self._rest(limits.append_retry_seconds)
            elif not len(self._queue):
                self._queue.wait()
            with self._lock:
                self._write(self._queue.take(), self._clock.now() + limits.append_lock_seconds_max)

    def _rest(self, seconds: float) -> None:
        try:
            self._stops.get(True, seconds)
        except Empty:
            return

    def _write_until(self, until: float) -> None:
        # No more often than a full queue takes: the clock may be set back meanwhile.
        for _ in range(limits.events_queued_max // limits.events_per_append_max + 1):
            if not (self._waiting or len(self._queue)) or self._clock.now() >= until:
                return
            self._write(self._queue.take(), until)
            if self._waiting:
                return

    def _write(self, items: list[Item], until: float) -> None:
        """Append what waits and `items`; what could not be appended waits, as far as there is room."""
        self._waiting += items
        if not self._waiting:
            return
        self._is_writing = True
        try:
            self._append(until)
            self.trouble = None
        except Exception as problem:  # noqa: BLE001  # The host must not notice; the events wait for the next time.
            self.trouble = f"{type(problem).__name__}: {problem}"
        finally:
            self._is_writing = self._is_stuck = False
        if (lost := len(self._waiting) - limits.events_queued_max) > 0:
            del self._waiting[:lost]
            self._lose(lost)

    def _append(self, until: float) -> None:
        session = self._session_now()
        if session is None:
            self._waiting = []  # The mode is off: nothing is counted, losses included.
            return
        table = self._table(session.declaration)
        fitting = [(now, name, fields) for now, name, fields in self._waiting if misfit(table, name, fields) is None]
        if lost := len(self._waiting) - len(fitting):
            self._lose(lost)
        self._waiting = list(fitting)
        if not fitting:
            return
        events = [(now, str(name), plain(table, str(name), fields)) for now, name, fields in fitting]
        try:
            lost = session.append(events, until=until)
        except FileNotFoundError:
            # Somebody removed the log, or closed the session while this machine slept.
            self._end()
            session = self._session_now()
            lost = session.append(events, until=until) if session is not None else 0
        self._waiting = []
        if lost:
            self._lose(lost)
        if session is not None and session.is_due:
            self._cut(session.id)

    def _session_now(self) -> Session | None:
        """The session in force. Once a UTC day, and when the mode has changed, that is decided anew."""
        today = day_of(self._clock.now())
        if self._decided_on == today and not self._is_changed:
            return self._session
        self._is_changed = False
        facts = self._terms(self._clock.now())
        old = self._session
        # One that may not leave ends where the next one may: the day of a yes is over.
        goes_on = old is not None and facts is not None and old.mode == facts["mode"] and old.leaves == _on(facts)
        if not goes_on:
            self._end()
            self._session = self._begin(facts) if facts is not None else None
        self._decided_on = today
        return self._session

    def _end(self) -> None:
        session, self._session, self._decided_on = self._session, None, ""
        if session is not None:
            session.end()


def _on(facts: dict[str, str]) -> bool:
    return facts["mode"].startswith("on ")


def _hear_no_signals() -> None:
    """Leave signals to the host: one that it has blocked, so as to wait for it, would else end the process here."""
    if hasattr(_signal, "pthread_sigmask"):
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())


def _start_thread(run: Callable[[], None]) -> None:
    """Start a thread of the system's: a greenlet that waits, as gevent would make one, would stop all the others."""
    monkey = sys.modules.get("gevent.monkey")
    start = start_new_thread
    if monkey is not None and monkey.is_module_patched("_thread"):
        start = monkey.get_original("_thread", "start_new_thread")
    start(run, ())
