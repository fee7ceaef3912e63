"""One suite for the real clock and the fake one."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from tallypost_server.clock import Clock, SystemClock, moment_of, stamp
from tallypost_server.testing import FakeClock

pytestmark = pytest.mark.anyio
BEGIN = datetime.datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=datetime.timezone.utc)


@pytest.fixture(params=["system", "fake"])
def any_clock(request: pytest.FixtureRequest) -> Clock:
    return SystemClock() if request.param == "system" else FakeClock(BEGIN)


async def test_now_is_utc(any_clock: Clock) -> None:
    """There is no local time."""
    assert datetime.timedelta(0) == any_clock.now().utcoffset()


async def test_sleep_lasts_as_long_as_asked(any_clock: Clock) -> None:
    """Whoever sleeps is woken no earlier than asked."""
    begun = any_clock.monotonic()
    sleeping = asyncio.create_task(any_clock.sleep(0.01))
    await asyncio.sleep(0)
    if isinstance(any_clock, FakeClock):
        any_clock.advance(0.005)
        await asyncio.sleep(0)
        assert not sleeping.done()
        any_clock.advance(0.005)

    await sleeping

    assert any_clock.monotonic() - begun >= 0.01


def test_stamp_has_milliseconds_and_comes_back() -> None:
    """A moment is spelled as documents spell it."""
    assert "2026-11-24T10:00:00.123Z" == stamp(BEGIN)
    assert BEGIN.replace(microsecond=123000) == moment_of(stamp(BEGIN))
