"""The time by which something goes for good: a clock that leaps is believed little by little.

Takes   the machine's clock; the moment that was believed last, which the coordinator keeps.
Gives   `believed`, the rule; `Believed`, the present moment by it.
Never   a moment that the machine's clock has not reached.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable

from .. import limits
from ..clock import Clock, micros, moment_at, stamp
from ..streams.coordinator import Coordinator

_log = logging.getLogger(__name__)


def believed(last: datetime.datetime, now: datetime.datetime, ran_seconds: float) -> datetime.datetime:
    """What is believed when `last` was, the clock says `now`, and `ran_seconds` of work lie in between.

    A machine that was off for some days is as usual. A clock that is wrong is wrong by years, in 2037 or 1970, and set
    right within minutes. If it stays as it is, it is right: then it is caught up with, though nothing else ever tells
    what day it is.
    """
    away = now - last
    if abs(away) <= datetime.timedelta(days=limits.clock_leap_days_max):
        return now
    step = datetime.timedelta(seconds=limits.clock_catch_up_factor * ran_seconds)
    return last + max(-step, min(step, away))


class Believed:
    """The present moment for who removes and forgets. Kept with the coordinator, for the next who starts."""

    def __init__(
        self, clock: Clock, *, coordinator: Coordinator, newest: Callable[[], datetime.datetime | None]
    ) -> None:
        """`newest` tells when the archive's newest rows came, for a coordinator that was made anew."""
        self._clock, self._coordinator, self._newest = clock, coordinator, newest
        self._last: datetime.datetime | None = None
        self._kept: datetime.datetime | None = None
        self._looked = clock.monotonic()
        self._is_told = False

    def now(self) -> datetime.datetime:
        """The moment to go by: the clock's own, or an earlier one if it has leapt ahead."""
        now, at = self._clock.now(), self._clock.monotonic()
        if self._last is None:
            self._last = self._before(now)
        self._last, self._looked = believed(self._last, now, at - self._looked), at
        if self._kept is None or abs((self._last - self._kept).total_seconds()) >= limits.clock_kept_seconds:
            self.keep()
        if self._last < now and not self._is_told:
            _log.warning(
                "the clock says %s, and %s was believed last: nothing is removed or forgotten by it before it has "
                "stayed so for a while; is it right?",
                stamp(now),
                stamp(self._last),
            )
        self._is_told = self._last < now
        return min(self._last, now)  # Of one that was set back nothing is over before its time, as it tells it.

    def keep(self) -> None:
        """Let the coordinator know; also one that was made anew."""
        if self._last is not None:
            self._coordinator.believe(micros(self._last))
            self._kept = self._last

    def _before(self, now: datetime.datetime) -> datetime.datetime:
        kept = self._coordinator.believed()
        if kept is not None:
            return moment_at(kept)
        newest = self._newest()
        return now if newest is None else min(now, newest)
