"""The writer: a thread that takes events from the queue, checks them, and appends them to the session's log.

Takes   queued events, the declared ones, and what a session is begun under.
Gives   each event that fits an index, and a line in the log.
Never   delays the end of the process; never starts before the first event; never loses one uncounted.
"""

from __future__ import annotations

import sys
import _signal  # type: ignore[import-not-found]  # As `signal` has it, which takes a while to load.
from _thread import RLock, start_new_thread

from .. import limits
from ..clock import day_of
from ..errors import LogBusy
from .declared_events import fitted
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
        self._is_changed = self._is_stopped = self._is_flushing = False
        self._until = 0.0
        self._waiting: list[Item] = []
        self.trouble: str | None = None
        # Protects everything here, between the thread and a process that ends. Re-entrant: a signal handler may end it.
        self._lock = RLock()

    def start(self) -> str | None:
        """Start the thread; or why not: in mode *off* there is none, and where the system has none events wait."""
        try:
            if not self._wanted():
                return OFF
            _start_thread(self._run)
        except Exception as problem:  # noqa: BLE001  # No thread, or no descriptor to read the mode with: asked again.
            self.trouble = f"{type(problem).__name__}: {problem}"
            return LATER
        return None

    def flush(self, seconds: float) -> None:
        """Write what waits, in this thread, within so many seconds; what then still waits is counted as lost."""
        self._queue.mind_fork()
        until = self._clock.now() + seconds
        if self._lock.acquire(True, seconds):
            try:
                if self._is_flushing:
                    return  # A signal's handler calls this in the middle of it, and gives way to it.
                self._is_flushing = True
                self._write_all(until)
                lost, self._waiting = len(self._waiting), []
                if lost:
                    self._end()  # A part of them may be in the log: their indexes are spent.
            finally:
                self._is_flushing = False
                self._lock.release()
        else:
            lost = len(self._waiting)  # The thread is at it, and slow; whether it will come to its end nobody knows.
        for _ in range(len(self._queue) // limits.events_per_append_max + 1):  # Others may log without end.
            lost += len(self._queue.take())
        if lost:
            self._lose(lost)

    def finish(self) -> None:
        """Write what waits because the process ends; called again for each event that is logged even then."""
        now = self._clock.now()
        if not self._is_stopped:
            self.stop()
            self._until = now + limits.exit_seconds_max
        self.flush(min(max(self._until - now, 0.0), limits.exit_seconds_max))

    def end_session(self, seconds: float = limits.exit_seconds_max) -> None:
        """Write what waits and give the session up; the next event begins another."""
        self.flush(seconds)
        if self._lock.acquire(True, seconds):
            try:
                self._end()
            finally:
                self._lock.release()

    def stop(self) -> None:
        """End the thread, once what waits is written."""
        self._is_stopped = True
        self._queue.ring()

    def change_session(self) -> None:
        """Have the next event decide anew: the mode has changed."""
        self._is_changed = True

    def forget_parent(self) -> None:
        """In a child after a fork: the session, the thread and what waits are the parent's."""
        self._lock, self._waiting = RLock(), []
        self._is_stopped = self._is_flushing = False
        self._end()

    def _run(self) -> None:
        _hear_no_signals()
        while not self._is_stopped:
            if not self._waiting and not len(self._queue):
                self._queue.wait()
            if self._work() is not None:
                # Also when more events come: each attempt would cost the host what a whole append does.
                self._queue.pause(limits.append_retry_seconds)

    def _work(self) -> Exception | None:
        """What the thread does, once; returns what went wrong."""
        with self._lock:
            problem = self._write()
            session = self._session
            if session is not None and session.asks_for_a_cut():
                try:
                    self._cut(session.id)
                except Exception as trouble:  # noqa: BLE001  # Whoever uploads next will cut it.
                    self.trouble = f"{type(trouble).__name__}: {trouble}"
        return problem

    def _write_all(self, until: float) -> None:
        """Write until nothing waits, something is wrong, or the time is over; at least once."""
        while self._waiting or len(self._queue):
            problem = self._write()
            if self._clock.now() >= until:
                return
            if isinstance(problem, LogBusy):
                self._clock.sleep(0.002)
            elif problem is not None:
                return

    def _write(self) -> Exception | None:
        """Write as much as one append takes; or return why not: then the same events wait, with the same indexes."""
        if not self._waiting:
            self._waiting = self._queue.take()
        if not self._waiting:
            return None
        try:
            self._append()
        except Exception as problem:  # noqa: BLE001  # The host must not notice.
            self.trouble = f"{type(problem).__name__}: {problem}"
            return problem
        self.trouble = None
        return None

    def _append(self) -> None:
        session = self._session_now()
        if session is None:
            self._waiting = []  # The mode is off: nothing is counted, losses included.
            return
        table = self._table(session.declaration)
        fitting = [event for item in self._waiting if (event := fitted(table, *item)) is not None]
        if lost := len(self._waiting) - len(fitting):
            self._lose(lost)
        self._waiting = list(fitting)
        if not fitting:
            return
        try:
            lost = session.append(fitting)
        except FileNotFoundError:
            # Somebody removed the log, or closed the session while this machine slept.
            self._end()
            session = self._session_now()
            lost = session.append(fitting) if session is not None else 0
        self._waiting = []
        if lost:
            self._lose(lost)

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
    """Leave signals to the host's threads: one that the host blocks, to wait for it, would else end the process here."""
    if hasattr(_signal, "pthread_sigmask"):
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())


def _start_thread(run: Callable[[], None]) -> None:
    """Start a thread of the system's: a greenlet that waits, as gevent would make one, would stop all the others."""
    monkey = sys.modules.get("gevent.monkey")
    start = start_new_thread
    if monkey is not None and monkey.is_module_patched("_thread"):
        start = monkey.get_original("_thread", "start_new_thread")
    start(run, ())
