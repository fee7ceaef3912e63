"""Time as the server sees it: UTC for what is stored, a monotonic count for what is waited for.

Takes   nothing.
Gives   `Clock`, and the system's own as `SystemClock`.
Never   local time. No other module asks the system what time it is.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import time
from functools import lru_cache
from typing import Protocol

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND = datetime.timedelta(microseconds=1)
DAY = 86_400_000_000
"""Microseconds."""


class Clock(Protocol):
    """The time: ``SystemClock``, or ``testing.FakeClock``."""

    def now(self) -> datetime.datetime:
        """The present moment in UTC. It may jump, in both directions."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment. It never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return no earlier than `seconds` from now."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime.datetime:
        """The present moment in UTC."""
        return datetime.datetime.now(datetime.timezone.utc)

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return no earlier than `seconds` from now."""
        await asyncio.sleep(seconds)


@lru_cache(maxsize=8)  # Many documents are received at one moment.
def stamp(moment: datetime.datetime) -> str:
    """A moment as documents spell it: ``2026-11-24T10:00:00.123Z``."""
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def micros(moment: datetime.datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_at(micros: int) -> datetime.datetime:
    """The moment that `micros` gave."""
    return _EPOCH + micros * _MICROSECOND


def micros_of(text: str) -> int:
    """Microseconds since 1970 of the moment that `stamp` spelled; quicker than by way of `moment_of`."""
    return _second_of(text[:19]) + int(text[20:23]) * 1000


@functools.lru_cache(maxsize=1024)  # What a segment holds came within a minute.
def _second_of(text: str) -> int:
    return micros(datetime.datetime.fromisoformat(text + "+00:00"))


def moment_of(text: str) -> datetime.datetime:
    """The moment that `stamp` spelled."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
