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
from .intake import Intake
from .protocol import BoundedHead

_KINDS: dict[bytes, Kind] = {path.encode(): kind for path, kind in KINDS.items()}
# It leans on how uvicorn's protocol calls itself; these are the versions whose inside was read.
_KNOWN_UVICORN = ["0", "54"]


def is_known(version: str = uvicorn.__version__) -> bool:
    """Whether this version of uvicorn is one that the hot path was written for."""
    return version.split(".")[:2] == _KNOWN_UVICORN


def hot_path(intake: Intake, *, new_id: Callable[[], str]) -> type[BoundedHead]:
    """The protocol for uvicorn that takes documents into `intake`; `new_id` makes ids of requests."""
    return type("HotPath", (_HotPath,), {"intake": intake, "speller": Speller(), "new_id": staticmethod(new_id)})


class _Ready:
    """What uvicorn's cycle waits with; here nobody waits."""

    def set(self) -> None:
        """Nothing."""


class _Cycle:
    """A request on its way: what of uvicorn's own cycle the protocol looks at."""

    __slots__ = (
        "body",
        "coding",
        "disconnected",
        "keep_alive",
        "kind",
        "message_event",
        "more_body",
        "request_id",
        "response_complete",
    )
    _ready = _Ready()

    def __init__(self, kind: Kind, coding: Coding, request_id: str, *, keep_alive: bool) -> None:
        self.kind, self.coding, self.request_id, self.keep_alive = kind, coding, request_id, keep_alive
        self.body = bytearray()
        self.more_body = True
        self.disconnected = self.response_complete = False
        self.message_event = self._ready


class _HotPath(BoundedHead):
    """Of each request either all happens here, or nothing does."""

    intake: Intake
    speller: Speller
    new_id: Callable[[], str]

    _hot: _Cycle | None = None
    """The request whose head was taken here, until its body is whole, or turns out not to come at once."""

    def data_received(self, data: bytes) -> None:
        """Some bytes. A body that has not come with its head comes by the reference form."""
        super().data_received(data)
        hot = self._hot
        if hot is not None:
            self._hot = None
            if not self.transport.is_closing():
                self._leave_to_reference(hot)

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
        self._hot = _Cycle(kind, head.coding(), head.request_id or self.new_id(), keep_alive=keep_alive)
        self.cycle = cast(RequestResponseCycle, self._hot)

    def on_message_complete(self) -> None:
        """A body has ended."""
        hot = self._hot
        if hot is None:
            super().on_message_complete()
            return
        self._hot = None
        hot.more_body = False
        try:
            self.intake.enter(self.client[0] if self.client else "", self.headers)
        except Declined as declined:
            self._answer(hot, declined)
            return
        except Exception as failure:  # noqa: BLE001  Raised from here it would be taken for bytes that are no HTTP.
            self._answer(hot, self.intake.unforeseen(failure, hot.request_id))
            return
        self.intake.take(
            bytes(hot.body), hot.kind, hot.coding, hot.request_id, lambda outcome: self._answer(hot, outcome)
        )

    def shutdown(self) -> None:
        """The server stops: what is under way has the time to drain."""
        super().shutdown()
        cycle = cast("RequestResponseCycle | _Cycle | None", self.cycle)
        if isinstance(cycle, _Cycle) and not cycle.response_complete:
            self.loop.call_later(limits.drain_seconds_max, self._answer, cycle, self.intake.cut_off())

    def _answer(self, cycle: _Cycle, outcome: str | Declined) -> None:
        if cycle.response_complete:
            return  # It was cut off before.
        if isinstance(outcome, Declined):
            self.intake.metrics.declined.add(outcome.code)
        cycle.response_complete = True
        cycle.keep_alive = cycle.keep_alive and self.intake.admission.keeps_connections
        if cycle.disconnected or self.transport.is_closing():
            self.intake.metrics.hang_ups.add()
            return
        common = self.server_state.default_headers
        if isinstance(outcome, Declined):
            self.transport.write(
                self.speller.declined(outcome, common, request_id=cycle.request_id, keep_alive=cycle.keep_alive)
            )
        else:
            self.transport.write(self.speller.stored(outcome, common, keep_alive=cycle.keep_alive))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _leave_to_reference(self, hot: _Cycle) -> None:
        hot.response_complete = True  # So that uvicorn begins the next cycle at once: this one has not begun.
        super().on_headers_complete()
        if hot.body:
            super().on_body(bytes(hot.body))
