"""The histogram: a set of counters, one a bucket, not cumulative.

Takes   values.
Gives   an increment of the bucket into which a value falls.
Never   keeps a value.
"""

from __future__ import annotations

from bisect import bisect_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from .counter import Counter


class Histogram:
    """Values by bucket: ``<=edge`` for each edge, and ``>last``. Get one from `Telemetry.histogram`."""

    __slots__ = ("_clock", "_counters", "_edges", "_lose", "name")

    def __init__(
        self,
        name: str,
        edges: tuple[float, ...],
        counters: tuple[Counter, ...],
        *,
        lose: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.name, self._edges, self._counters = name, edges, counters
        self._lose, self._clock = lose, clock

    def observe(self, value: float) -> None:
        """Count `value` in its bucket; a negative value, or what is no number, is counted as lost."""
        try:
            if value >= 0:
                self._counters[bisect_left(self._edges, value)].inc()
                return
        except Exception:  # noqa: BLE001  # What cannot be compared with a number is lost like a negative one.
            value = -1
        self._lose()

    def time(self) -> Timing:
        """Observe the seconds that a ``with`` block takes, or each call of a function that this decorates."""
        return Timing(self)

    def __repr__(self) -> str:
        return f"<Histogram {self.name}>"


class Timing:
    """One ``with`` block being timed, or a decorator that times each call."""

    __slots__ = ("_begin", "_histogram")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._begin = 0.0

    def __enter__(self) -> Timing:
        self._begin = self._histogram._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._histogram.observe(self._histogram._clock() - self._begin)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Time each call of a function; of a coroutine until it is done."""
        from .wrap import wrapped

        return wrapped(function, lambda: Timing(self._histogram))
