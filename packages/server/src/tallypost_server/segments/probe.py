"""The probe: whether the disk could take a group, asked when the last one failed and nobody may send the next.

Takes   the folder of open segments.
Gives   nothing, or the trouble there is.
Never   touches a segment.
"""

from __future__ import annotations

import errno
from pathlib import Path

from ..disk import Disk
from ..errors import CommitFailed, Declined, NoSpace
from .format import HALF_MADE_ENDING


def probe(folder: Path, *, disk: Disk, reserve_bytes: int, write: bool) -> Declined | None:
    """Why a group could not be stored just now, or None; with `write` a small file is written and synced."""
    path = folder / ("probe" + HALF_MADE_ENDING)
    try:
        free = disk.free_bytes(folder)
        if free <= reserve_bytes:
            return NoSpace(free=free, reserve=reserve_bytes)
        if write:
            disk.unlink(path)
            file = disk.create(path)
            try:
                file.write(b"probe\n")
                file.sync()
            finally:
                file.close()
                disk.unlink(path)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpace(free=0, reserve=reserve_bytes)
        return CommitFailed(failure)
    return None
