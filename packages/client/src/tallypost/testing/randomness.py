"""Chance without surprise.

Takes   the fraction that is to be drawn.
Gives   bytes that count up, and that fraction.
Never   draws by chance.
"""

from __future__ import annotations


class FakeRandom:
    """Chance without surprise: bytes that count up, fractions that repeat."""

    def __init__(self, fraction: float = 0.5) -> None:
        self._fraction, self._drawn = fraction, 0

    def bytes(self, count: int) -> bytes:
        """So many bytes, other ones each time."""
        self._drawn += 1
        return self._drawn.to_bytes(count, "big")

    def fraction(self) -> float:
        """The number that it was made with."""
        return self._fraction
