"""The quarantine: what was refused for good, and damaged stretches of segments, with the reason; bounded.

Takes   bodies as posted, from ``endpoint.py``; stretches and damaged files, from ``segments.seal``.
Gives   a file each in ``quarantine/``; the oldest go when there are too many, or too many bytes.
Never   keeps who sent it; never delays an answer; never raises into a request.
"""

from __future__ import annotations

import base64
import collections
import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from .. import limits
from ..clock import Clock, stamp
from ..disk import Disk
from ..erased import Erased
from ..errors import Refused, place_of
from ..metrics import Metrics

_log = logging.getLogger(__name__)

KEPT_ENDING = ".json"
# Whole damaged files lie in this folder of the quarantine, as they are.
DAMAGED = "damaged"
_HALF_MADE_ENDING = ".making"
_encoder = msgspec.json.Encoder()


class Kept(Struct, frozen=True, omit_defaults=True):
    """A file of the quarantine: why, where from (a path, or a segment and offset), and the bytes in base64."""

    v: Literal[1]
    at: str
    code: str
    message: str
    source: str
    body: str
    encoding: str | None = None
    offset: int | None = None


class Quarantine:
    """Keeps the newest of what was refused."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk,
        clock: Clock,
        metrics: Metrics,
        token: Callable[[int], str],
        in_thread: Callable[[Callable[[], None]], object],
        files_max: int = limits.quarantine_files_max,
        bytes_max: int = limits.quarantine_bytes_max,
        erased: Erased | None = None,
    ) -> None:
        """`erased` tells which streams nothing is kept of."""
        self._folder, self._disk, self._clock, self._metrics = folder, disk, clock, metrics
        self._token, self._in_thread = token, in_thread
        self._files_max, self._bytes_max, self._erased = files_max, bytes_max, erased
        self._lock = threading.Lock()  # Protects the two below, and that one file is made or dropped at a time.
        self._files: collections.deque[tuple[str, int]] | None = None  # Oldest first; None: to be listed.
        self._has_swept, self._writes = False, 0
        self._bytes = 0
        self._waiting = threading.BoundedSemaphore(limits.quarantine_waiting_max)

    def keep_refused(self, refused: Refused, *, path: str, encoding: str, body: bytes) -> None:
        """Keep a refused document, soon and perhaps: a full queue or disk loses it, counted."""
        if not self._waiting.acquire(blocking=False):
            self._metrics.quarantine_lost.add("queue")
            return
        at = self._clock.now()
        name = f"{at:%Y%m%dT%H%M%SZ}-{refused.code}-{self._token(4)}.json"

        def write() -> None:
            try:
                if self._erased is not None and self._erased.is_named_in(body):
                    self._metrics.erased.add("refuse")
                    return
                text = base64.b64encode(body).decode("ascii")
                self._write(name, Kept(1, stamp(at), refused.code, refused.message, path, text, encoding), sync=False)
                self._metrics.quarantined.add(refused.code)
            except Exception as failure:  # noqa: BLE001  The sender has its answer; what is lost here is counted and said.
                self._metrics.quarantine_lost.add("disk")
                _log.warning("a refused document was not kept: %s", place_of(failure))
            finally:
                self._waiting.release()

        self._in_thread(write)

    def keep_torn(self, stem: str, offset: int, data: bytes) -> None:
        """Return once a damaged stretch of a segment is kept durably. The same one twice is kept once."""
        name = f"{stem.partition('-')[2].partition('-')[0]}-torn_frame-{stem.split('-', 2)[2]}-{offset}.json"
        text = base64.b64encode(data).decode("ascii")
        message = f"{len(data)} bytes that are no whole frame"
        kept = Kept(1, stamp(self._clock.now()), "torn_frame", message, stem, text, None, offset)
        self._write(name, kept, sync=True)

    def keep_damaged(self, path: Path) -> None:
        """Return once the file has a second name in ``quarantine/damaged/``, durably. The same one twice is kept once.

        It takes no room, so it counts for no bound: what is damaged stays until a person takes it away.

        Raises:
            FileNotFoundError: `path` is not there.
        """
        folder = self._folder / DAMAGED
        self._disk.make_folder(folder)
        wanted = self._disk.stat(path).inode
        for number in itertools.count(1):
            name = folder / (path.name if number == 1 else f"{path.name}.{number}")
            try:
                self._disk.link(path, name)
                break
            except FileExistsError:
                if self._disk.stat(name).inode == wanted:  # Kept before, by somebody who ended too early.
                    break
        self._disk.sync_folder(folder)

    def _write(self, name: str, kept: Kept, *, sync: bool) -> None:
        data = _encoder.encode(kept) + b"\n"
        with self._lock:
            self._writes += 1
            if self._writes % limits.quarantine_listed_writes == 0:
                self._files, self._bytes = None, 0  # Other workers keep and drop files here too.
            files = self._listed()
            made = self._folder / (name + _HALF_MADE_ENDING)
            self._disk.unlink(made)
            try:
                file = self._disk.create(made)
                try:
                    file.write(data)
                    if sync:
                        file.sync()
                finally:
                    file.close()
                self._disk.rename(made, self._folder / name)
            except OSError:
                self._disk.unlink(made)  # On a full disk it would hold room that is needed.
                raise
            if sync:
                self._disk.sync_folder(self._folder)
            if sync and any(name == known for known, _ in files):
                return  # Kept before, by a start that ended before the damaged file was gone.
            files.append((name, len(data)))
            self._bytes += len(data)
            while len(files) > 1 and (len(files) > self._files_max or self._bytes > self._bytes_max):
                oldest, size = files.popleft()
                self._disk.unlink(self._folder / oldest)
                self._bytes -= size
                self._metrics.quarantine_lost.add("bounds")

    def _listed(self) -> collections.deque[tuple[str, int]]:
        if self._files is None:
            self._files = collections.deque()
            for name in self._disk.names(self._folder):
                if name.endswith(_HALF_MADE_ENDING) and not self._has_swept:
                    self._disk.unlink(self._folder / name)
                if not name.endswith(KEPT_ENDING):
                    continue
                try:
                    size = self._disk.stat(self._folder / name).size
                except FileNotFoundError:
                    continue  # Dropped by another worker in this moment.
                self._files.append((name, size))
                self._bytes += size
            self._has_swept = True
        return self._files
