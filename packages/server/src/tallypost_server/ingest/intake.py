"""The intake: what becomes of a request whose body is whole, decided once for both forms of the hot path.

Takes   a body with its kind and coding, and whom to answer.
Gives   a call, in the event loop: the document's hash once it is on disk, or why there is none.
Never   knows how a request came or how its answer is written (``endpoint.py``, ``hot_path.py``).
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, TypeAlias

from tallypost_schema import limits as shared
from tallypost_schema.outcomes import ErrorCode

from .. import limits
from ..clock import Clock
from ..erased import Erased
from ..errors import CommitFailed, Declined, NotTaking, Refused, place_of
from ..metrics import Metrics
from ..segments.group_commit import GroupCommit
from .accept import Accepted, Kind, accept
from .admission import Admission
from .applications import Applications
from .body import Coding, Decoder
from .head import PATHS
from .quarantine import Quarantine
from .senders import Senders

_log = logging.getLogger(__name__)

# Called once with the hash of a document that is on disk, or with why there is none.
Answer: TypeAlias = Callable[["str | Declined"], None]
# What is kept to find out why it was refused: what the sender would call a fault of the document.
_QUARANTINED: frozenset[ErrorCode] = frozenset({"malformed", "too_large", "invalid", "too_old", "from_the_future"})


class _Request(NamedTuple):
    """What is taken: a whole body, and whom to answer."""

    body: bytes
    kind: Kind
    coding: Coding
    request_id: str
    answer: Answer


class Intake:
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
        in_thread: Callable[[Callable[[], Accepted]], asyncio.Future[Accepted]],
        senders: Senders | None,
        erased: Erased,
    ) -> None:
        """`senders` counts who sends how much, if that is bounded."""
        self._commit, self._applications, self._quarantine = commit, applications, quarantine
        self._clock, self._in_thread, self._senders, self._erased = clock, in_thread, senders, erased
        self.admission, self.metrics = admission, metrics
        self._decoder = Decoder()
        self._turn: list[_Request] = []

    def enter(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin a request from `peer`; `take` or the admission's `leave` ends it.

        Raises:
            Declined: the request has not begun.
        """
        if self._senders is not None:
            self._senders.admit(peer, headers)
        self.admission.enter()

    def take(self, body: bytes, kind: Kind, coding: Coding, request_id: str, answer: Answer) -> None:
        """Have `answer` called, later. The request has entered the admission; here it leaves, in any case."""
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._turn.append(_Request(body, kind, coding, request_id, answer))

    def _take_turn(self) -> None:
        """Take all that came in one turn of the loop, step by step.

        A step that is done for one document after the other finds its code in the processor's cache; document by
        document, with the network's in between, the same takes a quarter longer.
        """
        turn, self._turn = self._turn, []
        received = self._clock.now()  # All of it was there before.
        decoded: list[tuple[_Request, bytes]] = []
        size = 0
        for request in turn:
            document = self._decoded(request)
            if document is not None:
                decoded.append((request, document))
                size += len(document)
                if size > limits.turn_bytes_max:
                    self._append_all(decoded, received)
                    decoded, size = [], 0
        self._append_all(decoded, received)
        self._commit.hand_over()

    def _append_all(self, decoded: list[tuple[_Request, bytes]], received: datetime.datetime) -> None:
        accepted = [(request, self._accepted(request, document, received)) for request, document in decoded]
        for request, one in accepted:
            if one is not None:
                self._append(request, one)

    def unforeseen(self, failure: Exception, request_id: str) -> CommitFailed:
        """What to answer when nobody foresaw it: a client deletes what gets a 4xx and a proxy may hide a 500."""
        self.metrics.unexpected.add()
        _log.error("request %s met what nobody foresaw: %s", request_id, place_of(failure))
        return CommitFailed(failure)

    def cut_off(self) -> NotTaking:
        """What to answer when the time to drain is over: nobody knows whether the document is on disk."""
        return NotTaking("stopping", "the server stops before the document was stored; send again")

    def _decoded(self, request: _Request) -> bytes | None:
        try:
            if len(request.body) > shared.wire_bytes_max:
                raise too_large()
            return self._decoder.decode(request.body, request.coding)
        except Exception as failure:  # noqa: BLE001  Whatever it is, the sender hears something.
            self._decline(request, failure)
        return None

    def _accepted(self, request: _Request, document: bytes, received: datetime.datetime) -> Accepted | None:
        """None also for what will be appended later."""
        try:
            if len(document) <= limits.inline_bytes_max:
                return accept(document, request.kind, find=self._applications.find, received=received)
            take = partial(accept, document, request.kind, find=self._applications.find, received=received)
            self.admission.hold(len(document))
            # Others are answered meanwhile.
            self._in_thread(take).add_done_callback(partial(self._append_large, len(document), request))
        except Exception as failure:  # noqa: BLE001  As in `_decoded`.
            self._decline(request, failure)
        return None

    def _append_large(self, size: int, request: _Request, done: asyncio.Future[Accepted]) -> None:
        self.admission.release(size)
        try:
            accepted = done.result()
        except Exception as failure:  # noqa: BLE001  As in `_decoded`.
            self._decline(request, failure)
        else:
            self._append(request, accepted)
            self._commit.hand_over()

    def _append(self, request: _Request, accepted: Accepted) -> None:
        if self._erased.has(accepted.stream):
            # Its sender has it stored, and sends it no more.
            self.metrics.erased.add("accept")
            self._tell(request, accepted.sha256)
            return
        try:
            self._commit.append(accepted.line, partial(self._answer, request, accepted))
        except Exception as failure:  # noqa: BLE001  As in `_decoded`.
            self._decline(request, failure)

    def _answer(self, request: _Request, accepted: Accepted, failure: Declined | None) -> None:
        if failure is not None:
            self._tell(request, failure)
            return
        self.metrics.stored.add(request.kind)
        for what, count in accepted.dropped.items():
            self.metrics.dropped.add(what, by=count)
        self._tell(request, accepted.sha256)

    def _decline(self, request: _Request, failure: Exception) -> None:
        try:
            self._keep_refused(request, failure)
        except Exception as unforeseen:  # noqa: BLE001  The sender hears its word all the same.
            self.unforeseen(unforeseen, request.request_id)
        told = failure if isinstance(failure, Declined) else self.unforeseen(failure, request.request_id)
        self._tell(request, told)

    def _keep_refused(self, request: _Request, failure: Exception) -> None:
        if isinstance(failure, Refused) and failure.code in _QUARANTINED:
            self._quarantine.keep_refused(failure, path=PATHS[request.kind], encoding=request.coding, body=request.body)

    def _tell(self, request: _Request, told: str | Declined) -> None:
        self.admission.leave()
        try:
            request.answer(told)
        except Exception as failure:  # noqa: BLE001  Whoever it was, the others of the turn hear their word.
            self.unforeseen(failure, request.request_id)


def too_large() -> Refused:
    """A body over what a client may post, whatever is in it."""
    return Refused("too_large", f"the body is over the {shared.wire_bytes_max} bytes allowed on the wire")
