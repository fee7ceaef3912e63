"""The two paths that take documents, as a plain ASGI callable below Starlette's routing: the reference form.

Takes   any request to ``/v1/reports`` and ``/v1/events``, whichever way its body comes.
Gives   200 and a receipt once the document is on disk; else a status and an error body, never 500.
Never   logs or keeps who sent what; never decides about a document (``intake.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from tallypost_schema import limits as shared
from tallypost_schema import receipts

from ..errors import Declined, Refused
from .accept import Kind
from .answers import STORED_HEADERS, error_body, error_headers
from .body import Coding
from .head import KINDS, head_of
from .intake import Intake, too_large

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_CLOSE = (b"connection", b"close")
_STORED_START: Message = {"type": "http.response.start", "status": 200, "headers": STORED_HEADERS}
_STORED_LAST_START: Message = {**_STORED_START, "headers": [*STORED_HEADERS, _CLOSE]}


class HungUp(Exception):
    """The sender went away within its request; there is nobody to answer."""


class Ingest:
    """Answers requests. One object serves all of an event loop."""

    def __init__(self, intake: Intake, *, new_id: Callable[[], str], body_seconds_max: float) -> None:
        self._intake, self._new_id, self._body_seconds_max = intake, new_id, body_seconds_max
        self._admission, self._metrics = intake.admission, intake.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = _Request(scope, receive, self._new_id)
        try:
            sha256 = await self._store_or_decline(request)
        except Declined as declined:
            await self._decline(declined, request, send)
        except HungUp:
            self._metrics.hang_ups.add()
        else:
            start = _STORED_START if self._admission.keeps_connections else _STORED_LAST_START
            await self._send(send, start, receipts.encode_receipt(sha256))

    async def _store_or_decline(self, request: _Request) -> str:
        """As `_store`, with every other outcome made one that has an answer."""
        try:
            return await self._store(request)
        except (Declined, HungUp):
            raise
        except asyncio.CancelledError:
            if self._admission.state != "stopping":
                raise
            # The time to drain is over. Who is cut off hears why; it is not waited for any longer.
            request.cut_off = True
            raise self._intake.cut_off() from None
        except Exception as failure:
            raise self._intake.unforeseen(failure, request.request_id) from failure

    async def _send(self, send: Send, start: Message, body: bytes) -> None:
        try:
            await send(start)
            await send({"type": "http.response.body", "body": body})
        except (OSError, RuntimeError):  # What transports raise once the other side is gone.
            self._metrics.hang_ups.add()

    async def _store(self, request: _Request) -> str:
        """The hash of the document, once it is on disk."""
        self._intake.enter(request.peer, request.headers)
        try:
            if request.method != "POST":
                raise Refused("method_not_allowed", f"this path takes POST, not {request.method[:20]!a}")
            coding = request.head.coding()
            body = await self._body(request)
        except BaseException:
            self._admission.leave()
            raise
        posted = _Posted(body, request.kind, coding, request.request_id)
        self._intake.take(posted)
        outcome = await posted.told
        if isinstance(outcome, Declined):
            raise outcome
        return outcome

    async def _body(self, request: _Request) -> bytes:
        """The whole body, within its size and its time."""
        if request.head.announced_bytes > shared.wire_bytes_max:
            raise too_large()
        with _Deadline(self._body_seconds_max):
            body = await request.more()
            if request.whole():  # Nearly always.
                return body
            held = 0
            pieces, total = [body], len(body)
            try:
                while not request.whole():
                    if total > shared.wire_bytes_max:
                        raise too_large()
                    self._admission.hold(total - held)
                    held = total
                    piece = await request.more()
                    pieces.append(piece)
                    total += len(piece)
            finally:
                self._admission.release(held)
            return b"".join(pieces)

    async def _decline(self, declined: Declined, request: _Request, send: Send) -> None:
        self._metrics.declined.add(declined.code)
        keep_alive = (
            declined.code != "too_slow" and await self._read_rest(request) and self._admission.keeps_connections
        )
        if request.hung_up:
            self._metrics.hang_ups.add()
            return
        body = error_body(declined)
        headers = error_headers(declined, body, request.request_id)
        if declined.code == "method_not_allowed":
            headers.append((b"allow", b"POST"))
        if not keep_alive:
            headers.append(_CLOSE)
        start: Message = {"type": "http.response.start", "status": declined.status, "headers": headers}
        await self._send(send, start, b"" if request.method == "HEAD" else body)

    async def _read_rest(self, request: _Request) -> bool:
        """Whether the body has been read to its end, so that the connection can be used again.

        A sender that is still writing would not see the answer: it is let write, up to one more limit.
        """
        if request.whole():
            return True
        if request.cut_off:
            return False
        if request.head.expects_continue and not request.read_bytes:
            return False  # It waits for a word before it sends, and this answer is the word.
        try:
            with _Deadline(self._body_seconds_max):
                while not request.whole() and request.read_bytes <= 2 * shared.wire_bytes_max:
                    await request.more()
        except (HungUp, Refused):
            return False
        return request.whole()


class _Request:
    """What of a request matters here: some of its head, and its body piece by piece."""

    __slots__ = (
        "_ended",
        "_receive",
        "cut_off",
        "head",
        "headers",
        "hung_up",
        "kind",
        "method",
        "peer",
        "read_bytes",
        "request_id",
    )

    def __init__(self, scope: Scope, receive: Receive, new_id: Callable[[], str]) -> None:
        self._receive = receive
        self.method: str = scope["method"]
        self.kind = KINDS[scope["path"]]
        self.headers = scope["headers"]
        self.peer: str = scope["client"][0] if scope.get("client") else ""
        self.head = head_of(self.headers)
        self.request_id = self.head.request_id or new_id()
        self.hung_up = self.cut_off = self._ended = False
        self.read_bytes = 0

    def whole(self) -> bool:
        """Whether the body has been read to its end."""
        return self._ended

    async def more(self) -> bytes:
        """The next piece of the body.

        Raises:
            HungUp: the sender went away.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            self.hung_up = True
            raise HungUp
        self._ended = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        self.read_bytes += len(piece)
        return piece


class _Posted:
    """A request whose body is whole, and where its outcome will be."""

    def __init__(self, body: bytes, kind: Kind, coding: Coding, request_id: str) -> None:
        self.body, self.kind, self.coding, self.request_id = body, kind, coding, request_id
        self.told: asyncio.Future[str | Declined] = asyncio.get_running_loop().create_future()

    def answer(self, outcome: str | Declined) -> None:
        """Wake up who waits for the outcome, if somebody still does."""
        if not self.told.done():
            self.told.set_result(outcome)


class _Deadline:
    """Ends what its task waits for inside the block, after so many seconds.

    ``asyncio.wait_for`` would make a task for each request, and ``asyncio.timeout`` is not in Python 3.10.
    """

    __slots__ = ("_handle", "_passed", "_seconds", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds, self._passed = seconds, False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._end)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._handle.cancel()
        if self._passed and kind is not None and issubclass(kind, asyncio.CancelledError):
            uncancel = getattr(self._task, "uncancel", None)  # Since Python 3.11.
            if uncancel is not None:
                uncancel()
            raise Refused("too_slow", f"the body did not come within {self._seconds:g} s; send it again") from None

    def _end(self) -> None:
        self._passed = True
        if self._task is not None:
            self._task.cancel()
