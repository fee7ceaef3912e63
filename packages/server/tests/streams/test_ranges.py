from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallypost_server.streams.ranges import Ranges, count, difference, first_of, highest, holds, ranges, union

pairs = st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def numbers(of: Ranges) -> set[int]:
    return {number for first, last in of for number in range(first, last + 1)}


@given(pairs, pairs)
def test_ranges_do_what_sets_of_numbers_do(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    """Union, difference, count, membership and the highest number are those of the sets."""
    left, right = ranges(one), ranges(other)

    assert numbers(left) == {number for first, last in one for number in range(first, last + 1)}
    assert numbers(left) | numbers(right) == numbers(union(left, right))
    assert numbers(left) - numbers(right) == numbers(difference(left, right))
    assert len(numbers(left)) == count(left)
    assert max(numbers(left), default=-1) == highest(left)
    assert [number in numbers(left) for number in range(40)] == [holds(left, number) for number in range(40)]
    for most in range(40):
        assert sorted(numbers(left))[:most] == sorted(numbers(first_of(left, most)))


@given(pairs, pairs)
def test_ranges_are_in_one_form_only(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    """Sorted, and none touches the next: equal sets are equal ranges."""
    for found in (
        ranges(one),
        union(ranges(one), ranges(other)),
        difference(ranges(one), ranges(other)),
        first_of(ranges(one), 7),
    ):
        assert found == ranges((number, number) for number in numbers(found))
