"""Writing a sealed segment: lines become one well-compressed frame with a manifest beside it, under a name of its own.

Takes   pieces of whole lines, once to be looked at and once to be written.
Gives   ``segments/<stem>.jsonl.zst`` and its manifest, durable; whoever sees a segment can check it.
Never   writes over a segment; never holds more of it than a piece.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable
from pathlib import Path

import zstandard

from .. import limits
from ..disk import Disk
from .format import HALF_MADE_ENDING, MANIFEST_ENDING, SEALED_ENDING, Manifest, encode_manifest, node_in, received_in


class Told:
    """What a manifest tells of lines, gathered before they are written: a frame tells its size at its begin."""

    def __init__(self) -> None:
        self.rows = self.lines_bytes = 0
        self.first, self.last = "~", ""

    def add(self, lines: bytes) -> None:
        """Look at some lines, one at least, whose bytes are known to be those that were written.

        Raises:
            msgspec.MsgspecError: one of them is none; nothing of these was added.
        """
        rows, moments = received_in(lines)
        self.rows += rows
        self.lines_bytes += len(lines)
        self.first, self.last = min(self.first, *moments), max(self.last, *moments)


def write_segment(folder: Path, stem: str, told: Told, groups: Iterable[bytes], *, disk: Disk) -> Manifest:
    """Return once the segment is durable. On OSError nothing half made stays: it would hold room that is needed.

    Raises:
        FileExistsError: the name is taken; what has it was not touched.
        zstandard.ZstdError: `groups` are not what was told of them.
    """
    made, made_manifest = (folder / "open" / (stem + ending + HALF_MADE_ENDING) for ending in ("", ".manifest"))
    # Linking would tell that as well, but only after the other one's manifest was replaced.
    if stem + SEALED_ENDING in disk.names(folder):
        raise FileExistsError(errno.EEXIST, "there is such a segment", stem + SEALED_ENDING)
    try:
        return _make(folder, stem, told, groups, made, made_manifest, disk)
    except (OSError, zstandard.ZstdError):
        disk.unlink(made)
        disk.unlink(made_manifest)
        raise


def put_manifest(folder: Path, manifest: Manifest, made: Path, *, disk: Disk) -> None:
    """Return once the manifest's bytes are durable; its name is with the next sync of the folder."""
    disk.unlink(made)
    file = disk.create(made)
    try:
        file.write(encode_manifest(manifest))
        file.sync()
    finally:
        file.close()
    disk.rename(made, folder / (manifest.segment + MANIFEST_ENDING))


def _make(
    folder: Path, stem: str, told: Told, groups: Iterable[bytes], made: Path, made_manifest: Path, disk: Disk
) -> Manifest:
    target = folder / (stem + SEALED_ENDING)
    size, sha256 = _write(made, told.lines_bytes, groups, disk)
    node = node_in(stem)
    manifest = Manifest(1, target.name, told.rows, size, sha256, told.lines_bytes, told.first, told.last, node)
    disk.point("after_sync")
    # The manifest is durable before the segment appears.
    put_manifest(folder, manifest, made_manifest, disk=disk)
    disk.point("after_manifest")
    disk.sync_folder(folder)
    disk.point("before_link")
    disk.link(made, target)
    disk.point("after_link")
    disk.sync_folder(folder)
    disk.unlink(made)
    return manifest


def _write(made: Path, lines_bytes: int, groups: Iterable[bytes], disk: Disk) -> tuple[int, str]:
    """Write all lines as one frame: readers that take only a file's first frame then read it whole."""
    compressor = zstandard.ZstdCompressor(level=limits.sealed_zstd_level, write_checksum=True)
    stream = compressor.compressobj(size=lines_bytes)
    written, sha256 = 0, hashlib.sha256()
    disk.unlink(made)
    file = disk.create(made)
    try:
        for lines in groups:
            piece = stream.compress(lines)
            if piece:  # It gives a block once that is full.
                sha256.update(piece)
                file.write(piece)
                written += len(piece)
        piece = stream.flush()
        sha256.update(piece)
        file.write(piece)
        written += len(piece)
        disk.point("before_sync")
        file.sync()
    finally:
        file.close()
    return written, sha256.hexdigest()
