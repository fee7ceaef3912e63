from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import zstandard

from tallypost_schema import declaration as declarations
from tallypost_schema import receipts
from tallypost_server.clock import SystemClock
from tallypost_server.errors import NoServer
from tallypost_server.load.address import address_of
from tallypost_server.load.documents import Documents
from tallypost_server.load.poster import Bounds, Coding, post
from tallypost_server.load.result import Result

pytestmark = pytest.mark.anyio
TEXT = 'application = "example.org/mytool"\n[counters.x]\nwhy = "x"\nowner = "x"\nexpires = "never"\n'
AT = datetime.datetime(2026, 11, 24, 10, 0, tzinfo=datetime.timezone.utc)
Answer = Callable[[bytes], bytes]


def answer(status: int, body: bytes, head: str = "") -> bytes:
    return f"HTTP/1.1 {status} Word\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def stored(body: bytes, head: str = "") -> bytes:
    return answer(200, receipts.encode_receipt(receipts.hash_of(body)), head)


class Peer:
    """A server that answers by a script, and counts connections and requests."""

    def __init__(self, script: Callable[[int, bytes], bytes | None]) -> None:
        self._script = script
        self.connections = self.requests = 0
        self.url = ""
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                if b"Content-Encoding: zstd" in head:
                    body = zstandard.decompress(body)
                self.requests += 1
                said = self._script(self.requests, body)
                if said is None:
                    break
                writer.write(said)
                if b"Connection: close" in said:
                    break
        writer.close()

    async def end(self) -> None:
        """Return once all that was accepted has come to its end."""
        await asyncio.wait_for(asyncio.gather(*self._serving, return_exceptions=True), 5)


@contextlib.asynccontextmanager
async def peer(script: Callable[[int, bytes], bytes | None]) -> AsyncIterator[Peer]:
    made = Peer(script)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await made.end()


def load(url: str, *, coding: Coding = "zstd", **bounds: Any) -> Awaitable[Result]:
    documents = Documents([declarations.parse(TEXT)], at=AT, draw=random.Random(1), models=20)
    asked = Bounds(**{"connections": 2, "seconds": 30.0, **bounds})
    return post(address_of(url), documents, coding, asked, clock=SystemClock(), processor_seconds=lambda: 0.0)


@pytest.mark.parametrize("coding", ["zstd", "gzip", "identity"])
async def test_each_document_is_posted_once_and_its_receipt_compared(coding: Coding) -> None:
    """So many as were asked for, over connections that are kept."""
    import gzip

    async with peer(lambda _, body: stored(gzip.decompress(body) if coding == "gzip" else body)) as server:
        result = await load(server.url, coding=coding, count=50)

    assert (50, 2) == (server.requests, server.connections)
    assert ({200: 50}, 50, 0) == (dict(result.answers), result.receipts_right, result.receipts_wrong)
    assert {"report": 50} == result.posted == result.stored
    assert 50 == result.latencies.count
    assert result.all_stored


async def test_receipt_of_another_document_is_wrong() -> None:
    """A 200 alone is no word about the document."""
    async with peer(lambda number, body: stored(body if number > 3 else b"other")) as server:
        result = await load(server.url, count=10)

    assert (7, 3, False) == (result.receipts_right, result.receipts_wrong, result.all_stored)


async def test_answers_are_counted_by_status_and_code() -> None:
    """What the server says and what a proxy says are told apart."""
    busy = receipts.encode_error("busy", "send again", retry=True)
    said = [answer(503, busy), answer(502, b"<html>"), answer(503, busy)]

    async with peer(lambda number, body: said[number - 1] if number <= 3 else stored(body)) as server:
        result = await load(server.url, count=10, connections=1)

    assert {200: 7, 503: 2, 502: 1} == dict(result.answers)
    assert {"busy": 2, "not ours": 1} == dict(result.codes)
    assert not result.errors


