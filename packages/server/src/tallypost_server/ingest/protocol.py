"""Uvicorn's HTTP protocol with two bounds that it lacks: how long a head may take, and how large it may be.

Takes   a connection's bytes.
Gives   408 to a head that does not come to its end in time, a closed connection to one that is too large.
Never   costs a whole head a timer: one is set only while a head is incomplete.
"""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tallypost_schema import receipts
from tallypost_schema.outcomes import CODES

from .. import limits


class BoundedHead(HttpToolsProtocol):
    """Ends connections whose head does not come. The seconds stand here so that a test can subclass them."""

    head_seconds_max: float = limits.head_seconds_max
    head_bytes_max: int = limits.head_bytes_max

    _head_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As uvicorn has it.
        """A sender has come; it has some time to say something."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.head_seconds_max, self._end_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender is gone."""
        self._unset_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes; a head may begin, go on or end in them."""
        super().data_received(data)
        if not self._in_head:
            if self._head_timer is not None:
                self._unset_head_timer()
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.head_bytes_max:
            self.send_400_response("The head is too large.")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds_max, self._end_head)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._in_head = False
        super().on_headers_complete()

    def _unset_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_head(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        # While an earlier request is being answered nothing may be written between; the connection just ends.
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request.
        if self._in_head and (cycle is None or cycle.response_complete):
            message = f"the head did not come within {self.head_seconds_max:g} s; send it again"
            body = receipts.encode_error("too_slow", message, retry=CODES["too_slow"].retry)
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (len(body), body)
            )
        self.transport.close()
