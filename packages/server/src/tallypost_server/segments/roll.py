"""The open segment: made when the first line comes, appended to, handed over when it is full or old.

Takes   groups of whole lines, from ``group_commit.py``, in its thread.
Gives   the return of `append`, which means *on disk*; closed open files, by name, to ``seal.py``.
Never   seals; never answers anybody; never syncs a file again that refused once.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path

import zstandard

from .. import limits
from ..clock import Clock
from ..disk import Disk, File
from ..errors import CommitFailed, NoSpace
from .format import OPEN_ENDING, stem_of

_log = logging.getLogger(__name__)


class OpenSegment:
    """At most one file in ``segments/open/`` that still grows. Used by one thread only."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk,
        clock: Clock,
        node: str,
        boot: str,
        seal_bytes: int,
        seal_seconds: float,
        reserve_bytes: int,
        hand_over: Callable[[str], None],
    ) -> None:
        self._folder, self._disk, self._clock, self._hand_over = folder, disk, clock, hand_over
        self._node, self._boot, self._sequence = node, boot, 0
        self._seal_bytes, self._seal_seconds, self._reserve_bytes = seal_bytes, seal_seconds, reserve_bytes
        self._compressor = zstandard.ZstdCompressor(level=limits.open_zstd_level, write_checksum=True)
        self._file: File | None = None
        self._stem = ""
        self._good_bytes = 0  # The file is known to be durable up to here.
        self._lines_bytes = 0
        self._begun = 0.0

    def append(self, lines: bytes) -> None:
        """Return once `lines` are on disk, as one frame.

        Raises:
            NoSpace: the disk is full, or filled to the reserve.
            CommitFailed: the disk refused. In both cases the file is cut back to its last good frame and
                handed over; the next group begins a new one.
        """
        try:
            # The reserve is what sealing writes with: without it a full disk could never be emptied.
            free = self._disk.free_bytes(self._folder)
            if free - len(lines) < self._reserve_bytes:
                raise NoSpace(free=free, reserve=self._reserve_bytes)
            file = self._file or self._begin()
            frame = self._compressor.compress(lines)
            file.write(frame)
            self._disk.point("before_commit_sync")
            file.sync()
            self._disk.point("after_commit_sync")
        except OSError as failure:
            self._abandon()
            if failure.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(free=0, reserve=self._reserve_bytes) from failure
            raise CommitFailed(failure) from failure
        self._good_bytes += len(frame)
        self._lines_bytes += len(lines)

    def roll_if_due(self) -> None:
        """Hand the file over if it is full or old."""
        if self._file is None:
            return
        if self._lines_bytes >= self._seal_bytes or self._clock.monotonic() - self._begun >= self._seal_seconds:
            self.roll()

    def roll(self) -> None:
        """Hand the file over, if there is one."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as failure:  # All of it was synced, so there is nothing left that closing could lose.
            _log.warning("closing %s failed: %s", self._stem, failure)
        self._hand_over(self._stem)

    def _begin(self) -> File:
        self._sequence += 1
        self._stem = stem_of(self._clock.now(), self._node, self._boot, self._sequence)
        self._good_bytes = self._lines_bytes = 0
        self._begun = self._clock.monotonic()
        file = self._file = self._disk.create(self._folder / (self._stem + OPEN_ENDING))
        # Without this the file's lines would be durable and its name would not.
        self._disk.sync_folder(self._folder)
        return file

    def _abandon(self) -> None:
        """Leave the file with what is good of it, without a further sync."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            try:
                file.cut(self._good_bytes)
            finally:
                file.close()
        except OSError as failure:  # Whoever reads it skips a torn frame, so a file not cut does no harm.
            _log.warning("leaving %s: %s", self._stem, failure)
        self._hand_over(self._stem)
