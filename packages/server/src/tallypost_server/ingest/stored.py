"""Stored documents, as they can be posted again: those of segments, wherever they lie, and those of a quarantine.

Takes   files by their endings.
Gives   each document with its place, in the order of the file.
Never   gives what is damaged: it is told instead, and the rest of the file still given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from ..disk import Disk
from ..errors import KeptDamaged, Refused, SegmentDamaged, WrongUse
from ..posting import Document
from ..segments.format import OPEN_ENDING, SEALED_ENDING, Torn, frames, sealed_lines
from ..segments.truth import line_of
from .head import PATHS
from .kept import KeptReader, document_of
from .quarantine import KEPT_ENDING

# Is told the place of what is no document, and why.
CannotRead: TypeAlias = Callable[[str, str], None]


class StoredDocuments:
    """Reads files that hold documents."""

    def __init__(self, *, disk: Disk) -> None:
        self._disk = disk

    def must_be_one(self, path: Path) -> None:
        """See that a file can hold documents before any is posted.

        Raises:
            WrongUse: its name says that it cannot.
            FileNotFoundError: it is not there.
        """
        if path.name.endswith(".manifest.json") or not path.name.endswith((SEALED_ENDING, OPEN_ENDING, KEPT_ENDING)):
            raise WrongUse(f"{path} is neither a segment (.jsonl.zst, .open) nor a file of a quarantine (.json)")
        self._disk.stat(path)

    def documents(self, path: Path, cannot_read: CannotRead) -> Iterator[Document]:
        """The documents of a file."""
        if path.name.endswith(KEPT_ENDING):
            return self._refused(path, cannot_read)
        return self._stored(path, cannot_read)

    def _stored(self, path: Path, cannot_read: CannotRead) -> Iterator[Document]:
        sealed = path.name.endswith(SEALED_ENDING)
        lines = self._sealed(path, cannot_read) if sealed else self._open(path, cannot_read)
        for number, text in enumerate(lines, 1):
            line, place = line_of(text), f"{path}, line {number}"
            if isinstance(line, str):
                cannot_read(place, line)
            else:
                yield Document(place, PATHS[line.kind], bytes(line.doc), f"{line.kind} {line.app} {line.stream}")

    def _sealed(self, path: Path, cannot_read: CannotRead) -> Iterator[bytes]:
        try:
            yield from sealed_lines(self._disk.pieces(path))
        except SegmentDamaged as damage:
            cannot_read(str(path), str(damage))

    def _open(self, path: Path, cannot_read: CannotRead) -> Iterator[bytes]:
        for frame in frames(self._disk.pieces(path)):
            if isinstance(frame, Torn):
                cannot_read(f"{path}, byte {frame.offset}", f"{len(frame.data)} bytes that are no whole frame")
            else:
                yield from frame.lines.splitlines()

    def _refused(self, path: Path, cannot_read: CannotRead) -> Iterator[Document]:
        try:
            file = KeptReader(path.parent, disk=self._disk).read(path.name)
            yield Document(str(path), file.kept.source, document_of(file), str(path))
        except (KeptDamaged, Refused) as failure:
            cannot_read(str(path), str(failure))
