"""The two paths that take documents, as a plain ASGI callable below Starlette's routing.

Takes   ``POST /v1/reports`` and ``POST /v1/events``.
Gives   200 and a receipt once the document is on disk; else a status and an error body, never 500.
Never   logs or keeps who sent what; never answers before `GroupCommit.append` says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, TypeAlias

from tallypost_schema import limits as shared
from tallypost_schema import receipts
from tallypost_schema.outcomes import ErrorCode

from .. import limits
from ..clock import Clock
from ..errors import CommitFailed, Declined, NotTaking, Refused, place_of
from ..metrics import Metrics
from ..segments.group_commit import GroupCommit
from .accept import Accepted, Kind, accept
from .admission import Admission
from .applications import Applications
from .body import Coding, Decoder
from .quarantine import Quarantine

_log = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

KINDS: dict[str, Kind] = {"/v1/reports": "report", "/v1/events": "events"}
_CODINGS: dict[bytes, Coding] = {b"": "identity", b"identity": "identity", b"zstd": "zstd", b"gzip": "gzip"}
_JSON = (b"content-type", b"application/json")
# A receipt is always as long as any other.
_STORED: Headers = [_JSON, (b"content-length", b"%d" % len(receipts.encode_receipt("0" * 64)))]
_STORED_START: Message = {"type": "http.response.start", "status": 200, "headers": _STORED}
# What is kept to find out why it was refused: what the sender would call a fault of the document.
_QUARANTINED: frozenset[ErrorCode] = frozenset({"malformed", "too_large", "invalid", "too_old", "from_the_future"})


class HungUp(Exception):
    """The sender went away within its request; there is nobody to answer."""


class Ingest:
    """Takes documents. One object serves all requests of an event loop."""

    def __init__(
        self,
        *,
        commit: GroupCommit,
        admission: Admission,
        applications: Applications,
        quarantine: Quarantine,
        clock: Clock,
        metrics: Metrics,
        in_thread: Callable[[Callable[[], Accepted]], Awaitable[Accepted]],
        body_seconds_max: float,
    ) -> None:
        self._commit, self._admission, self._applications = commit, admission, applications
        self._quarantine, self._clock, self._metrics = quarantine, clock, metrics
        self._in_thread, self._body_seconds_max = in_thread, body_seconds_max
        self._decoder = Decoder()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = _Request(scope, receive)
        try:
            self._admission.enter()
            try:
                sha256 = await self._store_or_decline(request)
            finally:
                self._admission.leave()
        except Declined as declined:
            await self._decline(declined, request, send)
        except HungUp:
            self._metrics.hang_ups.add()
        else:
            self._metrics.stored.add(request.kind)
            await self._send(send, _STORED_START, receipts.encode_receipt(sha256))

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
            raise NotTaking("stopping", "the server stops before the document was stored; send again") from None
        except Exception as failure:
            # Ours, whatever it is: a client deletes what gets a 4xx and a proxy may hide a 500.
            self._metrics.unexpected.add()
            _log.error("a request met what nobody foresaw: %s", place_of(failure))
            raise CommitFailed(failure) from failure

    async def _send(self, send: Send, start: Message, body: bytes) -> None:
        try:
            await send(start)
            await send({"type": "http.response.body", "body": body})
        except (OSError, RuntimeError):  # What transports raise once the other side is gone.
            self._metrics.hang_ups.add()

    async def _store(self, request: _Request) -> str:
        """The hash of the document, once it is on disk."""
        if request.method != "POST":
            raise Refused("method_not_allowed", f"this path takes POST, not {request.method[:20]!a}")
        coding = request.coding()
        body = await self._body(request)
        try:
            document = self._decoder.decode(body, coding)
            take = partial(
                accept,
                document,
                request.kind,
                find=self._applications.find,
                received=self._clock.now(),
            )
            accepted = take() if len(document) <= limits.inline_bytes_max else await self._take_large(take, document)
        except Refused as refused:
            if refused.code in _QUARANTINED:
                self._quarantine.keep_refused(refused, path=request.path, encoding=coding, body=body)
            raise
        await self._commit.append(accepted.line)
        for what, count in accepted.dropped.items():
            self._metrics.dropped.add(what, by=count)
        return accepted.sha256

    async def _take_large(self, take: Callable[[], Accepted], document: bytes) -> Accepted:
        self._admission.hold(len(document))
        try:
            return await self._in_thread(take)
        finally:
            self._admission.release(len(document))

    async def _body(self, request: _Request) -> bytes:
        """The whole body, within its size and its time."""
        if request.announced_bytes > shared.wire_bytes_max:
            raise _too_large()
        with _Deadline(self._body_seconds_max):
            body = await request.more()
            if request.whole():  # Nearly always.
                if len(body) > shared.wire_bytes_max:
                    raise _too_large()
                return body
            held = 0
            pieces, total = [body], len(body)
            try:
                while not request.whole():
                    if total > shared.wire_bytes_max:
                        raise _too_large()
                    self._admission.hold(total - held)
                    held = total
                    piece = await request.more()
                    pieces.append(piece)
                    total += len(piece)
            finally:
                self._admission.release(held)
            if total > shared.wire_bytes_max:
                raise _too_large()
            return b"".join(pieces)

    async def _decline(self, declined: Declined, request: _Request, send: Send) -> None:
        self._metrics.declined.add(declined.code)
        keep_alive = declined.code != "too_slow" and await self._read_rest(request)
        if request.hung_up:
            self._metrics.hang_ups.add()
            return
        body = receipts.encode_error(declined.code, declined.message, retry=declined.retry)
        headers = error_headers(declined, body)
        if declined.code == "method_not_allowed":
            headers.append((b"allow", b"POST"))
        if not keep_alive:
            headers.append((b"connection", b"close"))
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
        if request.expects_continue and not request.read_bytes:
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
        "_coding",
        "_ended",
        "_receive",
        "_type",
        "announced_bytes",
        "cut_off",
        "expects_continue",
        "hung_up",
        "kind",
        "method",
        "path",
        "read_bytes",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.kind = KINDS[self.path]
        self.hung_up = self.cut_off = self.expects_continue = self._ended = False
        self.read_bytes = self.announced_bytes = 0
        self._type: bytes | None = None
        self._coding = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                self._type = value
            elif name == b"content-encoding":
                self._coding = value if not self._coding else self._coding + b"," + value
            elif name == b"content-length":
                self.announced_bytes = int(value) if value.isdigit() else 0
            elif name == b"expect":
                self.expects_continue = value.lower() == b"100-continue"

    def coding(self) -> Coding:
        """The coding of the body.

        Raises:
            Refused: ``unsupported_type``, ``unsupported_encoding``.
        """
        if self._type != b"application/json" and not _is_json(self._type):
            given = "missing" if self._type is None else ascii(self._type.decode("latin-1"))[:100]
            raise Refused("unsupported_type", f"the Content-Type is {given}, allowed is application/json")
        coding = _CODINGS.get(self._coding.strip().lower())
        if coding is None:
            given = ascii(self._coding.decode("latin-1"))[:100]
            raise Refused(
                "unsupported_encoding", f"the Content-Encoding is {given}, allowed are zstd, gzip, identity or none"
            )
        return coding

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


def error_headers(declined: Declined, body: bytes) -> Headers:
    """The headers of an error's answer."""
    headers: Headers = [_JSON, (b"content-length", b"%d" % len(body))]
    if declined.status == 503:
        headers.append((b"retry-after", b"%d" % limits.retry_after_seconds[declined.code]))
    return headers


def _is_json(value: bytes | None) -> bool:
    """``application/json``, in any case, with no parameter but ``charset=utf-8``."""
    if value is None:
        return False
    kind, *parameters = (part.strip().lower() for part in value.split(b";"))
    return kind == b"application/json" and all(
        part in (b"", b"charset=utf-8", b'charset="utf-8"') for part in parameters
    )


def _too_large() -> Refused:
    return Refused("too_large", f"the body is over the {shared.wire_bytes_max} bytes allowed on the wire")
