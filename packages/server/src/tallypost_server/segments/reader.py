"""Reading segments, sealed and open, beside a server that writes.

Takes   the folder ``segments/``.
Gives   lines, and a stream's entries in index order, each once; counts for ``status``.
Never   writes, locks, holds a whole file, or counts on one to be there a moment later.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..clock import moment_of
from ..disk import Disk
from ..errors import SegmentDamaged, UnknownStream
from .format import (
    MANIFEST_ENDING,
    OPEN_ENDING,
    SEALED_ENDING,
    Line,
    Whole,
    decode_manifest,
    frames,
    is_stem,
    opened_in,
    sealed_lines,
)
from .told import Told
from .truth import line_of

_log = logging.getLogger(__name__)


class SegmentCounts(NamedTuple):
    """How many segments there are, and their bytes on disk."""

    open: int
    sealed: int
    bytes: int


class SegmentReader:
    """Reads what lies in ``segments/``."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._folder, self._disk = folder, disk

    def lines(self) -> Iterator[bytes]:
        """Every line, without its line feed. A line may come twice while its segment is being sealed.

        Those of a damaged segment are as they can be read, and may be no lines at all.
        """
        # Open ones first: a file that is sealed meanwhile is then found among the sealed ones, listed after it.
        for path in self._open():
            with contextlib.suppress(FileNotFoundError):
                for frame in frames(self._disk.pieces(path)):
                    if isinstance(frame, Whole):
                        yield from frame.lines.splitlines()
        for path in self._sealed():
            with contextlib.suppress(FileNotFoundError):
                yield from self._lines_of(path)

    def lines_of(self, stream: str) -> list[Line]:
        """A stream's documents, in the order in which they were received."""
        mark = b'"stream":"%s"' % stream.encode("utf-8", "replace")
        # Of a damaged segment a line may come out that nobody stored: only what is sound is shown.
        found = {line: line_of(line) for line in self.lines() if mark in line}
        sound = (line for line in found.values() if isinstance(line, Line) and line.stream == stream)
        # The document received first wins, so the order on disk and double reading do not matter.
        return sorted(sound, key=lambda line: line.received)

    def entries(self, stream: str) -> list[dict[str, Any]]:
        """A stream's entries as ``show`` prints them, as far as segments have them.

        Raises:
            UnknownStream: no segment has a document of it.
        """
        told = Told()
        for line in self.lines_of(stream):
            told.add_line(line)
        if told.is_empty:
            raise UnknownStream(stream)
        return told.entries()

    def oldest_but(self, registered: Collection[str]) -> float | None:
        """When the oldest line was received that lies in an open segment or in none of these sealed ones; or None."""
        moments = [opened_in(path.name.removesuffix(OPEN_ENDING)).timestamp() for path in self._open()[:1]]
        for path in self._sealed():
            if path.name not in registered:
                moments.append(self._oldest_in(path))
                break  # Names begin with a time.
        return min(moments, default=None)

    def counts(self) -> SegmentCounts:
        """How much there is."""
        opened, sealed = self._open(), self._sealed()
        total = 0
        for path in (*opened, *sealed):
            with contextlib.suppress(FileNotFoundError):  # Sealed, or taken away, between the list and here.
                total += self._disk.stat(path).size
        return SegmentCounts(len(opened), len(sealed), total)

    def _lines_of(self, path: Path) -> Iterator[bytes]:
        try:
            yield from sealed_lines(self._disk.pieces(path))
        except SegmentDamaged as damage:  # The other segments are readable, and what is read before it counts.
            _log.warning("%s is %s; see tallypost-server verify", path.name, damage)

    def _oldest_in(self, path: Path) -> float:
        try:
            manifest = decode_manifest(self._disk.read(path.with_name(path.name + MANIFEST_ENDING)))
            return moment_of(manifest.first).timestamp()
        except (FileNotFoundError, msgspec.DecodeError, ValueError):
            return opened_in(path.name.removesuffix(SEALED_ENDING)).timestamp()

    def _open(self) -> list[Path]:
        return self._files(self._folder / "open", OPEN_ENDING)

    def _sealed(self) -> list[Path]:
        return self._files(self._folder, SEALED_ENDING)

    def _files(self, folder: Path, ending: str) -> list[Path]:
        names = self._disk.names(folder)
        return [folder / name for name in names if name.endswith(ending) and is_stem(name.removesuffix(ending))]
