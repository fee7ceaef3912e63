"""Chance: the one way in.

Takes   nothing.
Gives   random bytes, and fractions in [0, 1).
Never   anything that could be foretold or repeated outside a test.
"""

from __future__ import annotations

import os


class SystemRandom:
    """The operating system's source."""

    def bytes(self, count: int) -> bytes:
        """So many random bytes."""
        return os.urandom(count)

    def fraction(self) -> float:
        """A number in [0, 1), with 53 random bits."""
        return (int.from_bytes(os.urandom(7), "little") >> 3) / (1 << 53)
