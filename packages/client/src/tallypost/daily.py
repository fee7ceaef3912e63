"""The daily work of one state directory: what is done about reports and uploads, and what a person asks to see.

Takes   a state directory, what is known of the application's last run, and the seams.
Gives   the three phases, the user's answer saved, and facts for `status`, `show`, `preview`.
Never   runs while something is recorded: it is loaded by commands, the uploader, and questions of the application.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tallypost_schema import declaration as declarations
from tallypost_schema import documents
from tallypost_schema import limits as shared_limits
from tallypost_schema.declaration import Declaration
from tallypost_schema.errors import DeclarationInvalid
from tallypost_schema.upload_config import UploadConfig

from . import limits, losses
from .clock import day_of, spelled
from .consent import SYSTEM_FILE, Decision, ModeLine, decide, is_test_runner, parse_mode_line
from .disk import text_of
from .errors import NoStateDirectory, WrongUse
from .events import catch_up
from .events.catch_up import CatchUp
from .events.overview import ShownEvent, events_of
from .randomness import SystemRandom
from .reports import local_report
from .reports.fold import leaving_programs
from .reports.look import Look, look
from .reports.overview import days_of, losses_of
from .reports.reporter import Reported, Reporter
from .seams import Clock, Disk, Random
from .state_directory import StateDirectory
from .uploads.endpoint import is_endpoint
from .uploads.kept_config import KeptConfig
from .uploads.manager import State, UploadManager
from .uploads.pending import Pending
from .uploads.worker import Progress, Session, UploadWorker

if TYPE_CHECKING:
    from .consent import Mode
    from .uploads.transport import Transport


@dataclass(frozen=True)
class LastRun:
    """What commands know of an application: what its last run wrote down."""

    application: str
    program: str
    version: str
    endpoint: str
    declaration: str


@dataclass(frozen=True)
class Preview:
    """The documents that would be posted next; `word` says so if they would not be, as things stand."""

    documents: list[bytes]
    word: str | None


@dataclass(frozen=True)
class Uploaded:
    """What an upload came to; `sentence` is for people."""

    nothing_left: bool
    sent: int
    sentence: str


# The end of the year 9999: a later instant cannot be spelled.
_INSTANT_MAX = 253_402_300_800.0


class Daily:
    """Phases one to three of one application, and the questions about it."""

    def __init__(
        self,
        directory: StateDirectory,
        *,
        last_run: LastRun,
        declaration: bytes | None,
        default: str,
        environ: Mapping[str, str],
        clock: Clock,
        disk: Disk,
        random: Random | None = None,
        transport: Transport | None = None,
    ) -> None:
        """`transport` is the network; it is loaded when something is posted, if not given."""
        self.directory, self.last_run = directory, last_run
        self._default, self._environ = default, environ
        self._clock, self._disk = clock, disk
        self._random = random if random is not None else SystemRandom()
        self._transport = transport
        self._declaration = _parsed(declaration)
        self._config = KeptConfig(directory, disk=disk)
        self._pending = Pending(directory, disk=disk)
        self._catch_up = CatchUp(directory, record=self._pending.record, known=self._recorded, disk=disk, clock=clock)
        self._reporter = Reporter(directory, record=self._pending.record, disk=disk, clock=clock, random=self._random)

    # ---------------------------------------------------------------- consent

    def decide(self) -> Decision:
        """What may be done now, by everything that was said."""
        main = sys.modules.get("__main__")
        return decide(
            default=self._default,
            system_file=self._text(SYSTEM_FILE),
            environ=self._environ,
            test_runner=is_test_runner(self._environ, main),
            mode_file=self._text(self.directory.mode),
            consent_version=self._declaration.consent_version if self._declaration is not None else None,
        )

    def saved(self) -> ModeLine | None:
        """The saved answer; None if there is none, or none that can be read."""
        text = self._text(self.directory.mode)
        return parse_mode_line(text) if text is not None else None

    def asks_for(self) -> Declaration | None:
        """The declaration to which an answer of the user is missing, or None if there is nothing to ask.

        Nobody is asked where something else decides, nor where nothing could leave.
        """
        decision, saved = self.decide(), self.saved()
        is_answered = saved is not None and (saved.mode != "on" or decision.mode == "on")
        is_imposed = decision.mode == "off" or decision.source == "system file" or self._said() == "local"
        return None if is_answered or is_imposed else self._declaration

    def _said(self) -> str:
        return self._environ.get("TALLYPOST", "")

    def set_mode(self, mode: Mode, *, who: Literal["user", "application", "administrator"]) -> list[str]:
        """Save an answer; a no empties ``pending/``. Returns the names of the documents that were withdrawn.

        *on* said again changes nothing unless the consent version has grown: what was begun under the first yes may
        leave.

        Raises:
            WrongUse: `mode` is not a mode.
            NoStateDirectory: it belongs to another user.
            OSError: the answer could not be saved.
        """
        if mode not in ("on", "local", "off"):
            raise WrongUse("mode", mode, '"on", "local" or "off"')
        self._require_ours()
        version = self._declaration.consent_version if self._declaration is not None else 1
        saved = self.saved()
        if saved is None or saved.mode != mode or (mode == "on" and saved.consent_version < version):
            line = ModeLine(mode, self._day_of_answer(saved), version, who)
            self._disk.make_folder(self.directory.path)
            self._disk.replace(self.directory.mode, f"{line}\n".encode())
        if mode == "on":
            return []
        return self._pending.withdraw("withdrawn", losses.REFUSALS["withdrawn"])

    def _day_of_answer(self, before: ModeLine | None) -> str:
        """Today; after the clock was set back, the last day of what was answered or counted before.

        A yes of today would else let leave what was counted on later days, under a yes that was taken back since.
        """
        today = day_of(self._clock.now())
        horizon = day_of(self._clock.now() + shared_limits.horizon_days * 86_400.0)
        try:
            counted = [file.day for file in look(self.directory, disk=self._disk).files]
            logs = [self._catch_up.read(session) for session in self._catch_up.sessions()]
        except OSError:
            counted, logs = [], []  # An answer is taken whatever the disk says.
        days = [*counted, *(log.header.begin[:10] for log in logs if log is not None)]
        if before is not None:
            days.append(before.day)
        # What is further off is of a clock that was quite wrong, and would put a yes off for as long; what is no day
        # is of a log that was damaged, and would make a mode file that means off.
        return max([today, *(day for day in days if day <= horizon and documents.day_of(day) is not None)])

    # ---------------------------------------------------------------- the three phases

    def report(self) -> list[str]:
        """Phases one and two, now; the days of the reports that were made. In mode *off* nothing is done."""
        if self.decide().mode == "off":
            return []
        self._require_ours()
        return self._report(self._config.last()).made

    def preview(self) -> Preview:
        """Phases one and two, then the bytes of what would be posted next.

        In mode *local* the documents of the days that are over, as they would be had the yes come before them.
        """
        mode = self.decide().mode
        if mode == "off":
            return Preview([], "the mode is off: nothing is counted, nothing would be posted")
        self._require_ours()
        seen = self._report(self._config.last()).seen
        if mode == "on":
            self._catch_up.run(catch_up.Terms(self.saved(), self._config.last()))
            return Preview(list(self._next_documents()), None)
        return Preview(
            self._as_if_yes(seen),
            "the mode is local: nothing is posted; this is what would be, had you said yes before these days",
        )

    def upload(self, *, progress: Progress = lambda sentence: None, now: bool = True) -> Uploaded:
        """All three phases. `now`: whatever the next try was set to; else only what is due."""
        decision = self.decide()
        if decision.mode != "on":
            made = self.report()
            if decision.mode == "local":  # In mode *off* not even that is written.
                self._catch_up_on_events(self._config.last(), progress)  # Logs that stay, by number.
                self._set_not_before(limits.next_try_after_success_seconds)
            reported = f"; {len(made)} local report(s) made" if made else ""
            return Uploaded(True, 0, f"Nothing may leave: the mode is {decision.mode} ({decision.source}){reported}.")
        self._require_ours()
        self._disk.make_folder(self.directory.private)  # A yes may be said before anything was counted.
        lock = self._disk.try_lock(self.directory.uploader_lock)
        if lock is None:
            return Uploaded(False, 0, "Another uploader is at work on this directory; try again when it is done.")
        try:
            return self._upload(progress, now)
        finally:
            lock.release()

    def is_due(self) -> bool:
        """Whether the time of the next try has come; also where nothing says when it is."""
        text = self._text(self.directory.not_before)
        wait = not_before_in(text) - self._clock.now()
        # Further off than any delay (and the rounding to a second): from before the clock was set back.
        return not 0 < wait <= limits.backoff_seconds_max + 1

    def upload_if_due(self) -> None:
        """All three phases, if their time has come: what an uploader does that nobody watches."""
        if self.is_due():
            self.upload(now=False)

    def _upload(self, progress: Progress, now: bool) -> Uploaded:
        until = self._clock.now() + limits.run_seconds_max - limits.post_seconds_max  # The last post ends in time too.
        endpoint = self.endpoint()
        transport = self._network()
        config = self._config.fetch(endpoint, transport, progress) if endpoint else self._config.last()
        for day in self._report(config).made:
            progress(f"reported {day}")
        self._catch_up_on_events(config, progress)
        waiting = len(self._pending.names())
        if endpoint is None or (config is not None and config.paused):
            why = "no endpoint is known" if endpoint is None else "the server asks clients to pause"
            state = self._upload_state()
            state.why = why
            self._save_upload_state(state)
            self._set_not_before(limits.next_try_after_success_seconds)
            return Uploaded(waiting == 0, 0, f"Nothing was posted: {why}; {waiting} document(s) wait.")
        manager = UploadManager(
            self._upload_state(), now=self._clock.now, draw=self._random.fraction, save=self._save_upload_state
        )
        if now:
            manager.try_all_now()
        with self._pending.observed_by(manager.document_recorded):
            self._pending.scan()
            session = self._work(manager, endpoint, transport, progress, until)
        self._pending.retain(limits.sent_documents_kept, limits.refused_documents_kept)
        earliest = manager.earliest_try()
        delay = limits.next_try_after_success_seconds
        self._set_not_before(delay if earliest is None else max(earliest - self._clock.now(), 0.0))
        left = len(self._pending.names())
        sentence = f"Posted {session.sent} document(s); {session.why}."
        if left:
            trouble = f" ({session.last_trouble})" if session.last_trouble else ""
            sentence = f"Posted {session.sent} document(s); {left} still wait: {session.why}{trouble}."
        return Uploaded(left == 0, session.sent, sentence)

    def _catch_up_on_events(self, config: UploadConfig | None, progress: Progress) -> None:
        try:
            self._catch_up.run(catch_up.Terms(self.saved(), config))
        except OSError as problem:  # What waits is posted all the same: it may be what fills the disk.
            progress(f"some events wait for the next run: {problem}")

    def _work(
        self, manager: UploadManager, endpoint: str, transport: Transport, progress: Progress, until: float
    ) -> Session:
        worker = UploadWorker(
            manager,
            self._pending,
            endpoint=endpoint,
            transport=transport,
            gate=self._held_back,
            clock=self._clock,
            progress=progress,
        )
        return worker.work(until)

    def cut(self, session: str) -> None:
        """Cut a living session, if it may leave: its log has grown to the size of a document.

        Raises:
            OSError: the disk refused.
        """
        if self.decide().mode == "on":
            self._catch_up.cut(session, catch_up.Terms(self.saved(), self._config.last()))

    def _report(self, config: UploadConfig | None) -> Reported:
        reported = self._reporter.report(self.saved(), config)
        saved = self.saved()
        if saved is not None and saved.mode != "on":
            # A no that came in the meantime has emptied the folder before these came into it.
            self._pending.withdraw("withdrawn", losses.REFUSALS["withdrawn"])
        before = self._clock.now() - limits.unfinished_seconds_max
        self._pending.sweep(before)
        self._sweep_declarations(reported.seen, before)
        return reported

    def _sweep_declarations(self, seen: Look, before: float) -> None:
        """Remove declarations under which nothing lies here any more: an application ships many in its life."""
        last_run = (self._text(self.directory.last_run) or "").rpartition("declaration=")[2].strip()
        logs = [self._catch_up.read(session) for session in self._catch_up.sessions()]
        if None in logs:
            return  # Which declaration it was begun under cannot be read now; without it nothing of it could leave.
        needed = {self.last_run.declaration, last_run, *seen.declaration_keys()}
        needed |= {log.header.declaration for log in logs if log is not None}
        for name in self._disk.names(self.directory.declarations):
            path = os.path.join(self.directory.declarations, name)
            # A process that has just begun has its own there before it has counted.
            if os.path.splitext(name)[0] not in needed and self._modified(path) < before:
                self._disk.remove(path)

    def _modified(self, path: str) -> float:
        try:
            return self._disk.modified(path)
        except OSError:
            return self._clock.now()

    def _network(self) -> Transport:
        if self._transport is None:
            from .uploads.transport import HttpxTransport

            self._transport = HttpxTransport()
        return self._transport

    def _next_documents(self) -> Iterator[bytes]:
        """The bytes of what waits and is not held back."""
        for name in self._pending.names():
            if not self._pending.is_done(name) and self._held_back(name) is None:
                try:
                    yield self._pending.read(name)
                except FileNotFoundError:
                    continue  # An uploader was quicker.

    def _recorded(self, name: str) -> bytes | None:
        """The document that was ever recorded under a name, wherever it lies now."""
        folders = (self.directory.pending, self.directory.sent, self.directory.refused)
        paths = [os.path.join(folder, name) for folder in folders]
        path = next((path for path in paths if self._disk.exists(path)), None)
        try:
            return self._disk.read(path) if path is not None else None
        except OSError:  # It is being moved, or cannot be read.
            return None

    def _made_on(self, name: str) -> datetime.date | None:
        """The day on which a batch was cut: its name tells none, what was written before it does."""
        try:
            return datetime.date.fromisoformat(day_of(self._disk.modified(os.path.join(self.directory.begins, name))))
        except (OSError, OverflowError, ValueError):
            return None

    def _require_ours(self) -> None:
        if self._disk.exists(self.directory.path) and not self._disk.is_ours(self.directory.path):
            raise NoStateDirectory(self.directory.path, "it belongs to another user")

    def _held_back(self, name: str) -> str | None:
        """The gate before each post: the mode file is read again, so that a no is heard between two documents."""
        saved = self.saved()
        if self.decide().mode != "on" or saved is None:
            return "withdrawn"
        if self._pending.begun_under(name) != str(saved):
            return "other-yes"
        today = datetime.date.fromisoformat(day_of(self._clock.now()))
        made = documents.day_of(name.removesuffix(".json")) or self._made_on(name)
        if made is not None and made < today - datetime.timedelta(days=shared_limits.horizon_days):
            return "too-old"
        return None

    def endpoint(self) -> str | None:
        """Where documents are posted, if that is known."""
        endpoint = self._environ.get("TALLYPOST_ENDPOINT") or self.last_run.endpoint
        return endpoint if endpoint and is_endpoint(endpoint) else None

    # ---------------------------------------------------------------- what people ask

    def status(self) -> dict[str, Any]:
        """The facts behind ``tallypost status``; the keys of its ``--json`` come first."""
        decision = self.decide()
        seen = look(self.directory, disk=self._disk)
        pending = self._pending.names()
        sent, refused = self._pending.names_in("sent"), self._pending.names_in("refused")
        not_before = not_before_in(self._text(self.directory.not_before))
        state = self._upload_state()
        return {
            "mode": decision.mode,
            "source": decision.source,
            "since": decision.since,
            "dir": self.directory.path,
            "pending": len(pending),
            "sent": len(sent),
            "refused": len(refused),
            "next_try": spelled(not_before) if decision.mode == "on" and not_before else None,
            "losses": {**losses_of(seen), **self._pending.losses()},
            "application": self.directory.application,
            "endpoint": self.endpoint(),
            "reports": len(seen.reports),
            "next_try_why": state.why or None,
            "waiting": [self._waiting(name, state) for name in pending],
            "last_sent": sent[-1] if sent else None,
            "last_refused": self._last_refused(refused),
            "declaration": "none" if self._declaration is None else self.last_run.declaration,
        }

    def _waiting(self, name: str, state: State) -> dict[str, Any]:
        next_try = state.next_try.get(name)
        return {
            "document": name,
            "failures": state.failures.get(name, 0),
            "next_try": spelled(next_try) if next_try is not None and 0 <= next_try < _INSTANT_MAX else None,
        }

    def _last_refused(self, names: list[str]) -> dict[str, str] | None:
        for name in reversed(names):
            reason = self._pending.reason(name)
            if reason is not None:
                return {"document": name, **reason}
        return None

    def show(self) -> dict[str, Any]:
        """All that has been counted, by day, today included; the shape of ``tallypost show --json``."""
        return days_of(look(self.directory, disk=self._disk))

    def events(self) -> list[ShownEvent]:
        """All events that have been logged, wherever they lie, oldest first."""
        return events_of(self.directory, disk=self._disk)

    def forget(self) -> None:
        """Remove everything of this application from this machine, but keep an *off*."""
        self._require_ours()
        text = self._text(self.directory.mode)
        saved = parse_mode_line(text) if text is not None else None
        said_off = text is not None and (saved is None or saved.mode == "off")
        # Only what is ours: below this folder another application may have its own, whose name goes on from this one.
        here = self.directory
        for folder in (here.counts, here.events, here.reports, os.path.dirname(here.pending), here.private):
            if self._disk.exists(folder):
                self._disk.remove_tree(folder)
        self._disk.remove(self.directory.readme)
        if said_off:
            return  # Never out of sight: a crash in the middle of this must not turn a no into silence.
        self._disk.remove(self.directory.mode)
        folder = self.directory.path
        for _ in self.directory.application.split("/"):  # The folders that its name has made, as far as they are empty.
            self._disk.remove_folder(folder)
            folder = os.path.dirname(folder)

    def _as_if_yes(self, seen: Look) -> list[bytes]:
        today = datetime.date.fromisoformat(day_of(self._clock.now()))
        oldest = (today - datetime.timedelta(days=shared_limits.horizon_days)).isoformat()
        shown, previous = [], None
        for report in seen.reports:
            rests = [(report.programs[one.program].key(), one.declaration, one.added()) for one in report.sources]
            programs = leaving_programs(rests, seen, config=self._config.last(), x=report.x, today=today)
            if programs:
                if report.day >= oldest:
                    as_if = msgspec.structs.replace(report, previous=previous)
                    shown.append(local_report.document_of(as_if, programs))
                previous = report.day
        return shown

    # ---------------------------------------------------------------- small files

    def _upload_state(self) -> State:
        try:
            state = msgspec.json.decode(self._disk.read(self.directory.upload_state), type=State)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return State()
        waiting = set(self._pending.names())
        state.next_try = {name: at for name, at in state.next_try.items() if name in waiting}
        state.failures = {name: n for name, n in state.failures.items() if name in waiting}
        return state

    def _save_upload_state(self, state: State) -> None:
        self._disk.replace(self.directory.upload_state, msgspec.json.encode(state), durable=False)

    def _set_not_before(self, delay: float) -> None:
        if self._disk.exists(self.directory.private):
            at = self._clock.now() + delay
            self._disk.replace(self.directory.not_before, f"{at:.0f}\n".encode(), durable=False)

    def _text(self, path: str) -> str | None:
        return text_of(self._disk, path)


def not_before_in(text: str | None) -> float:
    """The instant in ``private/not-before``; 0 where nothing readable is there."""
    try:
        at = float(text or 0)
    except ValueError:
        return 0.0
    return at if 0 <= at < _INSTANT_MAX else 0.0


def _parsed(content: bytes | None) -> Declaration | None:
    try:
        return declarations.parse(content.decode()) if content is not None else None
    except (UnicodeDecodeError, DeclarationInvalid):
        return None
