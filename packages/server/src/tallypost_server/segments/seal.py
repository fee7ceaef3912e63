"""Sealing: an open file becomes one well-compressed segment with a manifest beside it.

Takes   names of open files, from ``roll.py`` and ``recover.py``.
Gives   ``segments/<stem>.jsonl.zst`` and its manifest, durable, before the open file goes.
Never   writes over a segment; never loses an open file that it could not seal; never runs in the event loop.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import zstandard

from .. import limits
from ..clock import Clock
from ..disk import Disk
from ..erased import Erased
from ..errors import SealFailed, place_of
from ..metrics import Metrics
from .format import MANIFEST_ENDING, OPEN_ENDING, SEALED_ENDING, Whole, decode_manifest, frames, stream_in
from .salvage import salvage
from .write import Told, write_segment

_log = logging.getLogger(__name__)


class TornKeeper(Protocol):
    """Where damage goes: ``ingest.quarantine.Quarantine``, handed in by the wiring."""

    def keep_torn(self, stem: str, offset: int, data: bytes) -> None:
        """Return once `data` is kept durably; raises OSError if it is not."""
        ...

    def keep_damaged(self, path: Path) -> None:
        """Return once the file itself has a second, durable name there; raises OSError if it has not."""
        ...


class Sealer:
    """Makes sealed segments, one at a time."""

    def __init__(
        self, folder: Path, *, disk: Disk, metrics: Metrics, torn_keeper: TornKeeper, erased: Erased | None = None
    ) -> None:
        """`erased` tells which streams' lines are left out."""
        self._erased = erased
        self._sealed, self._open = folder, folder / "open"
        self._disk, self._metrics, self._torn_keeper = disk, metrics, torn_keeper

    def seal(self, stem: str) -> None:
        """Return once all whole frames of the open file are in a sealed segment, and the open file is gone.

        It may be called again after a crash at any point: the segment's name is the open file's, so that the
        same lines cannot become two segments. A segment of that name that is damaged is put aside first, and made
        anew from the open file: left where it is it would be in the way for ever.

        Raises:
            SealFailed: the open file is as it was.
        """
        try:
            self._seal(stem)
        except (OSError, zstandard.ZstdError) as failure:
            raise SealFailed(stem, str(failure)) from failure

    def _seal(self, stem: str) -> None:
        source, target = self._open / (stem + OPEN_ENDING), self._sealed / (stem + SEALED_ENDING)
        self._disk.point("before_seal")
        fault = self._fault_of(target)
        if fault is None:
            # Whoever linked it may have died before the folder was durable.
            self._disk.sync_folder(self._sealed)
        else:
            if self._erased is not None:
                # Anew: whoever erases waits for what was open when it set its mark.
                self._erased.scan()
            told, torn = Told(), set[int]()
            self._look(stem, source, told, torn)
            if fault:
                self._put_aside(target, fault, open_is_whole=not torn)
            if told.rows:
                groups = (self._kept(frame.lines) for frame in self._whole(source) if frame.offset not in torn)
                manifest = write_segment(self._sealed, stem, told, groups, disk=self._disk)
                self._metrics.sealed.add()
                _log.info("sealed %s: %d rows, %d bytes", target.name, manifest.rows, manifest.bytes)
        self._disk.point("before_unlink")
        # A crash before this leaves both; the next start finds the segment whole and only removes the open file.
        self._disk.unlink(source)
        self._disk.point("after_unlink")

    def _fault_of(self, target: Path) -> str | None:
        """None if the segment is there and whole: then the open file has nothing that it lacks. Else what is wrong.

        Empty if there is no segment yet.
        """
        sha256, size = hashlib.sha256(), 0
        try:
            for piece in self._disk.pieces(target):
                sha256.update(piece)
                size += len(piece)
        except FileNotFoundError:
            return ""
        try:
            manifest = decode_manifest(self._disk.read(target.with_name(target.name + MANIFEST_ENDING)))
        except FileNotFoundError:
            return "its manifest is missing"
        except (msgspec.MsgspecError, ValueError):
            return "its manifest cannot be read"
        if (manifest.bytes, manifest.sha256) != (size, sha256.hexdigest()):
            return "it is not what its manifest says"
        return None

    def _look(self, stem: str, source: Path, told: Told, torn: set[int]) -> None:
        """See what the open file holds; its damage is kept before the file goes, and somebody is told."""
        for frame in frames(self._disk.pieces(source)):
            if isinstance(frame, Whole):
                try:
                    kept = self._kept(frame.lines)
                    if kept:
                        told.add(kept)
                    if kept is not frame.lines:
                        self._metrics.erased.add("seal", by=frame.lines.count(b"\n") - kept.count(b"\n"))
                    continue
                except msgspec.MsgspecError:
                    data = frame.lines
            else:
                data = frame.data
            torn.add(frame.offset)
            for part, begin in enumerate(range(0, len(data), limits.torn_bytes_max)):
                # Decompressed it may be more than one file takes; a frame is longer than it has parts.
                self._torn_keeper.keep_torn(stem, frame.offset + part, data[begin : begin + limits.torn_bytes_max])
            self._metrics.torn.add()
            _log.warning("%s is damaged: %d bytes at %d put into quarantine", stem, len(data), frame.offset)

    def _kept(self, lines: bytes) -> bytes:
        """The lines without those of erased streams.

        Raises:
            msgspec.MsgspecError: one of them is none.
        """
        if self._erased is None or not self._erased.any:
            return lines
        return b"".join(line for line in lines.splitlines(keepends=True) if not self._erased.has(stream_in(line)))

    def _whole(self, source: Path) -> Iterator[Whole]:
        return (frame for frame in frames(self._disk.pieces(source)) if isinstance(frame, Whole))

    def _put_aside(self, target: Path, fault: str, *, open_is_whole: bool) -> None:
        """Move a damaged segment into quarantine. All it held is in the open file, if that is whole."""
        self._metrics.damaged.add()
        _log.error("%s is damaged: %s; put into quarantine, and made anew", target.name, fault)
        if not open_is_whole:
            salvage(target, disk=self._disk)
        put_aside(target, keep=self._torn_keeper.keep_damaged, disk=self._disk)


