"""Answers: the headers and the body of each, and for the protocol form all of its bytes.

Takes   a document's hash, or why a request is declined.
Gives   headers and body; the same for both forms of the hot path.
Never   writes to anybody.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tallypost_schema import receipts

from ..errors import Declined

Headers: TypeAlias = list[tuple[bytes, bytes]]

_turns = itertools.count()
_JSON = (b"content-type", b"application/json")
_NO_HASH = "0" * 64
# A receipt is always as long as any other.
STORED_HEADERS: Headers = [_JSON, (b"content-length", b"%d" % len(receipts.encode_receipt(_NO_HASH)))]


def error_body(declined: Declined) -> bytes:
    """The body of an error's answer."""
    return receipts.encode_error(declined.code, declined.message, retry=declined.retry)


def error_headers(declined: Declined, body: bytes, request_id: str) -> Headers:
    """The headers of an error's answer."""
    headers: Headers = [_JSON, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())]
    if declined.status == 503:
        headers.append((b"retry-after", b"%d" % _spread(declined.retry_after_seconds)))
    return headers


def _spread(least: int) -> int:
    """From `least` to twice that, each time elsewhere: those who were sent away together must not return together."""
    # Multiples of the golden ratio, less their whole part, lie evenly however many they are.
    return least + int(least * (next(_turns) * 0.618033988749895 % 1))


class Speller:
    """Spells whole answers as uvicorn does. Its common headers, a list made anew each second, come first."""

    def __init__(self) -> None:
        self._common: Headers | None = None
        self._stored = (b"", b"")  # What stands before a hash, and after it.

    def stored(self, sha256: str, common: Headers, *, keep_alive: bool) -> bytes:
        """The answer to a document that is on disk."""
        if not keep_alive:
            return _spelled(200, [*common, *STORED_HEADERS], receipts.encode_receipt(sha256), keep_alive=False)
        if common is not self._common:
            whole = _spelled(200, [*common, *STORED_HEADERS], receipts.encode_receipt(_NO_HASH), keep_alive=True)
            before, _, after = whole.rpartition(_NO_HASH.encode())
            self._common, self._stored = common, (before, after)
        before, after = self._stored
        return before + sha256.encode() + after

    def declined(self, declined: Declined, common: Headers, *, request_id: str, keep_alive: bool) -> bytes:
        """The answer to a request that gets no receipt."""
        body = error_body(declined)
        headers = [*common, *error_headers(declined, body, request_id)]
        return _spelled(declined.status, headers, body, keep_alive=keep_alive)


def _spelled(status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in headers]
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
