"""The hot path: a document that comes in one piece is taken where its connection is read, without an ASGI cycle.

Takes   ``POST /v1/reports`` and ``/v1/events`` whose head and body are whole at once, on a connection that is idle.
Gives   the same bytes as the reference form (``endpoint.py``); all other requests are left to it.
Never   decides about a document (``intake.py``), and never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tallypost_schema import limits as shared

from .. import limits
from ..errors import Declined
from .accept import Kind
from .answers import Speller
from .body import Coding
from .head import KINDS, head_of
from .intake import Intake, Posted
from .known_heads import KnownHead, KnownHeads
from .protocol import BoundedHead

_KINDS: dict[bytes, Kind] = {path.encode(): kind for path, kind in KINDS.items()}
# It leans on how uvicorn's protocol calls itself; these are the versions whose inside was read.
_KNOWN_UVICORN = ["0", "54"]


def is_known(version: str = uvicorn.__version__) -> bool:
    """Whether this version of uvicorn is one that the hot path was written for."""
    return version.split(".")[:2] == _KNOWN_UVICORN


def hot_path(intake: Intake, *, new_id: Callable[[], str]) -> type[BoundedHead]:
    """The protocol for uvicorn that takes documents into `intake`; `new_id` makes ids of requests."""
    shared_by_all = {"intake": intake, "speller": Speller(), "known": KnownHeads(), "new_id": staticmethod(new_id)}
    return type("HotPath", (_HotPath,), shared_by_all)


class _Ready:
    """What uvicorn's cycle waits with; here nobody waits."""

    def set(self) -> None:
        """Nothing."""


class _Cycle:
    """A request on its way: to the intake what is posted, to uvicorn's protocol what it looks at of its own cycle."""

    body: bytes | bytearray = b""
    more_body = True
    disconnected = response_complete = False
    message_event = _Ready()

    def __init__(self, protocol: _HotPath, kind: Kind, coding: Coding, given_id: str) -> None:
        """`given_id` is the proxy's id of the request, empty if it gave none."""
        self._protocol, self.kind, self.coding, self._given_id = protocol, kind, coding, given_id
        self.keep_alive = True

    @property
    def request_id(self) -> str:
        """How logs and answers name the request; an id of our own is made for one that somebody asks for."""
        if not self._given_id:
            self._given_id = self._protocol.new_id()
        return self._given_id

    def answer(self, outcome: str | Declined) -> None:
        """Write the answer, if there is still somebody who reads it."""
        if self.response_complete:
            return  # It was cut off before.
        protocol, intake = self._protocol, self._protocol.intake
        if isinstance(outcome, Declined):
            intake.metrics.declined.add(outcome.code)
        self.response_complete = True
        self.body = b""  # The connection has this until its next request.
        if not intake.admission.keeps_connections:
            self.keep_alive = False
        transport = protocol.transport
        if self.disconnected or transport.is_closing():
            intake.metrics.hang_ups.add()
            return
        common = protocol.server_state.default_headers
        if isinstance(outcome, Declined):
            told = protocol.speller.declined(outcome, common, request_id=self.request_id, keep_alive=self.keep_alive)
        else:
            told = protocol.speller.stored(outcome, common, keep_alive=self.keep_alive)
        transport.write(told)
        if self.keep_alive and not protocol.pipeline:
            protocol.rest()
            return
        if not self.keep_alive:
            transport.close()
        protocol.on_response_complete()


