from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from tallypost_schema import receipts
from tallypost_server.ingest.protocol import BoundedHead

pytestmark = pytest.mark.anyio


class Hasty(BoundedHead):
    """Waits a twentieth of a second for a head, and takes small ones only."""

    head_seconds_max = 0.05
    head_bytes_max = 500


async def echo(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answers once the body is there."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


Connect = Callable[[], Any]


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(echo, http=Hasty, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Hasty(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await asyncio.sleep(0)


async def test_head_that_does_not_come_to_its_end_gets_408() -> None:
    """A slow head is told so, in the form of every error, and the connection ends."""
    async with connection() as (reader, writer):
        writer.write(b"POST /v1/reports HTTP/1.1\r\nhost: x\r\n")

        answer = await reader.read()

    head, _, body = answer.partition(b"\r\n\r\n")
    error = receipts.error_in(body)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert error is not None
    assert ("too_slow", True) == (error.code, error.retry)
    assert b"connection: close" in head


async def test_head_that_comes_byte_by_byte_gets_408_all_the_same() -> None:
    """The time counts from the head's begin, not from its last byte."""
    async with connection() as (reader, writer):
        writer.write(b"POST /v1/reports HTTP/1.1\r\nname: ")
        answered = asyncio.create_task(reader.readline())
        while not answered.done():
            writer.write(b"a")
            await asyncio.sleep(0.002)

        assert (await answered).startswith(b"HTTP/1.1 408 ")


async def test_connection_on_which_nothing_comes_is_closed_in_silence() -> None:
    """Nobody asked, so nobody is answered."""
    async with connection() as (reader, _):
        assert b"" == await reader.read()


async def test_head_that_is_too_large_ends_the_connection() -> None:
    """A head without end does not fill the memory."""
    async with connection() as (reader, writer):
        writer.write(b"POST /v1/reports HTTP/1.1\r\nx: " + b"a" * 600)

        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


async def test_connection_that_waits_between_requests_is_kept() -> None:
    """The head's time does not run while nothing is asked, nor while a body comes."""
    async with connection() as (reader, writer):
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
            await asyncio.sleep(0.08)
            writer.write(b"cd")
            assert b"HTTP/1.1 200 OK\r\n" == await reader.readline()
            await reader.readuntil(b"\r\n\r\n")
            assert b"ok" == await reader.readexactly(2)
            await asyncio.sleep(0.08)
