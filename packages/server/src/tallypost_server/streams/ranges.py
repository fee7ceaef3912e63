"""Sets of whole numbers as ranges: pairs of a first and a last number, both included, sorted, none touching another.

Takes   ranges.
Gives   their union, difference, what they lack.
Never   changes what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
Ranges: TypeAlias = tuple[Range, ...]


def ranges(pairs: Iterable[Range]) -> Ranges:
    """The numbers that any of `pairs` holds; a pair whose last is below its first holds none."""
    found: list[Range] = []
    for first, last in sorted(pair for pair in pairs if pair[0] <= pair[1]):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def union(one: Ranges, other: Ranges) -> Ranges:
    """The numbers that are in either."""
    if len(other) == 1 and one and other[0][0] == one[-1][1] + 1:  # The next batch of a session, as most are.
        return (*one[:-1], (one[-1][0], other[0][1]))
    return ranges((*one, *other))


def difference(one: Ranges, other: Ranges) -> Ranges:
    """The numbers of `one` that are not in `other`."""
    found: list[Range] = []
    at = 0
    for first, last in one:
        while at < len(other) and other[at][1] < first:
            at += 1
        begin, look = first, at
        while look < len(other) and other[look][0] <= last:
            if other[look][0] > begin:
                found.append((begin, other[look][0] - 1))
            begin = max(begin, other[look][1] + 1)
            look += 1
        if begin <= last:
            found.append((begin, last))
    return tuple(found)


def count(one: Ranges) -> int:
    """How many numbers there are."""
    return sum(last - first + 1 for first, last in one)


def first_of(one: Ranges, most: int) -> Ranges:
    """The lowest so many numbers."""
    found: list[Range] = []
    for first, last in one:
        if most <= 0:
            break
        found.append((first, min(last, first + most - 1)))
        most -= last - first + 1
    return tuple(found)


def holds(one: Ranges, number: int) -> bool:
    """Whether `number` is among them."""
    return any(first <= number <= last for first, last in one)


def highest(one: Ranges) -> int:
    """The highest number; -1 if there is none."""
    return one[-1][1] if one else -1
