"""A clock that stands still, and the instants that it is set to.

Takes   UTC times as text.
Gives   seconds since 1970.
Never   looks at the machine's clock, and never waits.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable


class FakeClock:
    """A clock that stands still until it is set."""

    def __init__(self, at: str = "2026-11-20T12:00:00Z") -> None:
        self._at = instant(at)
        self.now: Callable[[], float] = lambda: self._at
        self.slept: list[float] = []

    def set(self, at: str) -> None:
        """Have it be that instant."""
        self._at = instant(at)

    def sleep(self, seconds: float) -> None:
        """Go on by so many seconds, at once."""
        self.slept.append(seconds)
        self._at += seconds


def instant(text: str) -> float:
    """A UTC time such as 2026-11-20T12:00:00Z, as seconds since 1970.

    Raises:
        ValueError: it is none.
    """
    at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (at if at.tzinfo is not None else at.replace(tzinfo=datetime.timezone.utc)).timestamp()
