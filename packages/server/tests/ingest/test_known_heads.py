"""Known heads: which are kept, and how many."""

from __future__ import annotations

import pytest

from tallypost_server import limits
from tallypost_server.ingest.known_heads import KnownHead, KnownHeads

COMMON = [(b"host", b"x"), (b"content-type", b"application/json"), (b"content-length", b"2")]


def head(*more: tuple[bytes, bytes]) -> KnownHead:
    return KnownHead("report", "identity", 2, [*COMMON, *more])


def test_get_of_the_same_bytes_gives_what_was_read() -> None:
    """Bytes are known or not; nothing near them is."""
    known = KnownHeads()

    known.add(b"POST a", head())

    assert head() == known.get(b"POST a")
    assert known.get(b"POST b") is None


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"x-request-id", b"cookie", b"x-whatever"])
def test_add_of_a_head_that_tells_of_its_sender_keeps_nothing(name: bytes) -> None:
    """An address is in memory only as a keyed hash, and what differs each time would only fill the memory."""
    known = KnownHeads()

    known.add(b"POST a", head((name, b"192.0.2.1")))

    assert known.get(b"POST a") is None


def test_add_beyond_the_bounds_keeps_memory_bounded() -> None:
    """Long heads are not kept; too many are forgotten together, and the newest one stays."""
    known = KnownHeads()

    known.add(b"x" * (limits.known_head_bytes_max + 1), head())
    for number in range(limits.known_heads_max + 1):
        known.add(b"%d" % number, head())

    assert known.get(b"x" * (limits.known_head_bytes_max + 1)) is None
    assert known.get(b"0") is None
    assert head() == known.get(b"%d" % limits.known_heads_max)
