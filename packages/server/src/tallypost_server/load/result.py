"""What came of a load.

Takes   one answer, error and latency after the other.
Gives   their counts.
Never   keeps an answer.
"""

from __future__ import annotations

import collections

from ..ingest.accept import Kind
from .latencies import Latencies


class Result:
    """What came of a load."""

    def __init__(self, kinds: frozenset[Kind]) -> None:
        self.posted = dict.fromkeys(sorted(kinds), 0)
        self.stored = dict.fromkeys(sorted(kinds), 0)
        self.answers: collections.Counter[int] = collections.Counter()
        self.codes: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.receipts_right = self.receipts_wrong = 0
        self.bytes_posted = 0
        self.latencies = Latencies()
        self.seconds = 0.0
        self.busy = 0.0

    @property
    def all_stored(self) -> bool:
        """Whether each document that was posted was answered with its receipt."""
        return bool(self.receipts_right) and self.receipts_right == sum(self.posted.values())
