"""Erasing from the quarantine: what names a stream there goes, packed as it may be.

Takes   the folder ``quarantine/``, and the name of a stream.
Gives   how many files went; which of those that stay cannot be read to their end.
Never   rewrites a file: what was refused is kept to find out why, and what is damaged was put aside for a person.
"""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from ..disk import Disk
from ..erased import names_stream
from ..errors import SegmentDamaged
from ..segments.format import SEALED_ENDING, whole_lines
from .quarantine import DAMAGED, Kept

_decoder = msgspec.json.Decoder(Kept)


def erase_kept(folder: Path, stream: str, *, disk: Disk) -> int:
    """Return once no refused document that is kept, and no stretch of a segment, names a stream; how many went."""
    return _erase(folder, stream, disk)


def erase_damaged(folder: Path, stream: str, *, disk: Disk) -> tuple[int, list[str]]:
    """The same of files that were put aside whole, and which of the others cannot be read to their end."""
    gone = _erase(folder / DAMAGED, stream, disk)
    return gone, [
        f"quarantine/{DAMAGED}/{name}"
        for name in disk.names(folder / DAMAGED)
        if SEALED_ENDING in name and ".json" not in name.rpartition(SEALED_ENDING)[2]
        if not _is_readable(folder / DAMAGED / name, disk)
    ]


def _erase(folder: Path, stream: str, disk: Disk) -> int:
    gone = 0
    for name in disk.names(folder):
        if name == DAMAGED:
            continue
        try:
            data = disk.read(folder / name)
        except FileNotFoundError:  # Dropped meanwhile.
            continue
        if names_stream(data, stream) or names_stream(_body_of(data), stream):
            disk.unlink(folder / name)
            gone += 1
    if gone:
        disk.sync_folder(folder)
    return gone


def _body_of(data: bytes) -> bytes:
    try:
        return base64.b64decode(_decoder.decode(data).body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""


def _is_readable(path: Path, disk: Disk) -> bool:
    try:
        for _ in whole_lines(disk.pieces(path)):
            pass
    except SegmentDamaged:
        return False
    return True
