"""The session: one process's run of events, from its first one on, in a log that this process alone appends to.

Takes   what it is begun under, and lines.
Gives   a log that outlives the process, and a lock that does not: by it others know whether the session is over.
Never   numbers an event that is not in the log; never cuts (``catch_up.py``).
"""

from __future__ import annotations

from .. import limits
from ..clock import day_of, spelled
from ..consent import parse_mode_line
from ..errors import LogBusy
from .session_log import event_line, header_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..seams import Clock, Disk, Lock
    from ..state_directory import StateDirectory
    from .declared_events import Value

    Event = tuple[float, str, dict[str, Value]]


class Session:
    """A session that has begun. Not for several threads at once: the writer holds its lock."""

    def __init__(
        self,
        directory: StateDirectory,
        facts: dict[str, str],
        *,
        disk: Disk,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Begin one; `facts` are its header's, from the mode line on.

        Raises:
            OSError: the disk refused.
        """
        self.id = random_bytes(16).hex()
        self.mode, self.declaration = facts["mode"], facts["declaration"]
        self._directory, self._disk, self._clock = directory, disk, clock
        now = clock.now()
        self.leaves = _leaves(self.mode, now)
        self._log, self._next, self._size = directory.session_log(self.id), 0, 0
        self._is_trusted = disk.is_trusted(directory.events)
        # Locked before there is a log: nobody ever takes a session for over that has just begun.
        self._life: Lock | None = disk.try_lock(directory.session_lock(self.id)) if self._is_trusted else None
        try:
            header = header_line(0, {"session": self.id, "begin": spelled(now), **facts})
            disk.replace(self._log, header, durable=False)
        except OSError:
            self.end()
            disk.remove(directory.session_lock(self.id))
            raise

    def append(self, events: list[Event], *, until: float) -> int:
        """Append events, in their order; returns how many found no room, which have no index.

        Raises:
            LogBusy: others held the log's lock until that instant.
            FileNotFoundError: the log is gone: the session is over.
            OSError: the disk refused. None of these events has an index, though a part of them may be in the log.
        """
        lines = b"".join(event_line(self._next + n, name, now, fields) for n, (now, name, fields) in enumerate(events))
        if self._size + len(lines) > limits.log_bytes_max:
            return len(events)
        lock = self._lock(until)
        try:
            self._size = self._disk.append(self._log, lines)
        finally:
            if lock is not None:
                lock.release()
        self._next += len(events)
        return 0

    @property
    def is_due(self) -> bool:
        """Whether the log has the size of a document, and may leave."""
        return self.leaves and self._size >= limits.log_bytes_cut

    def end(self) -> None:
        """Give the session up: whoever uploads next closes it. After a fork the parent keeps it when its child ends."""
        if self._life is not None:
            self._life.release()
            self._life = None

    def _lock(self, until: float) -> Lock | None:
        if not self._is_trusted:
            return None  # Nobody cuts a living session there.
        pause = 0.002
        # Counted, since the clock may be set back meanwhile.
        for _ in range(1 + int(max(0.0, until - self._clock.now()) / pause)):
            lock = self._disk.try_lock(self._directory.append_lock(self.id))
            if lock is not None:
                return lock
            self._clock.sleep(pause)
        raise LogBusy(self._log)


def _leaves(mode: str, now: float) -> bool:
    """Whether a session that begins now may ever leave: only what begins on a UTC day after that of the yes may."""
    line = parse_mode_line(mode)
    return line is not None and line.mode == "on" and day_of(now) > line.day
