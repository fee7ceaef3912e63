"""Salvage: what can be read of a damaged sealed segment is written anew, under a name of its own.

Takes   a damaged segment.
Gives   a sealed segment with every sound line of it, in their order, or none if there is no such line.
Never   touches the damaged one, or a segment that is there; never makes two of one: the name follows from the bytes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from .. import limits
from ..disk import Disk
from ..errors import SegmentDamaged
from .format import SEALED_ENDING, Manifest, node_in, opened_in, sealed_lines, stem_of
from .truth import problem_of
from .write import Told, write_segment

_log = logging.getLogger(__name__)


def salvage(damaged: Path, *, disk: Disk) -> Manifest | None:
    """Return once every sound line of `damaged` is in a segment of its own; None if there is no sound line.

    Called again after a crash it finds its own segment, and leaves it.
    """
    sha256 = hashlib.sha256()
    for piece in disk.pieces(damaged):
        sha256.update(piece)
    stem, folder = damaged.name.removesuffix(SEALED_ENDING), damaged.parent
    # In place of the boot stands what the damaged file's bytes are: the same damage gets the same name again.
    new = stem_of(opened_in(stem), node_in(stem), sha256.hexdigest()[:8], int(stem.rpartition("-")[2]))
    told = Told()
    for lines in _sound(damaged, disk):
        told.add(lines)
    if not told.rows:
        return None
    try:
        return write_segment(folder, new, told, _sound(damaged, disk), disk=disk)
    except FileExistsError:
        # Linked by a salvage that ended before the damaged file was gone: the name says of which bytes it is.
        name = new + SEALED_ENDING
        return Manifest(1, name, told.rows, 0, "", told.lines_bytes, told.first, told.last, node_in(stem))


def _sound(damaged: Path, disk: Disk) -> Iterator[bytes]:
    """Its sound lines, some at a time."""
    gathered: list[bytes] = []
    size = 0
    try:
        for line in sealed_lines(disk.pieces(damaged)):
            if problem_of(line) is None:
                gathered.append(line + b"\n")
                size += len(line)
                if size >= limits.piece_bytes_max:
                    yield b"".join(gathered)
                    gathered, size = [], 0
    except SegmentDamaged as damage:
        # Whoever calls knows of it. What stands before the damage is what is salvaged.
        _log.debug("%s is %s", damaged.name, damage)
    if gathered:
        yield b"".join(gathered)
