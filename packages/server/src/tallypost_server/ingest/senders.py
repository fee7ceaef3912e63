"""Senders: whose request it is, told by our own proxies, and how many of one sender are taken in a minute.

Takes   the connection's other end, a request's headers, how many proxies are ours, the moment.
Gives   nothing, or the reason why a request has to wait.
Never   keeps an address: in memory is a keyed hash of it, for two minutes, and nothing of it is ever written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from hashlib import blake2b

from .. import limits
from ..errors import TooManyFromOne

_MINUTE = 60.0
# What one household or one machine has of IPv6; whoever has one address there has all of these.
_IPV6_PREFIX = 64


class Senders:
    """Counts requests by sender. Used in the event loop only."""

    def __init__(self, *, per_minute: int, trusted_hops: int, key: bytes, now: Callable[[], float]) -> None:
        """`key` makes the hashes ones that nobody can look up; `now` is monotonic, in seconds."""
        self._per_minute, self._trusted_hops, self._key, self._now = per_minute, trusted_hops, key, now
        self._minute = 0
        self._this: dict[bytes, int] = {}
        self._last: dict[bytes, int] = {}

    def admit(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Count a request of the sender at `peer`, or behind it where that is a proxy of ours.

        Raises:
            TooManyFromOne: it is over what one sender may send in a minute; it was not counted.
        """
        minute, passed = divmod(self._now(), _MINUTE)
        if minute != self._minute:
            self._last = self._this if minute == self._minute + 1 else {}
            self._this, self._minute = {}, int(minute)
        sender = blake2b(sender_of(peer, headers, self._trusted_hops).encode(), key=self._key, digest_size=8).digest()
        # The minute that ends now: of the last one as much as still lies in it, as if that had come evenly.
        before = self._last.get(sender, 0) * (1 - passed / _MINUTE)
        given = self._this.get(sender, 0)
        if before + given >= self._per_minute:
            raise TooManyFromOne(self._per_minute)
        if given or len(self._this) < limits.senders_max:  # So many at once are not one sender's doing.
            self._this[sender] = given + 1


def sender_of(peer: str, headers: Iterable[tuple[bytes, bytes]], trusted_hops: int) -> str:
    """The address that counts: of IPv6 the network of 64 bits.

    Each proxy appends whom it heard; the last `trusted_hops` words are those of proxies that are ours, and the first of
    them is what they know of the sender. Whatever stands before it anybody may have made up (RFC 7239, 8.1).
    """
    if trusted_hops:
        chain = _forwarded_for(headers)
        if len(chain) >= trusted_hops:
            peer = _address(chain[-trusted_hops]) or peer
    return _network(peer)


def _forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """What stands in ``X-Forwarded-For``, or where there is none in ``Forwarded``."""
    usual: list[str] = []
    standard: list[str] = []
    for name, value in headers:
        if name == b"x-forwarded-for":
            usual += value.decode("latin-1").split(",")
        elif name == b"forwarded":
            standard += [_for_in(element) for element in value.decode("latin-1").split(",")]
    return usual or standard


def _for_in(element: str) -> str:
    for pair in element.split(";"):
        key, _, value = pair.strip().partition("=")
        if key.lower() == "for":
            return value.strip('"')
    return ""


def _address(text: str) -> str | None:
    """The address in ``192.0.2.1:80``, ``2001:db8::1`` or ``[2001:db8::1]:80``; None if there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _network(address: str) -> str:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address  # Of a socket in the file system there is none.
    if isinstance(known, ipaddress.IPv4Address):
        return address
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((known, _IPV6_PREFIX), strict=False))
