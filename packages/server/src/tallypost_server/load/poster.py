"""Posting a load: some connections, kept alive, each with at most one request under way.

Takes   an address, documents, and bounds of time, count and rate.
Gives   a `Result`: what was answered how and when, each receipt compared with the hash of what was posted.
Never   waits with a request for an answer on another connection; never posts a document again after an error.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import gzip
import math
import ssl
from collections.abc import Callable
from typing import Literal, TypeAlias

import httptools
import zstandard

from .. import limits
from ..clock import Clock
from ..errors import NoServer
from ..ingest.head import PATHS
from .address import Address
from .connection import Connection
from .documents import Documents
from .result import Result

Coding: TypeAlias = Literal["zstd", "gzip", "identity"]


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How much is posted: until a time or a count is reached; so many a second, or as many as are answered."""

    connections: int
    seconds: float
    count: int | None = None
    rate: float | None = None
    answer_seconds: float = 30.0


async def post(
    address: Address,
    documents: Documents,
    coding: Coding,
    bounds: Bounds,
    *,
    clock: Clock,
    processor_seconds: Callable[[], float],
    told_to_end: asyncio.Event | None = None,
) -> Result:
    """Post until a bound is reached, or until it is told to end; wait for what is under way.

    Raises:
        NoServer: not one connection could be made.
    """
    load = _Load(address, documents, coding, bounds, clock, told_to_end)
    await load.connect()
    before, begun = processor_seconds(), clock.monotonic()
    await load.run()
    load.result.seconds = clock.monotonic() - begun
    load.result.busy = (processor_seconds() - before) / max(load.result.seconds, 1e-9)
    return load.result


