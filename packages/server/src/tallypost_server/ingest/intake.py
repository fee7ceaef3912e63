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
from typing import Protocol

from tallypost_schema import limits as shared
from tallypost_schema.outcomes import ErrorCode

from .. import limits
from ..clock import Clock
from ..erased import Erased
from ..errors import CommitFailed, Declined, NotTaking, Refused, TooMuchWaiting, place_of
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

# What is kept to find out why it was refused: what the sender would call a fault of the document.
_QUARANTINED: frozenset[ErrorCode] = frozenset({"malformed", "too_large", "invalid", "too_old", "from_the_future"})


class Posted(Protocol):
    """A request whose body is whole, and whom to answer."""

    body: bytes
    kind: Kind
    coding: Coding

    @property
    def request_id(self) -> str:
        """How logs and answers name it."""
        ...

    def answer(self, outcome: str | Declined) -> None:
        """Called once with the hash of its document, which is on disk, or with why there is none."""
        ...


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
        self._turn: list[Posted] = []

    def enter(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin a request from `peer`; `take` or the admission's `leave` ends it.

        Raises:
            Declined: the request has not begun.
        """
        if self._senders is not None:
            self._senders.admit(peer, headers)
        self.admission.enter()

    def take(self, posted: Posted) -> None:
        """Have it answered, later. The request has entered the admission; here it leaves, in any case."""
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._turn.append(posted)

    def _take_turn(self) -> None:
        """Take all that came in one turn of the loop, step by step.

        A step that is done for one document after the other finds its code in the processor's cache; document by
        document, with the network's in between, the same takes a quarter longer.
        """
        turn, self._turn = self._turn, []
        received = self._clock.now()  # All of it was there before.
        decoded: list[tuple[Posted, bytes]] = []
        size = 0
        for posted in turn:
            try:
                if len(posted.body) > shared.wire_bytes_max:
                    raise too_large()
                document = self._decoder.decode(posted.body, posted.coding)
            except Exception as failure:  # noqa: BLE001  Whatever it is, the sender hears something.
                self._decline(posted, failure)
                continue
            decoded.append((posted, document))
            size += len(document)
            if size > limits.turn_bytes_max:
                self._accept_all(decoded, received)
                decoded, size = [], 0
        self._accept_all(decoded, received)

    def _accept_all(self, decoded: list[tuple[Posted, bytes]], received: datetime.datetime) -> None:
        find = self._applications.find
        accepted: list[tuple[Posted, Accepted]] = []
        for posted, document in decoded:
            try:
                if len(document) > limits.inline_bytes_max:
                    self._accept_large(posted, document, received)
                else:
                    accepted.append((posted, accept(document, posted.kind, find=find, received=received)))
            except Exception as failure:  # noqa: BLE001, PERF203  As in `_take_turn`; and it costs nothing since 3.11.
                self._decline(posted, failure)
        self._store(accepted)

    def _accept_large(self, posted: Posted, document: bytes, received: datetime.datetime) -> None:
        """Accept a document in a thread: others are answered meanwhile."""
        take = partial(accept, document, posted.kind, find=self._applications.find, received=received)
        self.admission.hold(len(document))
        self._in_thread(take).add_done_callback(partial(self._store_large, len(document), posted))

    def _store_large(self, size: int, posted: Posted, done: asyncio.Future[Accepted]) -> None:
        self.admission.release(size)
        try:
            accepted = done.result()
        except Exception as failure:  # noqa: BLE001  As in `_take_turn`.
            self._decline(posted, failure)
        else:
            self._store([(posted, accepted)])

    def _store(self, accepted: list[tuple[Posted, Accepted]]) -> None:
        """Have documents committed together, but for those of erased streams and those for which there is no room."""
        waiting_bytes, allowed = self._commit.waiting_bytes, self._commit.waiting_bytes_max
        lines: list[bytes] = []
        stored: list[tuple[Posted, Accepted]] = []
        erased = self._erased if self._erased.any else None
        for each in accepted:
            posted, document = each
            if erased is not None and erased.has(document.stream):
                # Its sender has it stored, and sends it no more.
                self.metrics.erased.add("accept")
                self._tell(posted, document.sha256)
                continue
            size = len(document.line)
            if waiting_bytes + size > allowed:
                too_much = TooMuchWaiting("bytes of lines", given=waiting_bytes + size, allowed=allowed)
                self._decline(posted, too_much)
                continue
            waiting_bytes += size
            lines.append(document.line)
            stored.append(each)
        if lines:
            self._commit.hand_over(lines, partial(self._answer_all, stored))

    def _answer_all(self, stored: list[tuple[Posted, Accepted]], failure: Declined | None) -> None:
        if failure is None:
            kinds = [posted.kind for posted, _ in stored]
            for kind in PATHS:
                if kind in kinds:
                    self.metrics.stored.add(kind, by=kinds.count(kind))
        for posted, document in stored:
            for what, count in document.dropped.items() if failure is None else ():
                self.metrics.dropped.add(what, by=count)
            self._tell(posted, document.sha256 if failure is None else failure)

    def unforeseen(self, failure: Exception, request_id: str) -> CommitFailed:
        """What to answer when nobody foresaw it: a client deletes what gets a 4xx and a proxy may hide a 500."""
        self.metrics.unexpected.add()
        _log.error("request %s met what nobody foresaw: %s", request_id, place_of(failure))
        return CommitFailed(failure)

    def cut_off(self) -> NotTaking:
        """What to answer when the time to drain is over: nobody knows whether the document is on disk."""
        return NotTaking("stopping", "the server stops before the document was stored; send again")

    def _decline(self, posted: Posted, failure: Exception) -> None:
        try:
            self._keep_refused(posted, failure)
        except Exception as unforeseen:  # noqa: BLE001  The sender hears its word all the same.
            self.unforeseen(unforeseen, posted.request_id)
        told = failure if isinstance(failure, Declined) else self.unforeseen(failure, posted.request_id)
        self._tell(posted, told)

    def _keep_refused(self, posted: Posted, failure: Exception) -> None:
        if isinstance(failure, Refused) and failure.code in _QUARANTINED:
            self._quarantine.keep_refused(failure, path=PATHS[posted.kind], encoding=posted.coding, body=posted.body)

    def _tell(self, posted: Posted, outcome: str | Declined) -> None:
        self.admission.leave()
        try:
            posted.answer(outcome)
        except Exception as failure:  # noqa: BLE001  Whoever it was, the others of the turn hear their word.
            self.unforeseen(failure, posted.request_id)


def too_large() -> Refused:
    """A body over what a client may post, whatever is in it."""
    return Refused("too_large", f"the body is over the {shared.wire_bytes_max} bytes allowed on the wire")
