"""Erasing from segments: a sealed one that has lines of a stream is written anew without them.

Takes   the name of a stream that is marked, and who must hear where the other lines lie now.
Gives   how many lines went; which open files still have some, until they are sealed.
Never   touches an open file; never takes a segment away before the one in its place is durable and known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from .. import limits
from ..disk import Disk
from ..erased import holds
from ..errors import SegmentDamaged
from .format import (
    MANIFEST_ENDING,
    OPEN_ENDING,
    SEALED_ENDING,
    Whole,
    decode_line,
    frames,
    is_stem,
    node_in,
    opened_in,
    stem_of,
    whole_lines,
)
from .write import Told, write_segment


class Moved(NamedTuple):
    """A segment in whose place another stands, or none; where each of its lines lies now, by where it lay."""

    source: str
    target: str | None
    places: dict[int, int]


class SegmentEraser:
    """Erases from the folder ``segments/``. One at a time; beside a server, and while no archivist works."""

    def __init__(self, folder: Path, *, disk: Disk, tell: Callable[[Moved], None]) -> None:
        """`tell` returns once it is known, durably, where lines have moved."""
        self._folder, self._disk, self._tell = folder, disk, tell

    def open_lines(self, stream: str) -> dict[str, int]:
        """The open files that have lines of a stream, and how many."""
        found = {}
        for name in self._disk.names(self._folder / "open"):
            if name.endswith(OPEN_ENDING) and is_stem(name.removesuffix(OPEN_ENDING)):
                lines = self._lines_in_open(name, stream)
                if lines:
                    found[name.removesuffix(OPEN_ENDING)] = lines
        return found

    def erase(self, stream: str) -> tuple[int, list[str]]:
        """Return once no sealed segment has a line of a stream: how many went, and which segments cannot be read."""
        gone, unreadable = 0, []
        for name in self._disk.names(self._folder):
            if name.endswith(SEALED_ENDING) and is_stem(name.removesuffix(SEALED_ENDING)):
                try:
                    gone += self._rewrite(name, stream)
                except FileNotFoundError:
                    continue
                except SegmentDamaged:
                    unreadable.append(f"segments/{name}")
        return gone, unreadable

    def _lines_in_open(self, name: str, stream: str) -> int:
        try:
            return sum(
                _is_of(line, stream)
                for frame in frames(self._disk.pieces(self._folder / "open" / name))
                if isinstance(frame, Whole)
                for line in frame.lines.splitlines()
            )
        except FileNotFoundError:
            return 0

    def _rewrite(self, name: str, stream: str) -> int:
        path = self._folder / name
        if not holds((line + b"\n" for line in whole_lines(self._disk.pieces(path))), stream):
            return 0
        told, sha256, places, erased = Told(), hashlib.sha256(), dict[int, int](), 0
        for place, line in enumerate(whole_lines(self._disk.pieces(path))):
            if _is_of(line, stream):
                erased += 1
                continue
            places[place] = len(places)
            told.add(line + b"\n")
            sha256.update(line + b"\n")
        if not erased:
            return 0
        target = None
        if told.rows:
            stem = name.removesuffix(SEALED_ENDING)
            # In place of the boot stands what it holds: done again after a crash, it gets the same name again.
            new = stem_of(opened_in(stem), node_in(stem), sha256.hexdigest()[:8], int(stem.rpartition("-")[2]))
            target = new + SEALED_ENDING
            if target not in self._disk.names(self._folder):
                write_segment(self._folder, new, told, self._kept(path, stream), disk=self._disk)
            self._disk.sync_folder(self._folder)
        self._disk.point("after_rewrite")
        self._tell(Moved(name, target, places))
        self._disk.point("after_moved")
        self._disk.unlink(path)
        self._disk.unlink(path.with_name(name + MANIFEST_ENDING))
        self._disk.sync_folder(self._folder)
        return erased

    def _kept(self, path: Path, stream: str) -> Iterator[bytes]:
        gathered: list[bytes] = []
        size = 0
        for line in whole_lines(self._disk.pieces(path)):
            if _is_of(line, stream):
                continue
            gathered.append(line + b"\n")
            size += len(line)
            if size >= limits.piece_bytes_max:
                yield b"".join(gathered)
                gathered, size = [], 0
        yield b"".join(gathered)


def _is_of(line: bytes, stream: str) -> bool:
    if stream.encode("ascii") not in line:
        return False
    try:
        return decode_line(line).stream == stream
    except (msgspec.MsgspecError, ValueError):
        return False
