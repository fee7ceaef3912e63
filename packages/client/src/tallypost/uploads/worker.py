"""The upload worker: idle, or at work on exactly one task.

Takes   tasks from the manager.
Gives   each document's bytes to the transport, its outcome to the manager, and the document to where it then belongs.
Never   chooses a document or a time; never posts what the gate holds back.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import zstandard

from tallypost_schema import documents, outcomes, receipts, strict_json
from tallypost_schema.errors import SchemaError
from tallypost_schema.outcomes import Outcome

from .. import limits, losses
from ..errors import NoAnswer
from ..seams import Clock, Lock
from .manager import Done, UploadManager, Wait
from .pending import Pending

if TYPE_CHECKING:
    from .transport import Answer, Transport  # Its library is slow to load, and most questions need no network.

Encoding = Literal["zstd", "gzip"]

_COMPRESS: dict[Encoding, Callable[[bytes], bytes]] = {
    "zstd": zstandard.compress,
    "gzip": lambda document: gzip.compress(document, mtime=0),
}

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
        self._encoding: Encoding = "zstd"

    def work(self, until: float) -> Session:
        """Work until nothing is to be done, or the instant `until`. At work already: nothing happens."""
        session = Session(why="an upload is under way already", left=True)
        if self._working:
            return session
        self._working = True
        self._encoding = "zstd"
        try:
            self._work(until, session)
        finally:
            self._working = False
        self._pending.make_room()  # What was recorded meanwhile had to wait with that.
        return session

    def _work(self, until: float, session: Session) -> None:
        session.why = ""
        while not session.why:
            task = self._manager.next_task()
            if isinstance(task, Done):
                session.why, session.left = task.why, task.left
            elif isinstance(task, Wait):
                if self._clock.now() + task.seconds > until:
                    session.why = "more posts in a minute are not sent"
                else:
                    most = f"{limits.posts_per_window_max} posts in {limits.post_window_seconds:.0f} s at most"
                    self._progress(f"waiting {math.ceil(task.seconds)} s: {most}")
                    self._clock.sleep(task.seconds)
            else:
                held = self._hold(until)
                if held is None:
                    self._manager.put_off()
                    session.why = "the time for one run is up"
                else:
                    try:
                        self._upload(task.name, session)
                    finally:
                        held.release()

    def _hold(self, until: float) -> Lock | None:
        """Keep what is posted from being evicted; None once the time is up."""
        while self._clock.now() < until:
            held = self._pending.hold()
            if held is not None:
                return held
            self._clock.sleep(limits.hold_seconds)
        return None

    def _upload(self, name: str, session: Session) -> None:
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
        outcome, answer, trouble = self._post(self._endpoint + path, document)
        if answer is not None and answer.status == 415 and self._encoding == "zstd":
            # For all that this session of work posts: fifteen posts are not to become thirty.
            self._encoding = "gzip"
            self._progress("zstd is not taken there; gzip is tried from here on")
            self._manager.again(name)  # A post of its own: a no that came during the first one is heard.
            return
        if outcome == "stored" and answer is not None:
            self._pending.sent(name, document, answer.body)
            session.sent += 1
            self._progress(f"{name} is stored")
        elif outcome == "refused" and answer is not None:
            said = receipts.error_in(answer.body)
            assert said is not None, "an answer without our body is never a refusal"
            self._pending.refused(name, _for_people(said.code), _for_people(said.message))
            session.refused += 1
            self._progress(f"{name} is refused: {trouble}")
        else:
            session.last_trouble = trouble
            self._progress(f"{name} stays: {trouble}")
        wish = answer.retry_after(self._clock.now()) if answer is not None else None
        self._manager.report_result(name, outcome, wish, trouble)

    def _post(self, url: str, document: bytes) -> tuple[Outcome, Answer | None, str]:
        try:
            answer = self._transport.post(url, _COMPRESS[self._encoding](document), self._encoding)
        except NoAnswer as error:
            return "recoverable", None, _for_people(error.reason)
        outcome = outcomes.of_answer(answer.status, answer.body, document)
        said = receipts.error_in(answer.body)
        words = f" {said.code}: {said.message}" if said is not None else ""
        return outcome, answer, f"HTTP {answer.status}{_for_people(words)}"

    def _refuse(self, name: str, code: str, message: str, session: Session) -> None:
        self._pending.refused(name, code, message)
        self._manager.forget(name)
        session.refused += 1
        self._progress(f"{name} is not sent: {message}")


def _for_people(text: str) -> str:
    """Words of a stranger, fit for a terminal: a line of some length, without codes that would move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text[: limits.words_characters_max])


def _path_for(document: bytes) -> str:
    value = strict_json.decode(document)
    if value.get("kind") == "events":
        documents.batch_of(value)
        return "/v1/events"
    documents.report_of(value)
    return "/v1/reports"