class _HotPath(BoundedHead):
    """Of each request either all happens here, or nothing does."""

    intake: Intake
    speller: Speller
    known: KnownHeads
    new_id: Callable[[], str]

    _hot: _Cycle | None = None
    """The request whose head was taken here, until its body is whole, or turns out not to come at once."""
    _read: KnownHead | None = None
    """The head of the request that was the last to be taken whole from the present piece."""
    _body_bytes = 0
    """How long its body was."""
    _between = True
    """Whether the parser has ended one request, or none yet, and knows nothing of the next."""
    _answered_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Some bytes. A body that has not come with its head comes by the reference form."""
        between = self._between
        if between and self._take_known(data):
            return
        self._between, self._read = False, None
        super().data_received(data)
        hot = self._hot
        if hot is None:
            self._remember(data, began_here=between)
            return
        self._hot = None
        if not self.transport.is_closing():
            self._leave_to_reference(hot)

    def _take_known(self, data: bytes) -> bool:
        """Take a request without reading its head, if that is known and the body is all that follows it."""
        end = data.find(b"\r\n\r\n") + 4
        found = self.known.find(data[:end])
        if found is None or len(data) != end + found.body_bytes or self.flow.write_paused:
            return False
        cycle = cast("RequestResponseCycle | _Cycle | None", self.cycle)  # None before the first request.
        if not (cycle is None or cycle.response_complete):
            return False
        if self._head_timer is not None:
            self._unset_head_timer()
        self._enter(_Cycle(self, found.kind, found.coding, found.request_id), data[end:], found.headers)
        return True

    def _remember(self, data: bytes, *, began_here: bool) -> None:
        """Know a head again, if `data` was one request from its first byte to its last.

        Any parser that is between two requests would read the same from the same bytes.
        """
        if self._read is None or self._in_head:
            return
        self._between = True
        end = data.find(b"\r\n\r\n") + 4
        if began_here and len(data) == end + self._body_bytes:
            self.known.add(data[:end], self._read)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._read = None  # Something follows what was whole.
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has ended; here it is decided whose request it is."""
        cycle = cast("RequestResponseCycle | _Cycle | None", self.cycle)  # None before the first request.
        kind = _KINDS.get(self.url)
        if kind is None or not (cycle is None or cycle.response_complete) or self.parser.get_method() != b"POST":
            super().on_headers_complete()
            return
        head = head_of(self.headers)
        if (
            not 0 < head.announced_bytes <= shared.wire_bytes_max
            or head.expects_continue
            or self.parser.should_upgrade()
            or self.flow.write_paused  # Who does not read its answers is not given more of them.
            or not head.is_taken
        ):
            super().on_headers_complete()
            return
        self._in_head = False
        self._unset_keepalive_if_required()  # Set by the answer to a request that came in the same piece.
        keep_alive = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        self._hot = hot = _Cycle(self, kind, head.coding(), head.request_id)
        hot.body, hot.keep_alive = bytearray(), keep_alive
        self.cycle = cast(RequestResponseCycle, hot)

    def on_message_complete(self) -> None:
        """A body has ended."""
        hot = self._hot
        if hot is None:
            super().on_message_complete()
            return
        self._hot = None
        body = bytes(hot.body)
        if hot.keep_alive:
            self._read, self._body_bytes = KnownHead(hot.kind, hot.coding, self.headers), len(body)
        self._enter(hot, body, self.headers)

    def _enter(self, hot: _Cycle, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin a request that is whole."""
        self.cycle = cast(RequestResponseCycle, hot)
        hot.more_body = False
        hot.body = body
        try:
            self.intake.enter(self.client[0] if self.client else "", headers)
        except Declined as declined:
            hot.answer(declined)
            return
        except Exception as failure:  # noqa: BLE001  Raised from here it would be taken for bytes that are no HTTP.
            hot.answer(self.intake.unforeseen(failure, hot.request_id))
            return
        self.intake.take(cast(Posted, hot))  # Its body is whole, and bytes.

    def shutdown(self) -> None:
        """The server stops: what is under way has the time to drain."""
        super().shutdown()
        cycle = cast("RequestResponseCycle | _Cycle | None", self.cycle)
        if isinstance(cycle, _Cycle) and not cycle.response_complete:
            self.loop.call_later(limits.drain_seconds_max, cycle.answer, self.intake.cut_off())

    def rest(self) -> None:
        """An answer is written, and the connection waits for the next request."""
        self.server_state.total_requests += 1
        if self.flow.read_paused:
            self.flow.resume_reading()
        # One timer for many answers, set anew only once it has run out: setting one costs as much as an answer.
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

    def _end_if_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if not self.cycle.response_complete:
            return  # The answer will set it.
        rest = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self.timeout_keep_alive_task = self.loop.call_later(rest, self._end_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def _leave_to_reference(self, hot: _Cycle) -> None:
        hot.response_complete = True  # So that uvicorn begins the next cycle at once: this one has not begun.
        super().on_headers_complete()
        if hot.body:
            super().on_body(bytes(hot.body))
