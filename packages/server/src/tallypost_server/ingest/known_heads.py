"""Known heads: what a request's head says, found by its bytes instead of being read once more.

Takes   the bytes of heads that have been read, with what was read.
Gives   what they say, for heads that differ in nothing but what each request has of its own.
Never   reads another line than those; never keeps their values, which tell of the sender.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from tallypost_schema import limits as shared

from .. import limits
from .accept import Kind
from .body import Coding

# What programs of one kind send alike, and a proxy adds alike. Whatever else: not kept.
_ALIKE = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-type",
        b"host",
        b"user-agent",
        b"via",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    }
)
# What each request has of its own, and how it is spelled at its plainest: read here, it says what any reader finds.
_OWN = {
    b"content-length": re.compile(rb"[1-9][0-9]{0,7}"),
    b"x-forwarded-for": re.compile(rb"[0-9A-Fa-f.:]+(?:, ?[0-9A-Fa-f.:]+)*"),
    b"x-request-id": re.compile(rb"[A-Za-z0-9._-]{1,64}"),
}
# As programs and proxies spell the begin of such a line; one that is spelled otherwise is read.
_BEGINS = {
    b"\r\n" + name + b": ": name.lower()
    for name in (
        b"content-length",
        b"Content-Length",
        b"x-forwarded-for",
        b"X-Forwarded-For",
        b"x-request-id",
        b"X-Request-Id",
        b"X-Request-ID",
    )
}
Headers: TypeAlias = list[tuple[bytes, bytes]]


class KnownHead(NamedTuple):
    """What a head says of a request that is taken, on a connection that stays."""

    kind: Kind
    coding: Coding
    headers: Headers


class Found(NamedTuple):
    """What a head says of a request, with what is that one's own; `request_id` is empty if there is none."""

    kind: Kind
    coding: Coding
    body_bytes: int
    request_id: str
    headers: Headers


class KnownHeads:
    """Heads by their bytes, from the method to the empty line. So many are kept at most, then all are forgotten."""

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        # Whole ones of which nothing but their length is their own, as they come where no proxy is between.
        self._found: dict[bytes, Found] = {}

    def find(self, data: bytes) -> Found | None:
        """What a head says, if all of it that is not the request's own is known."""
        return self._found.get(data) or self._look(data)

    def _look(self, data: bytes) -> Found | None:
        rest, own = _split(data)
        head, length = self._heads.get(rest), own.get(b"content-length")
        if head is None or length is None or int(length) > shared.wire_bytes_max:
            return None
        request_id = own.get(b"x-request-id", b"").decode()
        found = Found(head.kind, head.coding, int(length), request_id, [*head.headers, *own.items()])
        if len(own) == 1:
            if len(self._found) >= limits.known_heads_max:
                self._found.clear()
            self._found[data] = found
        return found

    def add(self, data: bytes, head: KnownHead) -> None:
        """Know `head`, which was read from `data`, if its like will come again."""
        rest, own = _split(data)
        alike = [(name, value) for name, value in head.headers if name not in own]
        is_whole = len(alike) + len(own) == len(head.headers)  # Else one is there twice.
        # A line that goes on in the next would go on in whichever stands before it.
        if not is_whole or not all(name in _ALIKE for name, _ in alike) or b"\r\n " in rest or b"\r\n\t" in rest:
            return
        if len(rest) > limits.known_head_bytes_max:
            return
        if len(self._heads) >= limits.known_heads_max:
            self._heads.clear()
            self._found.clear()
        self._heads[rest] = head._replace(headers=alike)


def _split(data: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """A head without what is the request's own, and that. What is there once more stays in the rest."""
    own: dict[bytes, bytes] = {}
    for begin, name in _BEGINS.items():
        at = data.find(begin)
        if at >= 0 and name not in own:
            end = data.find(b"\r\n", at + len(begin))
            value = data[at + len(begin) : end]
            if _OWN[name].fullmatch(value):
                own[name] = value
                data = data[:at] + data[end:]
    return data, own
