"""Known heads: which are kept, how many, and what is found again."""

from __future__ import annotations

import pytest

from tallypost_schema import limits as shared
from tallypost_server import limits
from tallypost_server.ingest.known_heads import KnownHead, KnownHeads

ALIKE = ("Host: x", "User-Agent: a/1", "content-type: application/json")
LENGTH = "Content-Length: 2"


def bytes_of(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/reports HTTP/1.1", *lines, "", ""]).encode()


def read(*lines: str) -> KnownHead:
    """What a reader finds in these lines."""
    pairs = [line.split(": ", 1) for line in lines]
    return KnownHead("report", "identity", [(name.lower().encode(), value.encode()) for name, value in pairs])


def known(*lines: str) -> KnownHeads:
    heads = KnownHeads()
    heads.add(bytes_of(*lines), read(*lines))
    return heads


def test_find_of_a_head_that_differs_in_what_is_its_own_gives_that() -> None:
    """Its length, its proxy's id and its sender's address, wherever they stand; all else must be the same bytes."""
    heads = known(*ALIKE, LENGTH)

    found = heads.find(
        bytes_of("X-Request-ID: abc", *ALIKE, "x-forwarded-for: 192.0.2.1, 2001:db8::1", "content-length: 30")
    )

    assert found is not None
    assert (30, "abc", "report", "identity") == (found.body_bytes, found.request_id, found.kind, found.coding)
    own = {b"x-forwarded-for": b"192.0.2.1, 2001:db8::1", b"x-request-id": b"abc", b"content-length": b"30"}
    assert {**dict(read(*ALIKE).headers), **own} == dict(found.headers)
    plain = heads.find(bytes_of(*ALIKE, LENGTH))
    assert plain is not None
    assert (2, "") == (plain.body_bytes, plain.request_id)
    assert heads.find(bytes_of("Host: y", *ALIKE[1:], LENGTH)) is None
    assert heads.find(bytes_of(*ALIKE)) is None


@pytest.mark.parametrize(
    "lines",
    [
        (LENGTH, "content-length: 2"),
        (LENGTH, LENGTH),
        ("content-length: +2",),
        ("content-length: 02",),
        ("content-length: 2, 2",),
        ("content-length:  2",),
        ("content-length: 999999999",),
        (f"content-length: {shared.wire_bytes_max + 1}",),
        ("CONTENT-length: 2",),
        (LENGTH, "x-request-id: a b"),
        (LENGTH, "x-forwarded-for: unknown"),
        (LENGTH, "x-forwarded-for: 192.0.2.1,"),
        (LENGTH, "x-forwarded-for: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"),
    ],
)
def test_find_of_a_line_that_readers_may_take_otherwise_gives_nothing(lines: tuple[str, ...]) -> None:
    """Such a head is read."""
    assert known(*ALIKE, LENGTH).find(bytes_of(*ALIKE, *lines)) is None


def test_add_keeps_nothing_that_tells_of_a_sender() -> None:
    """An address is in memory only as a keyed hash."""
    heads = known(*ALIKE, LENGTH, "X-Forwarded-For: 192.0.2.77", "X-Request-ID: abcdef")
    assert heads.find(bytes_of(*ALIKE, LENGTH, "X-Forwarded-For: 192.0.2.77", "X-Request-ID: abcdef")) is not None

    assert heads.find(bytes_of(*ALIKE, LENGTH)) is not None
    assert "192.0.2.77" not in str(vars(heads))
    assert "abcdef" not in str(vars(heads))


@pytest.mark.parametrize(
    "line",
    [
        "forwarded: for=192.0.2.1",
        "cookie: a",
        "x-whatever: a",
        "x-forwarded-for: unknown",
        "transfer-encoding: chunked",
    ],
)
def test_add_of_a_head_with_another_line_keeps_nothing(line: str) -> None:
    """What differs each time would only fill the memory."""
    assert known(*ALIKE, LENGTH, line).find(bytes_of(*ALIKE, LENGTH, line)) is None


def test_add_of_a_head_with_a_folded_line_keeps_nothing() -> None:
    """Some readers take it; what is cut out before such a line would be another line's."""
    assert known(*ALIKE, "accept: a\r\n b", LENGTH).find(bytes_of(*ALIKE, "accept: a\r\n b", LENGTH)) is None


def test_add_beyond_the_bounds_keeps_memory_bounded() -> None:
    """Long heads are not kept; too many are forgotten together, and the newest one stays."""
    long = ("user-agent: " + "x" * limits.known_head_bytes_max, LENGTH)
    heads = known(*long)
    assert heads.find(bytes_of(*long)) is None

    for number in range(limits.known_heads_max + 1):
        lines = (f"user-agent: {number}", LENGTH)
        heads.add(bytes_of(*lines), read(*lines))
        for length in ("content-length: 3", "content-length: 4"):
            assert heads.find(bytes_of(lines[0], length)) is not None
    assert limits.known_heads_max >= max(len(each) for each in vars(heads).values())

    assert heads.find(bytes_of("user-agent: 0", LENGTH)) is None
    assert heads.find(bytes_of(f"user-agent: {limits.known_heads_max}", LENGTH)) is not None
