"""A few tests, each of which ends in its own way."""

import sys

import pytest


@pytest.mark.parametrize("values", [[], [1], [2, 1]])
def test_sorted_has_all_values(values: list[int]) -> None:
    """Nothing is lost."""
    assert len(values) == len(sorted(values))


@pytest.mark.skipif(sys.version_info >= (3, 0), reason="there are none any more")
def test_sorted_takes_a_comparison() -> None:
    """A function of two values."""


@pytest.mark.xfail(strict=True, reason="numbers and words have no order")
def test_sorted_takes_anything() -> None:
    """Mixed values."""
    sorted([1, "one"])  # type: ignore[type-var]  # What the test is about.
