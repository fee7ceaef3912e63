"""The pending database: documents after collection, until a receipt or a refusal.

Takes   whole documents, each under a name that is taken once and for ever.
Gives   their names, oldest first, word of each to its observers, and room: what is over a quota is evicted.
Never   decides when to post (``manager.py``); never evicts while a document is posted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from tallypost_schema import documents
from tallypost_schema.documents import Batch
from tallypost_schema.errors import SchemaError

from .. import limits, losses
from ..seams import Disk, Lock
from ..state_directory import StateDirectory, documents_in, is_batch
from . import quotas

Observer = Callable[[str], None]
"""Hears the name of a document that was recorded, or found by the scan at start."""


# How the bytes of a batch end that has none; one with events is decoded only when they go.
_NO_EVENTS = b'"events":[]}'


# What lies beside a document in a folder.
_WORDS: dict[str, str] = {"sent": "receipt", "refused": "reason"}


class _Reason(msgspec.Struct):
    """What lies beside a refused document."""

    reason: str
    message: str


class _Lost(msgspec.Struct):
    """What tells a lost range; of a report it is 0."""

    lost: int = 0


class Pending:
    """The documents of one state directory.

    When eviction and a post meet: the worker holds a lock from before it reads a document until its outcome is kept,
    and nothing is evicted meanwhile. Where a lock is not heard (two hosts, a network file system that has none) a batch
    may be replaced while it is posted. Then ``sent/`` holds the bytes that left, and the replacement goes; or, without
    a receipt, the replacement waits, and its next post tells the server what was lost.
    """

    def __init__(self, directory: StateDirectory, *, disk: Disk) -> None:
        self._directory, self._disk = directory, disk
        self._observers: list[Observer] = []

    @contextlib.contextmanager
    def observed_by(self, observer: Observer) -> Iterator[None]:
        """Tell `observer` of each document within the block."""
        self.observe(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of each document from now on."""
        self._observers.append(observer)

    def scan(self) -> None:
        """Make room, then tell the observers of each document that lies there, oldest first."""
        self.make_room()
        self.sweep(float("-inf"))
        for name in self.names():
            self._tell(name)

    def names(self) -> list[str]:
        """The names of the documents that wait: reports by day, then batches by age."""
        return self._by_age(self._directory.pending)

    def names_in(self, folder: Literal["sent", "refused"]) -> list[str]:
        """The names of the documents that were sent, or refused, by when they came there, and then by name."""
        path = self._directory.sent if folder == "sent" else self._directory.refused
        names = documents_in(self._disk.names(path))
        return sorted(names, key=lambda name: (self._came(path, name, _WORDS[folder]), name))

    def record(self, name: str, document: bytes, mode_line: str) -> bool:
        """Have a document wait to be posted; False if one of that name waits, was sent, or was refused.

        Raises:
            OSError: the disk refused; the document is not there.
        """
        if any(self._disk.exists(os.path.join(folder, name)) for folder in self._folders()):
            return False
        # Under which yes it was begun, before it is there: a document without that word is never posted.
        self._disk.create(self._begin(name), mode_line.encode())
        self._disk.reach("before_pending")
        if not self._disk.create(os.path.join(self._directory.pending, name), document):
            return False
        self._disk.reach("after_pending")
        self._tell(name)
        self.make_room()
        return True

    def read(self, name: str) -> bytes:
        """The document's bytes.

        Raises:
            OSError: it is not there any more, or cannot be read.
        """
        return self._disk.read(os.path.join(self._directory.pending, name))

    def begun_under(self, name: str) -> str | None:
        """The mode line under which a document was begun, or None if nothing says so."""
        try:
            return self._disk.read(self._begin(name)).decode("utf-8", "replace")
        except OSError:
            return None

    def reason(self, name: str) -> dict[str, str] | None:
        """Why a document was refused (``reason`` and ``message``), or None if nothing that can be read says so."""
        try:
            said = msgspec.json.decode(self._disk.read(_word(self._directory.refused, name, "reason")), type=_Reason)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return {"reason": said.reason, "message": said.message}

    def is_done(self, name: str) -> bool:
        """Whether a document of that name was sent or refused before."""
        return any(
            self._disk.exists(os.path.join(folder, name)) for folder in (self._directory.sent, self._directory.refused)
        )

    def drop(self, name: str) -> None:
        """Remove a document that was sent or refused before under the same name."""
        self._disk.remove(os.path.join(self._directory.pending, name))
        self._disk.remove(self._begin(name))

    def hold(self) -> Lock | None:
        """Keep what waits from being evicted, until the lock is released; None while somebody evicts, or posts."""
        return self._disk.try_lock(os.path.join(self._directory.private, "posting.lock"))

    def sent(self, name: str, document: bytes, receipt: bytes) -> None:
        """Keep a document that left in ``sent/``, byte for byte, with its receipt beside it."""
        # The word first: a document in `sent/` without its receipt would be one that nobody can check.
        self._disk.replace(_word(self._directory.sent, name, "receipt"), receipt)
        self._disk.reach("before_sent")
        target = os.path.join(self._directory.sent, name)
        with contextlib.suppress(FileNotFoundError):
            self._disk.move(os.path.join(self._directory.pending, name), target)
        # A no, or an eviction that no lock held up, may have come while it was posted. It did leave as it was.
        if not self._disk.exists(target) or self._disk.read(target) != document:
            self._disk.replace(target, document)
        self._disk.reach("after_sent")
        self._disk.remove(self._begin(name))
        self._disk.remove(os.path.join(self._directory.refused, name))
        self._disk.remove(_word(self._directory.refused, name, "reason"))

    def refused(self, name: str, code: str, message: str) -> bool:
        """Move a document to ``refused/``, with the reason beside it; False if it does not wait any more."""
        source, target = os.path.join(self._directory.pending, name), os.path.join(self._directory.refused, name)
        if not self._disk.exists(source):
            return False  # Another uploader, or a no, was quicker, and its word stands.
        if self._disk.exists(os.path.join(self._directory.sent, name)):
            self.drop(name)  # A second copy, by a reporter that came late, of what has left.
            return False
        word = _word(self._directory.refused, name, "reason")
        self._disk.replace(word, msgspec.json.encode(_Reason(code, message)))
        self._disk.reach("before_refused")
        try:
            self._disk.move(source, target)
        except FileNotFoundError:
            if not self._disk.exists(target):
                self._disk.remove(word)  # A word about nothing.
            return False
        self._disk.reach("after_refused")
        self._disk.remove(self._begin(name))
        return True

    def withdraw(self, code: str, message: str) -> list[str]:
        """Empty ``pending/``: the user said no. Returns the names of those that waited."""
        return [name for name in self.names() if self.refused(name, code, message)]

    def retain(self, sent_kept: int, refused_kept: int) -> None:
        """Keep the newest reports and the newest batches of ``sent/`` and ``refused/``, by number."""
        for folder, kept in ((self._directory.sent, sent_kept), (self._directory.refused, refused_kept)):
            names = self._by_age(folder)
            for kind in (False, True):
                for name in [name for name in names if is_batch(name) is kind][:-kept]:
                    self._disk.remove(os.path.join(folder, name))
                    for word in ("receipt", "reason"):
                        self._disk.remove(_word(folder, name, word))

    def sweep(self, before: float) -> None:
        """Remove what processes left that ended, before that instant, in the middle of recording or settling."""
        for name in self._disk.names(self._directory.begins):
            path = self._begin(name)
            waits = self._disk.exists(os.path.join(self._directory.pending, name))
            with contextlib.suppress(FileNotFoundError):  # Settled meanwhile.
                if self.is_done(name) or (not waits and self._disk.modified(path) < before):
                    self._disk.remove(path)

    def losses(self) -> dict[str, int]:
        """What was lost of documents, by reason, as far back as they are kept."""
        reports = [name for name in documents_in(self._disk.names(self._directory.refused)) if not is_batch(name)]
        evicted = sum((self.reason(name) or {}).get("reason") == "evicted" for name in reports)
        lost = sum(self._lost_in(folder, name) for folder in self._folders() for name in self._batches(folder))
        found = {losses.EVICTED_REPORTS: evicted, losses.LOST_EVENTS: lost}
        return {reason: n for reason, n in found.items() if n}

    # ---------------------------------------------------------------- quotas

    def make_room(self) -> None:
        """Evict what is over a quota, oldest first. Nothing happens while a document is posted: the worker asks again.

        A report goes to ``refused/``. A batch loses its events, and tells the server so under its own name.
        """
        # A disk that refuses this takes no new document either, so that nothing grows meanwhile.
        with contextlib.suppress(OSError):
            held = self.hold()
            if held is None:
                return
            try:
                self._make_room()
            finally:
                held.release()

    def _make_room(self) -> None:
        names = self.names()
        over = quotas.reports_over([name for name in names if not is_batch(name)])
        sizes, lost = {}, []
        for name in filter(is_batch, names):
            document = self._read(name)
            if document.endswith(_NO_EVENTS):
                lost.append(name)
            elif document:
                sizes[name] = len(document)
        for name in quotas.batches_over(sizes):
            batch = self._batch(name)
            if batch is not None:
                self._exchange(name, quotas.without_events(batch))
                lost.append(name)
        remaining = self._merge(lost)
        if len(remaining) > limits.pending_lost_batches_max:
            over += quotas.lost_over(self._batches_of(remaining))
        for name in over:
            self._refuse(name, "evicted")
        if over or len(remaining) < len(lost):
            self.retain(limits.sent_documents_kept, limits.refused_documents_kept)

    def _merge(self, lost: list[str]) -> list[str]:
        """Have one batch for each lost range: a session that goes on for weeks without a network needs no more.

        Returns the names that remain.
        """
        sessions: dict[str, list[str]] = {}
        for name in sorted(lost, key=_place):
            sessions.setdefault(_place(name)[0], []).append(name)
        merged = set()
        for names in sessions.values():
            into = ""
            wide: Batch | None = None
            for name, batch in self._batches_of(names).items() if len(names) > 1 else ():
                both = quotas.joined(wide, batch) if wide is not None else None
                if both is None:
                    into, wide = name, batch
                    continue
                wide = both
                self._exchange(into, wide)
                self._disk.reach("before_merged")
                self._refuse(name, "merged")
                merged.add(name)
        return [name for name in lost if name not in merged]

    def _exchange(self, name: str, batch: Batch) -> None:
        self._disk.reach("before_evicted")
        self._disk.replace(os.path.join(self._directory.pending, name), documents.encode(batch))
        self._disk.reach("after_evicted")
        if self.is_done(name):
            self.drop(name)  # A no, or another host's receipt, came in that instant, and its word stands.

    def _batches_of(self, names: list[str]) -> dict[str, Batch]:
        return {name: batch for name in names if (batch := self._batch(name)) is not None}

    def _batch(self, name: str) -> Batch | None:
        try:
            return documents.decode_batch(self.read(name))
        except FileNotFoundError:
            return None
        except (OSError, SchemaError):
            self._refuse(name, "unreadable")
            return None

    def _read(self, name: str) -> bytes:
        try:
            return self.read(name)
        except OSError:
            return b""  # Gone meanwhile, or the worker will say that it cannot be read.

    def _lost_in(self, folder: str, name: str) -> int:
        if folder == self._directory.refused and (self.reason(name) or {}).get("reason") == "merged":
            return 0
        try:
            return msgspec.json.decode(self._disk.read(os.path.join(folder, name)), type=_Lost).lost
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return 0

    # ---------------------------------------------------------------- folders

    def _by_age(self, folder: str) -> list[str]:
        reports = [name for name in documents_in(self._disk.names(folder)) if not is_batch(name)]
        return reports + self._batches(folder)

    def _batches(self, folder: str) -> list[str]:
        """The batches in a folder, oldest first. Their names tell no time."""
        ages = {}
        for name in filter(is_batch, documents_in(self._disk.names(folder))):
            with contextlib.suppress(OSError):  # Gone meanwhile.
                ages[name] = self._disk.modified(os.path.join(folder, name))
        return sorted(ages, key=lambda name: (ages[name], _place(name)))

    def _came(self, folder: str, name: str, kind: str) -> float:
        try:  # The word beside a document is written when it comes; the document itself may be older.
            return self._disk.modified(_word(folder, name, kind))
        except OSError:
            return 0.0

    def _refuse(self, name: str, code: str) -> None:
        self.refused(name, code, losses.REFUSALS[code])

    def _begin(self, name: str) -> str:
        return os.path.join(self._directory.begins, name)

    def _folders(self) -> tuple[str, ...]:
        return self._directory.pending, self._directory.sent, self._directory.refused

    def _tell(self, name: str) -> None:
        for observer in self._observers:
            observer(name)


def _word(folder: str, name: str, kind: str) -> str:
    """The path of a document's receipt or reason."""
    return os.path.join(folder, f"{name.removesuffix('.json')}.{kind}.json")


def _place(name: str) -> tuple[str, int]:
    """A batch's session and first index."""
    session, _, rest = name.partition(".")
    return session, int(rest.removesuffix(".json"))
