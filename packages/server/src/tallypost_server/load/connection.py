"""One connection of a load: a request at a time, and what has come of its answer.

Takes   a request's bytes, and the document in it.
Gives   status, latency and receipt to the load's result; to the load itself that it is free, or gone.
Never   decides what is posted, or when (``poster.py``).
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

from tallypost_schema import receipts

from ..ingest.accept import Kind
from .result import Result


class Load(Protocol):
    """What a connection tells its load."""

    result: Result

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def freed(self, connection: Connection) -> None:
        """It has its answer, and takes what is due."""
        ...

    def answered_last(self) -> None:
        """It has its answer, and the server closes it."""
        ...

    def lose(self, failure: BaseException | None, connection: Connection) -> None:
        """It is gone."""
        ...


class Connection(asyncio.Protocol):
    """One connection, and what has come of the answer on it. The parser's callbacks are its `on_` methods."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._failure: BaseException | None = None
        self._body: list[bytes] = []
        self._kind: Kind = "report"
        self._document = b""
        self._whole = self._stays = False
        self.under_way = False
        self.since = self.sent = 0.0  # When it was due, or sent; when it was sent.

    def send(self, request: bytes, kind: Kind, document: bytes, since: float) -> None:
        """Post; the answer is told to the load."""
        assert self._transport is not None
        self._kind, self._document, self.since, self.under_way = kind, document, since, True
        self.sent = self._load.now()
        self._transport.write(request)

    def give_up(self) -> None:
        """Wait no longer."""
        self._failure = TimeoutError()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End it; nothing is under way."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------ asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Some bytes of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as failure:
            self._failure = failure
            self.close()
            return
        if self._whole:
            self._whole = False
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._load.lose(self._failure or exc, self)

    # ------------------------------------------------------------ httptools

    def on_body(self, piece: bytes) -> None:
        """A piece of an answer's body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """An answer has ended."""
        # An interim answer (100, 103) is none. Whether the connection stays can be asked only here.
        self._whole = self.under_way and self._parser.get_status_code() >= 200
        self._stays = bool(self._parser.should_keep_alive())

    def _answered(self) -> None:
        status, body = self._parser.get_status_code(), b"".join(self._body)
        self._body.clear()
        self.under_way = False
        result = self._load.result
        result.latencies.add(self._load.now() - self.since)
        result.answers[status] += 1
        if status == 200:
            if body == receipts.encode_receipt(receipts.hash_of(self._document)):
                result.receipts_right += 1
                result.stored[self._kind] += 1
            else:
                result.receipts_wrong += 1
        else:
            error = receipts.error_in(body)
            result.codes[error.code if error is not None else "not ours"] += 1
        if self._stays:
            self._load.freed(self)
        else:
            self._load.answered_last()
            self.close()
