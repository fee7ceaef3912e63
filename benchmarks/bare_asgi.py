"""The peers of ingestion: ASGI applications that read the body and answer 200, one of them after a sync of its own.

Takes   requests, through uvicorn with uvloop and httptools.
Gives   an answer as long as a receipt.
Never   looks at the body: this is what the framework alone can do, the rate that no server on it exceeds.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

RECEIPT = b'{"stored":"' + 64 * b"0" + b'"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(RECEIPT)).encode())]
# Where `sync_each` appends; it is opened when the server starts, as ours has its file open.
FILE_VARIABLE = "BENCHMARKS_FILE"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_path = os.environ.get(FILE_VARIABLE)
_file = os.open(_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if _path else -1


async def keep_nothing(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await _body(receive)
    await _answer(send)


async def sync_each(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Durable the simple way: each document is written and synced before its answer, one at a time."""
    assert scope["type"] == "http"
    body = await _body(receive)
    if body:
        os.write(_file, body + b"\n")
        getattr(os, "fdatasync", os.fsync)(_file)
    await _answer(send)


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    return body


async def _answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": RECEIPT})
