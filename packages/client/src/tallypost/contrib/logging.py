"""Counts log records: how many of which level, and which logger they come from.

Takes   log records.
Gives   ``log/level:error``, ``log/logger/django:error``.
Never   looks at a message or its arguments; never formats, prints or keeps a record.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from ..errors import WrongUse
from . import bounded
from .words import OTHER, name_of

if TYPE_CHECKING:
    from ..telemetry import Telemetry


class CountingHandler(logging.Handler):
    """A handler that counts.

    Args:
        telemetry: what counts.
        prefix: begins the names of the counters.
        depth: how many parts of a logger's name are kept: of ``django.request`` one is ``django``.
        limit: of so many loggers each has a counter of its own; the rest is ``other``.
        level: records below it are not counted.

    Raises:
        WrongUse: the prefix is outside the grammar.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        prefix: str = "log",
        depth: int = 1,
        limit: int = bounded.buckets_max,
        level: int | str = logging.NOTSET,
    ) -> None:
        super().__init__()
        self.setLevel(level)
        self._telemetry, self._prefix, self._depth, self._limit = telemetry, prefix, depth, limit
        self._levels = bounded.BoundedCounter(telemetry, f"{prefix}/level", limit=limit, spelled=name_of)
        self._others = bounded.BoundedCounter(telemetry, f"{prefix}/logger/{OTHER}", limit=limit, spelled=name_of)
        self._loggers: dict[str, bounded.BoundedCounter] = {}
        self._known: dict[str, bounded.BoundedCounter] = {}
        # True in a thread in which this handler counts: what is logged there meanwhile, counting itself has logged.
        self._is_counting = threading.local()
        self.problem: Exception | None = None

    def setLevel(self, level: int | str) -> None:  # noqa: N802  # Its name in the standard library.
        """Count no record below that level. They are still handled, so that `emit` can see to it that they appear."""
        super().setLevel(level)
        self._least, self.level = self.level, logging.NOTSET

    def handle(self, record: logging.LogRecord) -> bool:
        """Count a record that the filters let pass, without a lock.

        Counters need none. And a thread that logs in the middle of counting, as a destructor or a signal handler may,
        would wait here for one that waits for it to have counted.
        """
        passed: object = self.filter(record)  # From Python 3.12 on a filter may put another record in its place.
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        if not hasattr(self._is_counting, "yes"):
            self._count(record)
        # Python prints warnings that no handler takes. That this one counts them must not silence them.
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and self._is_alone(record.name):
            last.handle(record)

    def _count(self, record: logging.LogRecord) -> None:
        self._is_counting.yes = True
        try:
            if record.levelno < self._least:
                return
            self._levels.inc(record.levelname)
            (self._known.get(record.name) or self._logger(record.name)).inc(record.levelname)
        except Exception as problem:  # noqa: BLE001  # Whatever it is: a program must not fail because it logs.
            self.problem = problem
        finally:
            del self._is_counting.yes

    def _logger(self, foreign: str) -> bounded.BoundedCounter:
        """The counter of a logger; it has a name of its own, so that each can be declared with its reason."""
        top = ".".join(foreign.split(".")[: self._depth])
        name = name_of(top)
        counter = self._loggers.get(name) if name is not None else self._others
        if counter is None:
            counter = self._others
            if len(self._loggers) < self._limit:
                counter = self._made(f"{self._prefix}/logger/{name}")
                self._loggers[str(name)] = counter
        if len(self._known) < self._limit * bounded.spellings_per_bucket_max:
            self._known[foreign] = counter
        return counter

    def _made(self, name: str) -> bounded.BoundedCounter:
        try:
            return bounded.BoundedCounter(self._telemetry, name, limit=self._limit, spelled=name_of)
        except WrongUse as problem:  # With the prefix the name is too long.
            self.problem = problem
            return self._others

    def _is_alone(self, name: str) -> bool:
        """Whether a logger's records reach this handler first, and no handler of another kind."""
        logger = self._found(name)
        first: logging.Handler | None = None
        while logger is not None:
            for handler in logger.handlers:
                if not isinstance(handler, CountingHandler):
                    return False
                first = first or handler
            logger = logger.parent if logger.propagate else None
        return first is self

    def _found(self, name: str) -> logging.Logger | None:
        found = logging.Logger.manager.loggerDict.get(name)
        return found if isinstance(found, logging.Logger) else logging.root if name == logging.root.name else None
