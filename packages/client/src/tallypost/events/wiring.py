"""The part of the wiring that events need, loaded with a process's first event: others shall not pay for it.

Takes   what ``telemetry.py`` knows: where, under what terms, with which clock and disk.
Gives   a queue, its writer, and their end with the process.
Never   decides anything.
"""

from __future__ import annotations

import atexit
import os
import sys

from .. import limits
from ..errors import WrongUse
from .declared_events import misfit, parsed, spelled, table_of
from .event_queue import EventQueue
from .session import Session
from .writer import EventWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..seams import Clock, Disk
    from ..state_directory import StateDirectory
    from .declared_events import Table


class ProcessEvents:
    """The events of one process."""

    def __init__(
        self,
        directory: StateDirectory,
        *,
        wanted: Callable[[], bool],
        terms: Callable[[float], dict[str, str] | None],
        declaration: Callable[[], bytes | None],
        cut: Callable[[str], object],
        lose: Callable[[int], None],
        checks: bool,
        clock: Clock,
        disk: Disk,
    ) -> None:
        """`checks`: an event that does not fit raises where it is logged; for test runners."""
        self.checks = checks
        self._directory, self._declaration, self._disk = directory, declaration, disk
        self._tables: dict[str, Table] = {}
        self.queue = EventQueue(now=clock.now, start=self._start, drop=lambda: lose(1), forked=self.forget_parent)
        self.writer = EventWriter(
            self.queue,
            wanted=wanted,
            terms=terms,
            begin=lambda facts: Session(directory, facts, disk=disk, clock=clock, random_bytes=os.urandom),
            table=self._table,
            cut=cut,
            lose=lose,
            clock=clock,
        )
        self.put = self.queue.put

    def end_with_the_process(self) -> None:
        """Have what waits written when the process ends."""
        atexit.register(self._finish)

    def stop(self) -> None:
        """Write what waits, give the session up, and end the thread: for whoever makes many of these in one process."""
        self._finish()
        self.writer.stop()
        atexit.unregister(self._finish)

    def check(self, event: object, fields: dict[str, object]) -> None:
        """Raise for what does not fit.

        Raises:
            WrongUse: an event or a field is not declared so.
        """
        wrong = misfit(self._declared(), event, fields)
        if wrong is not None:
            raise WrongUse(*wrong)

    def change_session(self) -> None:
        """Have the next event decide anew: the mode has changed."""
        self.writer.change_session()
        self.queue.start_anew()

    def forget_parent(self) -> None:
        """In a child after a fork: nothing of the parent's is ours."""
        self.queue.forget_parent()
        self.writer.forget_parent()
        self.put = self.queue.put

    def _start(self) -> str | None:
        # What multiprocessing starts ends without `atexit`, and forgets at its begin what it was to do at its end.
        processes = sys.modules.get("multiprocessing.util")
        if processes is not None:
            processes.Finalize(None, self._finish, exitpriority=0)
        return self.writer.start()

    def _finish(self) -> None:
        if not self.queue.is_ours:
            self.forget_parent()  # A child forked from C, which has logged nothing: what waits is its parent's.
        self.put = self._put_at_the_end
        self.writer.end_session(limits.exit_seconds_max)

    def _put_at_the_end(self, name: object, fields: dict[str, object]) -> None:
        """Write an event where it is logged: the thread may end before it comes to it."""
        self.queue.put(name, fields)
        self.writer.flush(limits.exit_seconds_max)

    def _table(self, key: str) -> Table:
        """The declared events of the declaration with that key: by a small file that the first process has made."""
        table = self._tables.get(key)
        if table is None:
            path = self._directory.declared_events(key)
            try:
                table = parsed(self._disk.read(path))
            except (OSError, ValueError):
                table = self._declared()
                if key != "none":
                    self._disk.replace(path, spelled(table), durable=False)
            self._tables[key] = table
        return table

    def _declared(self) -> Table:
        from tallypost_schema.declaration import parse
        from tallypost_schema.errors import DeclarationInvalid

        content = self._declaration()
        try:
            return table_of(parse(content.decode())) if content is not None else {}
        except (UnicodeDecodeError, DeclarationInvalid):
            return {}