def put_aside(target: Path, *, keep: Callable[[Path], None], disk: Disk) -> None:
    """Take a damaged segment and its manifest away, each kept durably before."""
    for path in (target, target.with_name(target.name + MANIFEST_ENDING)):
        with contextlib.suppress(FileNotFoundError):  # It has no manifest, or a crash came between the two.
            keep(path)
        disk.unlink(path)
    disk.sync_folder(target.parent)


class SealThread:
    """Seals in a thread of its own what is handed over, so that no answer waits for it."""

    def __init__(self, sealer: Sealer, *, clock: Clock, metrics: Metrics) -> None:
        self._sealer, self._clock, self._metrics = sealer, clock, metrics
        self._wake = threading.Condition()  # Protects the three below.
        self._waiting: collections.deque[str] = collections.deque()
        self._refused: list[tuple[float, str]] = []  # When to try again, and what.
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="sealer", daemon=True)

    def start(self) -> None:
        """Begin to seal."""
        self._thread.start()

    def hand_over(self, stem: str) -> None:
        """Seal this open file soon; it grows no more."""
        with self._wake:
            self._waiting.append(stem)
            self._wake.notify()

    def tick(self) -> None:
        """Try again what the disk refused some time ago."""
        with self._wake:
            now = self._clock.monotonic()
            due = [stem for moment, stem in self._refused if moment <= now]
            if due:
                self._refused = [entry for entry in self._refused if entry[0] > now]
                self._waiting.extend(due)
                self._wake.notify()

    def stop(self, seconds: float) -> bool:
        """Seal what waits and what was refused once more, then end. False if that took longer than `seconds`."""
        with self._wake:
            self._stopping = True
            self._waiting.extend(stem for _, stem in self._refused)
            self._refused = []
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        _step_back()
        while True:
            with self._wake:
                while not (self._waiting or self._stopping):
                    self._wake.wait()
                if not self._waiting:
                    return
                stem = self._waiting.popleft()
            try:
                self._sealer.seal(stem)
            except Exception as failure:  # noqa: BLE001  Its open file stays, for another try or the next start.
                self._metrics.seal_failures.add()
                _log.error("%s", failure if isinstance(failure, SealFailed) else f"sealing {stem}: {place_of(failure)}")
                with self._wake:
                    self._refused.append((self._clock.monotonic() + limits.seal_retry_seconds, stem))


def _step_back() -> None:
    """Let this thread run when nobody else wants to: whoever posts waits for the others, and nobody for this one."""
    # Of a thread, on Linux alone; elsewhere it would be the whole process.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), limits.seal_niceness)
