"""The catch-up: cuts what sessions have logged, and closes those whose process has ended. Whoever uploads does it.

Takes   the session logs, the saved mode line, the upload config.
Gives   batches, through `record`; logs that go on behind them, or are gone.
Never   touches a log that may not leave, but for keeping their number; never waits long for a session's owner.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tallypost_schema import declaration as declarations
from tallypost_schema import documents
from tallypost_schema.declaration import Declaration
from tallypost_schema.documents import Batch
from tallypost_schema.errors import DeclarationInvalid, SchemaError
from tallypost_schema.upload_config import UploadConfig

from .. import limits
from ..clock import day_of
from ..consent import ModeLine, may_leave
from ..seams import Clock, Disk, Lock
from ..state_directory import StateDirectory
from .cut import next_batch, oldest_day
from .log_reader import SessionLog, read
from .session_log import header_line

Record = Callable[[str, bytes, str], bool]
"""Take a document by name, with the mode line it was begun under; False if its name was ever taken."""

Known = Callable[[str], bytes | None]
"""The document that was ever recorded under a name, or None."""


@dataclass(frozen=True)
class Terms:
    """Under what is cut: the saved mode line, and the upload config."""

    mode: ModeLine | None
    config: UploadConfig | None


class CatchUp:
    """The session logs of one state directory. Any number may work at once: a log is cut under its lock."""

    def __init__(self, directory: StateDirectory, *, record: Record, known: Known, disk: Disk, clock: Clock) -> None:
        self._directory, self._record, self._known = directory, record, known
        self._disk, self._clock = disk, clock

    def run(self, terms: Terms) -> None:
        """Cut every session that may leave, close those that have ended, and keep the newest logs of the others.

        Raises:
            OSError: the disk refused; what is cut is cut, and the next run goes on from there.
        """
        ended: list[str] = []
        stay: list[str] = []
        trouble: OSError | None = None
        is_trusted = self._disk.is_trusted(self._directory.events)
        for session in self.sessions():
            try:
                lock = self._end_of(session, is_trusted)
                if lock is None and not is_trusted:
                    continue  # Its owner appends without a lock, since none would be heard.
                try:
                    if not self._cut_what_may_leave(session, terms, closes=lock is not None) and lock is not None:
                        stay.append(session)
                finally:
                    if lock is not None:
                        ended.append(session)
                        lock.release()
            except OSError as problem:  # A file of another user's, say: no other session waits for that.
                trouble = problem
        self._retain(stay)
        self._remove_locks(ended)
        if trouble is not None:
            raise trouble

    def cut(self, session: str, terms: Terms) -> None:
        """Cut one living session: its log has grown to the size of a document.

        Raises:
            OSError: the disk refused.
        """
        self._cut_what_may_leave(session, terms, closes=False)

    def sessions(self) -> list[str]:
        """The sessions that have a log."""
        return [name.removesuffix(".jsonl") for name in self._disk.names(self._directory.events) if _is_log(name)]

    def read(self, session: str) -> SessionLog | None:
        """A session's log, or None if it is gone or tells nothing."""
        try:
            log = read(self._disk.read(self._directory.session_log(session)))
        except OSError:
            return None
        return log if log is not None and log.header.session == session else None

    def _cut_what_may_leave(self, session: str, terms: Terms, *, closes: bool) -> bool:
        """Cut a session; False if nothing of it may leave."""
        log = self.read(session)
        declaration = self._declaration_of(log) if log is not None else None
        if log is None or declaration is None or self._stays(log, declaration, terms) is not None:
            return False
        lock = self._disk.try_lock(self._directory.append_lock(session))
        if lock is None:
            return True  # Its owner is appending, or another uploader cuts: the next run will do.
        try:
            self._cut_all(session, declaration, terms, closes=closes)
        finally:
            lock.release()
        return True

    def _cut_all(self, session: str, declaration: Declaration, terms: Terms, *, closes: bool) -> None:
        today = self._today()
        while (log := self.read(session)) is not None:
            name = f"{session}.{log.header.first}.json"
            # Where a crash came between its link and what follows here it is there. It is final, and may be less.
            content = self._known(name)
            batch = _decoded(content) or next_batch(
                log, declaration=declaration, config=terms.config, today=today, closes=closes
            )
            if batch is not None:
                self._disk.reach("before_cut")
                if content is None and not self._record(name, documents.encode(batch), str(terms.mode)):
                    return  # On its way from one folder to another at this instant: the next run will do.
                self._disk.reach("after_cut")
                if batch.terminal is None:
                    self._go_on(_behind(log, batch.last + 1))
                    continue
            if closes:
                self._disk.reach("before_log_removal")
                self._disk.remove(self._directory.session_log(session))
            return

    def _go_on(self, log: SessionLog) -> None:
        facts = msgspec.structs.asdict(log.header)
        del facts["v"], facts["first"]
        lines = [header_line(log.header.first, facts)]
        lines += [msgspec.json.encode(event) + b"\n" for event in log.events]
        self._disk.replace(self._directory.session_log(log.header.session), b"".join(lines))

    def _stays(self, log: SessionLog, declaration: Declaration, terms: Terms) -> str | None:
        """Why a session's events may not leave, or None if they may."""
        header = log.header
        # All was cut: then the session is as old as the log that was put behind the cut.
        age = self._modified(self._directory.session_log(header.session))
        newest = log.events[-1].at[:10] if log.events else day_of(age)
        if newest < oldest_day(self._today()):
            return "it is older than 21 days"
        return may_leave(header.mode, header.begin[:10], terms.mode, declaration.consent_version)

    def _declaration_of(self, log: SessionLog) -> Declaration | None:
        try:
            return declarations.parse(self._disk.read(self._directory.declaration(log.header.declaration)).decode())
        except (OSError, UnicodeDecodeError, DeclarationInvalid):
            return None

    def _end_of(self, session: str, is_trusted: bool) -> Lock | None:
        """The lock of a session whose process has ended; None while it lives."""
        path = self._directory.session_lock(session)
        if not is_trusted:  # Only silence tells.
            written = self._modified(self._directory.session_log(session))
            if self._clock.now() - written < limits.written_silence_seconds:
                return None
        return self._disk.try_lock(path)

    def _retain(self, sessions: list[str]) -> None:
        """Keep the newest logs of those that have ended and stay, by when they were last written to."""
        sessions.sort(key=lambda session: self._modified(self._directory.session_log(session)))
        for session in sessions[: -limits.session_logs_kept]:
            self._disk.remove(self._directory.session_log(session))

    def _remove_locks(self, ended: list[str]) -> None:
        """Remove the locks of sessions that have no log, but for those that are just being made."""
        self._disk.reach("before_locks_removal")
        there, before = set(self.sessions()), self._clock.now() - limits.unfinished_seconds_max
        for name in self._disk.names(self._directory.sessions):
            session, path = name.partition(".")[0], os.path.join(self._directory.sessions, name)
            if session not in there and (session in ended or self._modified(path) < before):
                with contextlib.suppress(PermissionError):  # Windows removes none that somebody tries at this instant.
                    self._disk.remove(path)

    def _today(self) -> datetime.date:
        return datetime.date.fromisoformat(day_of(self._clock.now()))

    def _modified(self, path: str) -> float:
        try:
            return self._disk.modified(path)
        except FileNotFoundError:
            return 0.0


def _behind(log: SessionLog, first: int) -> SessionLog:
    header = msgspec.structs.replace(log.header, first=first)
    return SessionLog(header, [event for event in log.events if event.index >= first])


def _decoded(content: bytes | None) -> Batch | None:
    try:
        return documents.decode_batch(content) if content is not None else None
    except SchemaError:
        return None


def _is_log(name: str) -> bool:
    stem, _, ending = name.partition(".")
    return len(stem) == 32 and ending == "jsonl" and not set(stem) - set("0123456789abcdef")
