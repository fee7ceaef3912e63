"""Counters that a host cannot feel: whatever happens inside, it goes on; and their buckets have a bound.

Takes   a telemetry object, which may be broken, and names that others wrote.
Gives   increments, under at most `limit` buckets and ``other``.
Never   raises, except `WrongUse` where it is made: a wrong prefix is the author's to see.
"""

from __future__ import annotations

from tallypost_schema import names

from ..errors import WrongUse
from .words import OTHER, bucket_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..counts.counter import Counter
    from ..counts.histogram import Histogram
    from ..telemetry import Telemetry

# More commands, routes or loggers than this nobody reads one by one, and nobody declares.
buckets_max = 100
# Different spellings may share a bucket. So many a bucket are remembered, the rest is spelled anew each time.
spellings_per_bucket_max = 4


class Uncounted:
    """Stands where a counter or histogram could not be made."""

    def inc(self, n: int = 1, bucket: str | None = None) -> None:
        """Count nothing."""

    def observe(self, value: float) -> None:
        """Observe nothing."""


class BoundedCounter:
    """A counter of names that others wrote: what does not fit, or is one too many, is counted as ``other``.

    Threads that bring new names at the very same instant may each get one above the limit: no lock is worth that.
    """

    __slots__ = ("_counter", "_distinct", "_known", "_limit", "_name", "_spelled", "problem")

    def __init__(
        self,
        telemetry: Telemetry,
        name: str,
        *,
        limit: int = buckets_max,
        spelled: Callable[[str], str | None] = bucket_of,
    ) -> None:
        """`spelled` turns a foreign name into a bucket."""
        self._name, self._limit, self._spelled = name, limit, spelled
        # What was swallowed last: for whoever wonders why nothing is counted.
        self.problem: Exception | None = None
        self._counter: Counter | Uncounted = Uncounted()
        self._known: dict[str, str] = {}
        self._distinct: set[str] = set()
        try:
            self._counter = telemetry.counter(name)
        except WrongUse:
            raise
        except Exception as problem:  # noqa: BLE001  # A telemetry object that is broken: the host runs without.
            self.problem = problem

    def inc(self, foreign: str | None = None) -> None:
        """Count one more; under the bucket of that name, if one is given."""
        try:
            self._counter.inc(bucket=None if foreign is None else self._known.get(foreign) or self._new(foreign))
        except Exception as problem:  # noqa: BLE001  # As above: the host comes first.
            self.problem = problem

    def _new(self, foreign: str) -> str:
        bucket = self._spelled(foreign) or OTHER
        if not names.is_counter(f"{self._name}:{bucket}"):
            bucket = OTHER
        if bucket != OTHER and bucket not in self._distinct:
            if len(self._distinct) >= self._limit:
                bucket = OTHER
            else:
                self._distinct.add(bucket)
        if len(self._known) < self._limit * spellings_per_bucket_max:
            self._known[foreign] = bucket
        return bucket


class Seconds:
    """A histogram of durations."""

    __slots__ = ("_histogram", "problem")

    def __init__(self, telemetry: Telemetry, name: str, edges: tuple[float, ...]) -> None:
        self.problem: Exception | None = None
        self._histogram: Histogram | Uncounted = Uncounted()
        try:
            self._histogram = telemetry.histogram(name, edges=edges)
        except WrongUse:
            raise
        except Exception as problem:  # noqa: BLE001  # As for a counter.
            self.problem = problem

    def observe(self, value: float) -> None:
        """Count a duration in its bucket."""
        try:
            self._histogram.observe(value)
        except Exception as problem:  # noqa: BLE001  # As for a counter.
            self.problem = problem
