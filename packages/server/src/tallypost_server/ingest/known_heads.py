"""Known heads: what a request's head says, found by its bytes instead of being read once more.

Takes   the bytes of heads that have been read, with what was read.
Gives   what they say, for the very same bytes.
Never   reads a head itself; never keeps one that tells of its sender, or that cannot come again.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import limits
from .accept import Kind
from .body import Coding

# What programs of one kind send alike. A proxy's word about the sender, an id of the request, whatever else: not kept.
_ALIKE = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
    }
)


class KnownHead(NamedTuple):
    """What a head says of a request that is taken, on a connection that stays."""

    kind: Kind
    coding: Coding
    body_bytes: int
    headers: list[tuple[bytes, bytes]]


class KnownHeads:
    """Heads by their bytes, from the method to the empty line. So many are kept at most, then all are forgotten."""

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        self.get = self._heads.get

    def add(self, data: bytes, head: KnownHead) -> None:
        """Know `head`, which was read from `data`, if its like will come again."""
        if len(data) > limits.known_head_bytes_max or not all(name in _ALIKE for name, _ in head.headers):
            return
        if len(self._heads) >= limits.known_heads_max:
            self._heads.clear()
        self._heads[data] = head
