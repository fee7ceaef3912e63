"""How long answers took, in a memory that does not grow with their number.

Takes   seconds, one at a time.
Gives   percentiles to one part in a hundred, and the largest exactly.
Never   keeps a single one: a load may run for days.
"""

from __future__ import annotations

import math

# Each bucket ends one part in a hundred above the one before it.
_GROWTH = math.log(1.01)
_SHORTEST = 1e-6


class Latencies:
    """Counts by the logarithm of what was measured."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.max = 0.0

    def add(self, seconds: float) -> None:
        """Count one answer."""
        bucket = math.ceil(math.log(max(seconds, _SHORTEST) / _SHORTEST) / _GROWTH)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        if seconds > self.max:
            self.max = seconds

    def percentile(self, share: float) -> float | None:
        """What at least `share` of the answers did not exceed; None without any."""
        wanted, seen = math.ceil(share * self.count), 0
        for bucket, count in sorted(self._counts.items()):
            seen += count
            if seen >= max(wanted, 1):
                return min(_SHORTEST * math.exp(bucket * _GROWTH), self.max)
        return None
