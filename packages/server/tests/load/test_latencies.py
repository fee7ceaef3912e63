from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost_server.load.latencies import Latencies


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentile_is_within_one_part_in_a_hundred(values: list[float], share: float) -> None:
    """It is never below the exact one, and the largest value is exact."""
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    ordered = sorted(values)
    exact = ordered[max(0, -int(-share * len(ordered) // 1) - 1)]

    found = latencies.percentile(share)

    assert found is not None
    assert exact * (1 - 1e-9) <= found <= exact * 1.0101
    assert max(values) == latencies.max


def test_percentile_of_nothing_is_none() -> None:
    """No answer took no time at all."""
    assert Latencies().percentile(0.5) is None


def test_memory_does_not_grow_with_the_number_of_answers() -> None:
    """A million answers between 1 µs and an hour are some thousand numbers at most."""
    latencies = Latencies()
    for number in range(10_000):
        latencies.add(1e-6 * 1.0023**number)

    assert len(latencies._counts) < 2500


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_an_answer_that_took_no_time_is_counted(seconds: float) -> None:
    """A coarse clock may say so."""
    latencies = Latencies()
    latencies.add(seconds)

    assert 1 == latencies.count
