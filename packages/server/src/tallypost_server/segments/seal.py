"""Sealing: an open file becomes one well-compressed segment with a manifest beside it.

Takes   names of open files, from ``roll.py`` and ``recover.py``.
Gives   ``segments/<stem>.jsonl.zst`` and its manifest, durable, before the open file goes.
Never   writes over a segment; never loses an open file that it could not seal; never runs in the event loop.
"""

from __future__ import annotations

import collections
import hashlib
import logging
import threading
from pathlib import Path
from typing import Protocol

import msgspec
import zstandard

from .. import limits
from ..clock import Clock
from ..disk import Disk
from ..errors import SealFailed, place_of
from ..metrics import Metrics
from .format import (
    HALF_MADE_ENDING,
    MANIFEST_ENDING,
    OPEN_ENDING,
    SEALED_ENDING,
    Manifest,
    Received,
    Torn,
    decode_manifest,
    encode_manifest,
    frames,
    node_in,
)

_log = logging.getLogger(__name__)


class TornKeeper(Protocol):
    """Where damaged stretches go: ``ingest.quarantine.Quarantine``, handed in by the wiring."""

    def keep_torn(self, stem: str, offset: int, data: bytes) -> None:
        """Return once `data` is kept durably; raises OSError if it is not."""
        ...


class Sealer:
    """Makes sealed segments, one at a time."""

    def __init__(self, folder: Path, *, disk: Disk, metrics: Metrics, torn_keeper: TornKeeper) -> None:
        self._sealed, self._open = folder, folder / "open"
        self._disk, self._metrics, self._torn_keeper = disk, metrics, torn_keeper

    def seal(self, stem: str) -> None:
        """Return once all whole frames of the open file are in a sealed segment, and the open file is gone.

        It may be called again after a crash at any point: the segment's name is the open file's, so that the
        same lines cannot become two segments.

        Raises:
            SealFailed: the open file is as it was.
        """
        try:
            self._seal(stem)
        except OSError as failure:
            raise SealFailed(stem, str(failure)) from failure

    def _seal(self, stem: str) -> None:
        source, target = self._open / (stem + OPEN_ENDING), self._sealed / (stem + SEALED_ENDING)
        self._disk.point("before_seal")
        if not self._is_sealed(stem, target):
            lines = self._lines_of(stem, source)
            if lines:
                self._make_or_clear(stem, target, lines)
        self._disk.point("before_unlink")
        # A crash before this leaves both; the next start finds the segment whole and only removes the open file.
        self._disk.unlink(source)
        self._disk.point("after_unlink")

    def _is_sealed(self, stem: str, target: Path) -> bool:
        """Whether the segment is there and whole: then the open file has nothing that it lacks."""
        try:
            data = self._disk.read(target)
        except FileNotFoundError:
            return False
        try:
            manifest = decode_manifest(self._disk.read(self._sealed / (stem + SEALED_ENDING + MANIFEST_ENDING)))
        except (FileNotFoundError, msgspec.DecodeError) as failure:
            raise SealFailed(stem, f"{target.name} is there, but its manifest cannot be read") from failure
        if (manifest.bytes, manifest.sha256) != (len(data), hashlib.sha256(data).hexdigest()):
            raise SealFailed(stem, f"{target.name} is there, but it is not what its manifest says")
        # Whoever linked it may have died before the folder was durable.
        self._disk.sync_folder(self._sealed)
        return True

    def _lines_of(self, stem: str, source: Path) -> list[bytes]:
        groups = []
        for frame in frames(self._disk.read(source)):
            if isinstance(frame, Torn):
                # The bytes are kept before the open file goes, and somebody is told.
                self._torn_keeper.keep_torn(stem, frame.offset, frame.data)
                self._metrics.torn.add()
                _log.warning("%s is damaged: %d bytes at %d put into quarantine", stem, len(frame.data), frame.offset)
            else:
                groups.append(frame.lines)
        return groups

    def _make_or_clear(self, stem: str, target: Path, groups: list[bytes]) -> None:
        made, made_manifest = (
            self._open / (stem + HALF_MADE_ENDING),
            self._open / (stem + ".manifest" + HALF_MADE_ENDING),
        )
        try:
            self._make(stem, target, groups, made, made_manifest)
        except OSError:
            # On a full disk what is half made would hold the room that the next try needs.
            self._disk.unlink(made)
            self._disk.unlink(made_manifest)
            raise

    def _make(self, stem: str, target: Path, groups: list[bytes], made: Path, made_manifest: Path) -> None:
        manifest = self._write(made, target.name, stem, groups)
        self._disk.point("after_sync")
        # The manifest is durable before the segment appears: whoever sees a segment can check it.
        self._disk.unlink(made_manifest)
        file = self._disk.create(made_manifest)
        try:
            file.write(encode_manifest(manifest))
            file.sync()
        finally:
            file.close()
        self._disk.rename(made_manifest, self._sealed / (target.name + MANIFEST_ENDING))
        self._disk.point("after_manifest")
        self._disk.sync_folder(self._sealed)
        self._disk.point("before_link")
        self._disk.link(made, target)
        self._disk.point("after_link")
        self._disk.sync_folder(self._sealed)
        self._disk.unlink(made)
        self._metrics.sealed.add()
        _log.info("sealed %s: %d rows, %d bytes", target.name, manifest.rows, manifest.bytes)

    def _write(self, made: Path, name: str, stem: str, groups: list[bytes]) -> Manifest:
        """Write all lines as one frame: readers that take only a file's first frame then read it whole."""
        lines_bytes, rows, written = sum(map(len, groups)), 0, 0
        first, last, sha256 = "~", "", hashlib.sha256()
        compressor = zstandard.ZstdCompressor(level=limits.sealed_zstd_level, write_checksum=True)
        stream = compressor.compressobj(size=lines_bytes)
        self._disk.unlink(made)
        file = self._disk.create(made)
        try:
            for lines in groups:
                for line in lines.splitlines():
                    received = msgspec.json.decode(line, type=Received).received
                    first, last, rows = min(first, received), max(last, received), rows + 1
                piece = stream.compress(lines)
                sha256.update(piece)
                file.write(piece)
                written += len(piece)
            piece = stream.flush()
            sha256.update(piece)
            file.write(piece)
            written += len(piece)
            self._disk.point("before_sync")
            file.sync()
        finally:
            file.close()
        return Manifest(1, name, rows, written, sha256.hexdigest(), lines_bytes, first, last, node_in(stem))


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
