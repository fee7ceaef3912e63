from __future__ import annotations

import pytest

from tallypost.testing import FakeClock, instant


def test_fake_clock_stands_until_it_is_set_or_slept_on() -> None:
    """Time goes on only where a test says so."""
    clock = FakeClock("2026-11-20T12:00:00Z")
    begin = clock.now()

    clock.sleep(90)

    assert (begin + 90, [90]) == (clock.now(), clock.slept)
    clock.set("2026-11-20T12:00:00Z")
    assert begin == clock.now()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:01", 60),
    ],
)
def test_instant_is_utc_unless_told_otherwise(text: str, at: float) -> None:
    """The machine's time zone says nothing."""
    assert at == instant(text)


def test_instant_of_what_is_no_time_raises() -> None:
    """A wrong time is wrong use, found where it is given."""
    with pytest.raises(ValueError, match="soon"):
        instant("soon")