async def test_answer_in_pieces_after_an_interim_one_is_one_answer() -> None:
    """Chunks and 100 Continue are HTTP as well."""

    def chunked(_: int, body: bytes) -> bytes:
        receipt = receipts.encode_receipt(receipts.hash_of(body))
        first, rest = receipt[:10], receipt[10:]
        return (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"a\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (first, len(rest), rest)
        )

    async with peer(chunked) as server:
        result = await load(server.url, count=10)

    assert result.all_stored
    assert {200: 10} == dict(result.answers)


async def test_connection_that_the_server_closes_after_an_answer_is_no_error() -> None:
    """It is made anew, and the load goes on."""
    async with peer(lambda _, body: stored(body, "Connection: close\r\n")) as server:
        result = await load(server.url, count=20)

    assert result.all_stored
    assert not result.errors
    assert server.connections >= 20


@pytest.mark.parametrize(
    ("said", "named"), [(None, "connection closed before the answer"), (b"NONSENSE\r\n\r\n", "not HTTP")]
)
async def test_request_without_an_answer_is_an_error_and_is_not_sent_again(said: bytes | None, named: str) -> None:
    """Others go on."""
    async with peer(lambda number, body: said if number == 5 else stored(body)) as server:
        result = await load(server.url, count=20)

    assert {named: 1} == dict(result.errors)
    assert (20, 19, False) == (server.requests, result.receipts_right, result.all_stored)


async def test_answer_that_does_not_come_is_given_up() -> None:
    """A load ends."""
    async with peer(lambda number, body: b"" if number == 2 else stored(body)) as server:
        result = await load(server.url, count=10, answer_seconds=0.2)

    assert {"no answer in time": 1} == dict(result.errors)
    assert 9 == result.receipts_right


async def test_rate_is_kept_and_not_exceeded() -> None:
    """Requests are due at their times, whatever answers do."""
    async with peer(lambda _, body: stored(body)) as server:
        result = await load(server.url, seconds=0.5, rate=100)

    assert 30 <= result.posted["report"] <= 100 * result.seconds + 1
    assert result.all_stored


async def test_latency_at_a_rate_begins_when_the_request_was_due() -> None:
    """A server that stands still for a while delays all that was due meanwhile, not one answer alone."""
    stalled = asyncio.Event()

    class Stalling(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not stalled.is_set():
                stalled.set()
                await asyncio.sleep(0.3)
            await super().serve(reader, writer)

    made = Stalling(lambda _, body: stored(body))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    result = await load(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", count=40, rate=100, connections=1)
    server.close()
    await made.end()

    median = result.latencies.percentile(0.5)
    assert result.all_stored
    assert median is not None
    assert median > 0.05


async def test_load_ends_at_its_time_with_what_is_under_way_answered() -> None:
    """No answer is thrown away."""
    async with peer(lambda _, body: stored(body)) as server:
        result = await load(server.url, seconds=0.2)

    assert result.all_stored
    assert server.requests == result.posted["report"]
    assert 0.2 <= result.seconds < 5


async def test_server_that_goes_away_is_asked_again_until_the_time_is_over() -> None:
    """It is not stormed, and the load ends in time."""
    made = Peer(lambda number, body: None if number == 5 else stored(body))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)

    def script(number: int, body: bytes) -> bytes | None:
        if number == 5:
            server.close()  # Nobody listens from now on, and this answer does not come.
        return stored(body) if number < 5 else None

    made._script = script
    result = await load(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seconds=0.5, connections=1)
    await made.end()

    assert 4 == result.receipts_right
    assert 1 == result.errors["connection closed before the answer"]
    assert 1 <= result.errors["connection refused"] <= 10 * result.seconds + 1
    assert result.seconds < 5


async def test_load_on_a_server_that_is_not_there_does_not_begin() -> None:
    """A wrong address is told, not counted."""
    async with peer(lambda _, body: stored(body)) as server:
        url = server.url

    with pytest.raises(NoServer, match="no connection to"):
        await load(url, seconds=0.2)
