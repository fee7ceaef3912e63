"""Answers: the headers and the body of each, and for the protocol form all of its bytes.

Takes   a document's hash, or why a request is declined.
Gives   headers and body; the same for both forms of the hot path.
Never   writes to anybody.
"""

from __future__ import annotations

from typing import TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tallypost_schema import receipts

from .. import limits
from ..errors import Declined

Headers: TypeAlias = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
# A receipt is always as long as any other.
STORED_HEADERS: Headers = [_JSON, (b"content-length", b"%d" % len(receipts.encode_receipt("0" * 64)))]


def error_body(declined: Declined) -> bytes:
    """The body of an error's answer."""
    return receipts.encode_error(declined.code, declined.message, retry=declined.retry)


def error_headers(declined: Declined, body: bytes) -> Headers:
    """The headers of an error's answer."""
    headers: Headers = [_JSON, (b"content-length", b"%d" % len(body))]
    if declined.status == 503:
        headers.append((b"retry-after", b"%d" % limits.retry_after_seconds[declined.code]))
    return headers


class Speller:
    """Spells whole answers as uvicorn does. Its common headers, a list made anew each second, come first."""

    def __init__(self) -> None:
        self._common: Headers | None = None
        self._stored_head = b""

    def stored(self, sha256: str, common: Headers, *, keep_alive: bool) -> bytes:
        """The answer to a document that is on disk."""
        if not keep_alive:
            return _spelled(200, [*common, *STORED_HEADERS], receipts.encode_receipt(sha256), keep_alive=False)
        if common is not self._common:
            self._common, self._stored_head = common, _spelled(200, [*common, *STORED_HEADERS], b"", keep_alive=True)
        return self._stored_head + receipts.encode_receipt(sha256)

    def declined(self, declined: Declined, common: Headers, *, keep_alive: bool) -> bytes:
        """The answer to a request that gets no receipt."""
        body = error_body(declined)
        return _spelled(declined.status, [*common, *error_headers(declined, body)], body, keep_alive=keep_alive)


def _spelled(status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in headers]
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