class _Load:
    """One load: the requests still to come, and the connections that are at rest."""

    def __init__(
        self,
        address: Address,
        documents: Documents,
        coding: Coding,
        bounds: Bounds,
        clock: Clock,
        told_to_end: asyncio.Event | None,
    ) -> None:
        self.result = Result(documents.kinds)
        self.now = clock.monotonic
        self._address, self._bounds, self._clock, self._told_to_end = address, bounds, clock, told_to_end
        self._documents = iter(documents)
        self._compress = _compressor(coding)
        self._heads = {kind: _head(address, path, coding) for kind, path in PATHS.items()}
        self._tls = ssl.create_default_context() if address.tls else None
        self._connections: set[Connection] = set()
        self._at_rest: collections.deque[Connection] = collections.deque()
        self._lost = 0  # Connections that are made anew at the next look.
        self._making: set[asyncio.Task[None]] = set()
        self._begun = self._end = math.inf  # Until it runs, a load is not over.
        self._taken = 0
        self._over = False
        self._under_way = 0
        self._done = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        made = await asyncio.gather(*(self._connect() for _ in range(self._bounds.connections)), return_exceptions=True)
        failures = [failure for failure in made if isinstance(failure, BaseException)]
        for failure in failures:
            if not isinstance(failure, (OSError, asyncio.TimeoutError)):
                raise failure
        if len(failures) == len(made):
            raise NoServer(self._address.path or f"{self._address.host}:{self._address.port}", failures[0])
        for failure in failures:
            self.lose(failure)

    async def run(self) -> None:
        self._begun = self.now()
        self._end = self._begun + self._bounds.seconds
        tending = asyncio.create_task(self._tend())
        try:
            self._start_due()
            await self._done.wait()
        finally:
            tending.cancel()
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            for task in self._making:
                task.cancel()
            for connection in list(self._connections):
                connection.close()
            await asyncio.sleep(0)  # They hear of their end while there is a loop to tell them.

    # ------------------------------------------------------------ what a connection tells

    def freed(self, connection: Connection) -> None:
        """A connection has its answer: it takes what is due, or comes to rest."""
        self._under_way -= 1
        due = self._due()
        if not self._over and due <= self.now():
            # All connections were at work when it was due: what it waited for them belongs to its latency.
            self._send(connection, since=None if self._bounds.rate is None else due)
        else:
            self._at_rest.append(connection)
        self._end_if_over()

    def lose(self, failure: BaseException | None, connection: Connection | None = None) -> None:
        """A connection is gone, or was not made; if a request was under way on it, that one is an error."""
        if connection is not None:
            self._connections.discard(connection)
            if connection in self._at_rest:
                self._at_rest.remove(connection)
            if not connection.under_way:  # The server closed it between requests, as it may.
                if not self._over:
                    self._make_anew()
                return
            self._under_way -= 1
        self.result.errors[_named(failure)] += 1
        self._lost += 1
        self._end_if_over()

    def answered_last(self) -> None:
        """A connection has its answer, and the server closes it."""
        self._under_way -= 1
        self._end_if_over()

    # ------------------------------------------------------------ what is due

    def _due(self) -> float:
        """When the next request is due."""
        rate = self._bounds.rate
        return 0.0 if rate is None else self._begun + self._taken / rate

    def _start_due(self) -> None:
        """Give connections at rest what is due, and come back when more is."""
        while self._at_rest and not self._over and (due := self._due()) <= (now := self.now()):
            # What a timer is late by is this side's, not the server's. More than that is a wait for a connection.
            waited = self._bounds.rate is not None and now - due > limits.load_timer_late_seconds
            self._send(self._at_rest.popleft(), since=due if waited else None)
        self._end_if_over()
        if self._bounds.rate is not None and not self._over:
            if self._timer is not None:
                self._timer.cancel()
            wait = max(self._due() - self.now(), limits.load_timer_seconds)
            self._timer = asyncio.get_running_loop().call_later(wait, self._start_due)

    def _send(self, connection: Connection, *, since: float | None) -> None:
        self._taken += 1
        self._under_way += 1
        if self._taken == self._bounds.count:
            self._over = True
        kind, document = next(self._documents)
        self.result.posted[kind] += 1
        body = self._compress(document)
        self.result.bytes_posted += len(body)
        request = self._heads[kind] + b"%d\r\n\r\n" % len(body) + body
        connection.send(request, kind, document, self.now() if since is None else since)

    def _end_if_over(self) -> None:
        if not self._over and self.now() >= self._end:
            self._over = True
        if self._over and not self._under_way:
            self._done.set()

    # ------------------------------------------------------------ connections

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        address = self._address

        def protocol() -> Connection:
            return Connection(self)

        if address.path:
            making = loop.create_unix_connection(protocol, address.path)
        else:
            making = loop.create_connection(protocol, address.host, address.port, ssl=self._tls)
        _, connection = await asyncio.wait_for(making, limits.connect_seconds_max)
        self._connections.add(connection)
        self._at_rest.append(connection)

    def _make_anew(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect_or_count())
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _connect_or_count(self) -> None:
        try:
            await self._connect()
        except (OSError, asyncio.TimeoutError) as failure:
            self.lose(failure)
        else:
            self._start_due()

    async def _tend(self) -> None:
        """Look after what does not answer, and make anew what was lost: not at once, a server may be away."""
        while True:
            await self._clock.sleep(limits.load_tend_seconds)
            now = self.now()
            if self._told_to_end is not None and self._told_to_end.is_set():
                self._over = True
            for connection in list(self._connections):
                if connection.under_way and now - connection.sent > self._bounds.answer_seconds:
                    connection.give_up()
            lost, self._lost = self._lost, 0
            for _ in range(0 if self._over else lost):
                self._make_anew()
            self._end_if_over()


def _head(address: Address, path: str, coding: Coding) -> bytes:
    encoding = "" if coding == "identity" else f"Content-Encoding: {coding}\r\n"
    head = (
        f"POST {address.prefix}{path} HTTP/1.1\r\nHost: {address.name}\r\n"
        f"Content-Type: application/json\r\n{encoding}Content-Length: "
    )
    return head.encode("ascii")


def _compressor(coding: Coding) -> Callable[[bytes], bytes]:
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=3).compress
    if coding == "gzip":
        return lambda document: gzip.compress(document, 6)
    return lambda document: document


def _named(failure: BaseException | None) -> str:
    """An error as people count it."""
    if isinstance(failure, (TimeoutError, asyncio.TimeoutError)):
        return "no answer in time"
    if isinstance(failure, ConnectionRefusedError):
        return "connection refused"
    if failure is None or isinstance(failure, ConnectionError):
        return "connection closed before the answer"
    if isinstance(failure, httptools.HttpParserError):
        return "not HTTP"
    return f"{type(failure).__name__}: {failure}"[:80]
