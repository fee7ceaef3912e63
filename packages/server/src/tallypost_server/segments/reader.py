"""Reading segments, sealed and open, beside a server that writes.

Takes   the folder ``segments/``.
Gives   lines, and a stream's entries in index order, each once; counts for ``status``.
Never   writes, locks, holds a whole file, or counts on one to be there a moment later.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
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
from .truth import line_of

_log = logging.getLogger(__name__)


class SegmentCounts(NamedTuple):
    """How many segments there are, their bytes on disk, and when the oldest line was received (None: no line)."""

    open: int
    sealed: int
    bytes: int
    oldest: float | None


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

    def entries(self, stream: str) -> list[dict[str, Any]]:
        """A stream's entries as ``show`` prints them.

        Raises:
            UnknownStream: no segment has a document of it.
        """
        mark = b'"stream":"%s"' % stream.encode("utf-8", "replace")
        # Of a damaged segment a line may come out that nobody stored: only what is sound is shown.
        found = {line: line_of(line) for line in self.lines() if mark in line}
        sound = (line for line in found.values() if isinstance(line, Line) and line.stream == stream)
        # The document received first wins, so the order on disk and double reading do not matter.
        lines = sorted(sound, key=lambda line: line.received)
        if not lines:
            raise UnknownStream(stream)
        if lines[0].kind == "report":
            return [{"index": 0, "doc": lines[0].doc}]
        return _entries_of([line for line in lines if line.kind == "events"])

    def counts(self) -> SegmentCounts:
        """How much there is."""
        opened, sealed = self._open(), self._sealed()
        total = 0
        for path in (*opened, *sealed):
            with contextlib.suppress(FileNotFoundError):  # Sealed, or taken away, between the list and here.
                total += self._disk.stat(path).size
        moments = [opened_in(path.name.removesuffix(OPEN_ENDING)).timestamp() for path in opened[:1]]
        if sealed:  # Names begin with a time, so the first name is the oldest.
            moments.append(self._oldest_in(sealed[0]))
        return SegmentCounts(len(opened), len(sealed), total, min(moments, default=None))

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


def _entries_of(lines: list[Line]) -> list[dict[str, Any]]:
    """Events, gaps and lost ranges of a session, in index order."""
    content: dict[int, dict[str, Any]] = {}
    lost: list[tuple[int, int]] = []
    ends = [-1]  # The highest of them is the highest index known to have been.
    terminal: int | None = None
    for line in lines:
        assert line.first is not None
        assert line.last is not None
        assert line.lost is not None
        begin = line.first + line.lost
        for place, event in enumerate(msgspec.json.decode(line.doc)["events"]):
            content.setdefault(begin + place, event)
        if line.lost:
            lost.append((line.first, begin))
        ends.append(line.last)
        terminal = line.terminal if terminal is None else terminal
    if terminal is not None:
        ends.append(terminal)
    entries: list[dict[str, Any]] = []
    position = 0
    for index in [*sorted(content), max(ends) + 1]:
        # Content that came for a lost index is kept: only what lies between content is looked up among the lost.
        entries += _hole(position, index, lost)
        if content.get(index):  # {} keeps its place and says nothing.
            entries.append({"index": index, **content[index]})
        position = index + 1
    return entries


def _hole(begin: int, end: int, lost: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """What to say of the indexes from `begin` up to `end`, which have no content."""
    for low, high in sorted(lost):
        low, high = max(low, begin), min(high, end)
        if low >= high:
            continue
        if low > begin:
            yield {"gap": [begin, low - 1]}
        yield {"lost": [low, high - 1]}
        begin = high
    if begin < end:
        yield {"gap": [begin, end - 1]}
