"""Time and sleep: the one way in.

Takes   nothing, or a shift for tests and demonstrations.
Gives   UTC seconds since 1970 as a float, sleep, and the arithmetic of UTC days.
Never   local time.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


DAY_SECONDS = 86400
# Set by `python -m tallypost.testing --at`, inherited by children: seconds to add to the machine's clock.
SHIFT_VARIABLE = "TALLYPOST_TESTING_CLOCK_SHIFT"


class SystemClock:
    """The machine's clock, shifted by a constant when a test or a demonstration asks for another day."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        shift = _seconds(environ.get(SHIFT_VARIABLE, ""))
        # Unshifted, `now` is the bare built-in: a wrapper would cost more than the increment it guards.
        self.now: Callable[[], float] = time.time if shift == 0 else lambda: time.time() + shift

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""
        time.sleep(max(0.0, seconds))


def day_of(now: float) -> str:
    """The UTC day of an instant, as YYYY-MM-DD."""
    year, month, day = time.gmtime(now)[:3]
    return f"{year:04}-{month:02}-{day:02}"


def day_bounds(now: float) -> tuple[float, float]:
    """The first instant of the UTC day of `now`, and the first of the next."""
    begin = now - now % DAY_SECONDS
    return begin, begin + DAY_SECONDS


def spelled(now: float) -> str:
    """An instant to the second, as 2026-11-24T10:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
