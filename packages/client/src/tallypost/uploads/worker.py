"""The upload worker: idle, or at work on exactly one task.

Takes   tasks from the manager.
Gives   each document's bytes to the transport, its outcome to the manager, and the document to where it then belongs.
Never   chooses a document or a time; never posts what the gate holds back.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard

from tallypost_schema import documents, outcomes, receipts, strict_json
from tallypost_schema.errors import SchemaError
from tallypost_schema.outcomes import Outcome

from .. import losses
from ..errors import NoAnswer
from ..seams import Clock
from .manager import Done, Upload, UploadManager, Wait
from .pending import Pending

if TYPE_CHECKING:
    from .transport import Answer, Transport  # Its library is slow to load, and most questions need no network.

Gate = Callable[[str], str | None]
"""Why a document may not be posted at this instant (a key of `losses.REFUSALS`), or None if it may."""

Progress = Callable[[str], None]
"""Hears a sentence for people."""


@dataclass
class Session:
    """What a session of work came to."""

    sent: int = 0
    refused: int = 0
    why: str = ""
    left: bool = False
    last_trouble: str | None = None


class UploadWorker:
    """Posts what the manager names, one document at a time."""

    def __init__(
        self,
        manager: UploadManager,
        pending: Pending,
        *,
        endpoint: str,
        transport: Transport,
        gate: Gate,
        clock: Clock,
        progress: Progress = lambda sentence: None,
    ) -> None:
        self._manager, self._pending, self._transport, self._gate = manager, pending, transport, gate
        self._endpoint, self._clock, self._progress = endpoint.rstrip("/"), clock, progress
        self._working = False

    def work(self, until: float) -> Session:
        """Work until nothing is to be done, or the instant `until`. At work already: nothing happens."""
        session = Session(why="an upload is under way already", left=True)
        if self._working:
            return session
        self._working = True
        try:
            while True:
                task = self._manager.next_task()
                if isinstance(task, Done):
                    session.why, session.left = task.why, task.left
                    return session
                if isinstance(task, Wait):
                    if self._clock.now() + task.seconds > until:
                        session.why = "more posts in a minute are not sent"
                        return session
                    self._progress(f"waiting {task.seconds:.0f} s: a minute takes 15 posts")
                    self._clock.sleep(task.seconds)
                else:
                    if self._clock.now() >= until:
                        session.why = "the time for one run is up"
                        return session
                    self._upload(task, session)
        finally:
            self._working = False

    def _upload(self, task: Upload, session: Session) -> None:
        name = task.name
        if self._pending.is_done(name):
            self._pending.drop(name)
            self._manager.forget(name)
            return
        held_back = self._gate(name)
        if held_back is not None:
            self._refuse(name, held_back, losses.REFUSALS[held_back], session)
            return
        try:
            document = self._pending.read(name)
            path = _path_for(document)
        except FileNotFoundError:
            self._manager.forget(name)
            return
        except (OSError, SchemaError) as error:
            self._refuse(name, "unreadable", f"{losses.REFUSALS['unreadable']}: {error}", session)
            return
        self._progress(f"posting {name} ({len(document)} bytes)")
        outcome, answer, trouble = self._post(name, self._endpoint + path, document)
        if outcome == "stored" and answer is not None:
            self._pending.sent(name, answer.body)
            session.sent += 1
        elif outcome == "refused" and answer is not None:
            error_detail = receipts.error_in(answer.body)
            assert error_detail is not None, "an answer without our body is never a refusal"
            self._pending.refused(name, error_detail.code, error_detail.message)
            session.refused += 1
        else:
            session.last_trouble = trouble
            self._progress(f"{name} stays: {trouble}")
        self._manager.report_result(name, outcome, answer.retry_after() if answer is not None else None)

    def _post(self, name: str, url: str, document: bytes) -> tuple[Outcome, Answer | None, str]:
        answer = None
        try:
            answer = self._transport.post(url, zstandard.compress(document), "zstd")
            if answer.status == 415:
                # A post of its own: a no that came during the first one is heard.
                if self._gate(name) is not None:
                    return "recoverable", None, "a no came before it could be posted in another encoding"
                answer = self._transport.post(url, gzip.compress(document, mtime=0), "gzip")
        except NoAnswer as error:
            return "recoverable", answer, error.reason
        outcome = outcomes.of_answer(answer.status, answer.body, document)
        detail = receipts.error_in(answer.body)
        return outcome, answer, f"HTTP {answer.status}" + (f" {detail.code}: {detail.message}" if detail else "")

    def _refuse(self, name: str, code: str, message: str, session: Session) -> None:
        self._pending.refused(name, code, message)
        self._manager.forget(name)
        session.refused += 1
        self._progress(f"{name} is not sent: {message}")


def _path_for(document: bytes) -> str:
    value = strict_json.decode(document)
    if value.get("kind") == "events":
        documents.batch_of(value)
        return "/v1/events"
    documents.report_of(value)
    return "/v1/reports"
