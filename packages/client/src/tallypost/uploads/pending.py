"""The pending database: documents after collection, until a receipt or a refusal.

Takes   whole documents, each under a name that is taken once and for ever.
Gives   their names in the order of recording, and word of each to its observers.
Never   decides when to post (``manager.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import msgspec

from ..seams import Disk
from ..state_directory import StateDirectory

Observer = Callable[[str], None]
"""Hears the name of a document that was recorded, or found by the scan at start."""


class Pending:
    """The documents of one state directory."""

    def __init__(self, directory: StateDirectory, *, disk: Disk) -> None:
        self._directory, self._disk = directory, disk
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of each document from now on."""
        self._observers.append(observer)

    def scan(self) -> None:
        """Tell the observers of each document that lies there, oldest name first."""
        for name in self.names():
            self._tell(name)

    def names(self) -> list[str]:
        """The names of the documents that wait."""
        return documents_in(self._disk.names(self._directory.pending))

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

    def is_done(self, name: str) -> bool:
        """Whether a document of that name was sent or refused before."""
        return any(
            self._disk.exists(os.path.join(folder, name)) for folder in (self._directory.sent, self._directory.refused)
        )

    def drop(self, name: str) -> None:
        """Remove a document that was sent or refused before under the same name."""
        self._disk.remove(os.path.join(self._directory.pending, name))
        self._disk.remove(self._begin(name))

    def sent(self, name: str, receipt: bytes) -> None:
        """Move a document to ``sent/``, with its receipt beside it."""
        if self._settle(name, self._directory.sent, "receipt", receipt):
            return
        # A no came while its post was under way. It did leave, and ``sent/`` holds exactly what left.
        withdrawn = os.path.join(self._directory.refused, name)
        if self._disk.exists(withdrawn):
            self._disk.replace(_word(self._directory.sent, name, "receipt"), receipt)
            self._disk.move(withdrawn, os.path.join(self._directory.sent, name))
            self._disk.remove(_word(self._directory.refused, name, "reason"))

    def refused(self, name: str, code: str, message: str) -> bool:
        """Move a document to ``refused/``, with the reason beside it; False if it does not wait any more."""
        reason = msgspec.json.encode({"reason": code, "message": message})
        return self._settle(name, self._directory.refused, "reason", reason)

    def withdraw(self, code: str, message: str) -> list[str]:
        """Empty ``pending/``: the user said no. Returns the names of those that waited."""
        return [name for name in self.names() if self.refused(name, code, message)]

    def retain(self, sent_kept: int, refused_kept: int) -> None:
        """Keep the newest documents of ``sent/`` and ``refused/``, by number."""
        for folder, kept in ((self._directory.sent, sent_kept), (self._directory.refused, refused_kept)):
            for name in documents_in(self._disk.names(folder))[:-kept]:
                for path in (os.path.join(folder, name), _word(folder, name, "receipt"), _word(folder, name, "reason")):
                    self._disk.remove(path)

    def _settle(self, name: str, folder: str, kind: str, word: bytes) -> bool:
        source, target = os.path.join(self._directory.pending, name), os.path.join(folder, name)
        if not self._disk.exists(source):
            return False  # Another uploader, or a no, was quicker, and its word stands.
        # The word first: a document in `sent/` without its receipt would be one that nobody can check.
        self._disk.replace(_word(folder, name, kind), word)
        self._disk.reach(f"before_{os.path.basename(folder)}")
        try:
            self._disk.move(source, target)
        except FileNotFoundError:
            if not self._disk.exists(target):
                self._disk.remove(_word(folder, name, kind))  # A word about nothing.
            return False
        self._disk.reach(f"after_{os.path.basename(folder)}")
        self._disk.remove(self._begin(name))
        return True

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


def documents_in(listing: Iterable[str]) -> list[str]:
    """The names of documents in a folder's listing, without receipts and reasons."""
    return [name for name in listing if name.endswith(".json") and (name.count(".") == 1 or _is_batch(name))]


def _is_batch(name: str) -> bool:
    stem, _, rest = name.partition(".")
    return len(stem) == 32 and rest.removesuffix(".json").isdigit()
