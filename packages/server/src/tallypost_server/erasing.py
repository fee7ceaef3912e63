"""Erasing a stream everywhere: wires those who do it in their rooms, in an order in which nothing comes back.

Takes   settings and the name of a stream; beside a server and archivists, or without them.
Gives   what was removed from where; done again after a crash it does the rest.
Never   returns before what a running server holds of the stream is sealed without it.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from . import archiving, limits
from .archive.parked import Parked
from .clock import Clock, SystemClock
from .disk import Disk, OsDisk
from .erased import Erased
from .errors import FolderLocked, FolderMissing, NotErasedYet
from .ingest.erase import erase_damaged, erase_kept
from .ingest.quarantine import Quarantine
from .metrics import Metrics
from .segments.erase import Moved, SegmentEraser
from .segments.recover import recover
from .segments.repair import held
from .segments.seal import Sealer
from .settings import Settings

if TYPE_CHECKING:
    from .streams.coordinator import Coordinator

Wait = Callable[[float], object]


class Removed(Struct, frozen=True):
    """How much was removed from where: lines of segments, rows of tables, files."""

    open: int
    segments: int
    coordinator: int
    reports: int
    events: int
    sessions: int
    parked: int
    quarantine: int
    damaged: int

    @property
    def nothing(self) -> bool:
        """Whether nothing was known of the stream."""
        return not any(getattr(self, name) for name in self.__struct_fields__)


class _Alone(NamedTuple):
    """The coordinator, while no archivist works; `renew` keeps it so, or raises."""

    coordinator: Coordinator
    renew: Callable[[], None]


class Erasure:
    """One erasure, on one data folder. Its methods block."""

    def __init__(
        self, settings: Settings, *, disk: Disk | None = None, clock: Clock | None = None, wait: Wait | None = None
    ) -> None:
        """Nothing is done yet.

        Raises:
            FolderMissing: no server has ever worked here.
        """
        if not settings.data.is_dir():
            raise FolderMissing("the data folder", settings.data)
        self._settings, self._data = settings, settings.data
        self._disk, self._clock = disk or OsDisk(), clock or SystemClock()
        self._wait: Wait = wait or threading.Event().wait
        self._erased = Erased(self._data / "erased", disk=self._disk)
        self.unreadable: list[str] = []
        """Damaged files that stay and of which nobody can tell whether they hold something of the stream."""

    def erase(self, stream: str) -> Removed:
        """Return once the stream is nowhere but in the hash that marks it.

        Raises:
            NotErasedYet: a server or an archivist did not let it happen in time; done again, it goes on.
        """
        self._erased.mark(stream, self._clock.now())
        self._disk.point("after_mark")
        if self._is_served():
            # Each process that takes documents has looked at the marks by then: what comes later is dropped.
            self._wait(limits.erase_wait_seconds)
        # Whatever came before is sealed then, or was not taken.
        opened = self._seal_open(stream)
        with self._alone() as alone:
            forgotten = 0 if alone is None else alone.coordinator.erase(stream)
            self._disk.point("after_forget")
            eraser = self._segment_eraser(alone)
            gone, unreadable = eraser.erase(stream)
            rows = self._erase_archive(stream, alone)
            parked = Parked(self._data / "parked", disk=self._disk).erase(stream)
            kept = erase_kept(self._data / "quarantine", stream, disk=self._disk)
            damaged, aside = erase_damaged(self._data / "quarantine", stream, disk=self._disk)
            self._disk.point("before_scrub")
            if alone is not None:
                alone.coordinator.scrub()
        self.unreadable = [*unreadable, *aside]
        return Removed(
            opened, gone, forgotten, rows["reports"], rows["events"], rows["sessions"], parked, kept, damaged
        )

    def _is_served(self) -> bool:
        return self._disk.is_locked(self._data / "lock")

    def _seal_open(self, stream: str) -> int:
        """Return once no open file has a line of the stream: how many had been there."""
        eraser = self._segment_eraser(None)
        seen: dict[str, int] = {}
        deadline = self._clock.monotonic() + 2 * self._settings.seal_seconds + limits.erase_seconds_max
        while True:
            # What no server has open, a crash has left: its half made files too.
            if self._disk.names(self._data / "segments" / "open"):
                with contextlib.suppress(FolderLocked), held(self._data / "lock", self._disk):
                    seen = {**eraser.open_lines(stream), **seen}
                    self._recover()
            left = eraser.open_lines(stream)
            seen = {**left, **seen}
            if not left:
                return sum(seen.values())
            if self._clock.monotonic() > deadline:
                raise NotErasedYet("the server has not sealed what it has open")
            self._wait(limits.erase_look_seconds)

    def _recover(self) -> None:
        metrics, segments = Metrics(), self._data / "segments"
        quarantine = Quarantine(
            self._data / "quarantine",
            disk=self._disk,
            clock=self._clock,
            metrics=metrics,
            token=lambda size: "0" * 2 * size,  # Only refused documents need one.
            in_thread=lambda job: job(),
        )
        sealer = Sealer(segments, disk=self._disk, metrics=metrics, torn_keeper=quarantine, erased=self._erased)
        recover(segments, disk=self._disk, sealer=sealer, metrics=metrics, go_on=lambda: True)

    def _segment_eraser(self, alone: _Alone | None) -> SegmentEraser:
        def tell(moved: Moved) -> None:
            if alone is not None:
                alone.renew()
                alone.coordinator.move_segment(moved.source, moved.target, moved.places)

        return SegmentEraser(self._data / "segments", disk=self._disk, tell=tell)

    def _erase_archive(self, stream: str, alone: _Alone | None) -> dict[str, int]:
        if alone is None:
            return {"reports": 0, "events": 0, "sessions": 0}
        from .archive.erase import ArchiveEraser

        tables = archiving.tables(self._settings, disk=self._disk)
        return ArchiveEraser(
            tables, lanes=range(alone.coordinator.lanes), go_on=alone.renew, point=self._disk.point
        ).erase(stream)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[_Alone | None]:
        """While the block lasts no archivist works.

        The block gets the coordinator, and what renews the leases; None where nobody has archived.
        """
        settings = self._settings
        there = archiving.has_coordinator(settings) or "://" in settings.archive or Path(settings.archive).is_dir()
        if not there:
            yield None
            return
        with archiving.coordinator(settings) as opened:
            holder = f"erase-{secrets.token_hex(8)}"
            names = ["scan", *(f"lane-{lane}" for lane in range(opened.lanes))]

            def renew() -> None:
                if not all(opened.renew(name, holder) for name in names):
                    raise NotErasedYet("another works on the archive")

            deadline = self._clock.monotonic() + limits.erase_seconds_max
            try:
                waiting = list(names)
                while waiting:
                    for name in names[: len(names) - len(waiting)]:
                        opened.hold(name, holder)
                    if opened.hold(waiting[0], holder):
                        waiting.pop(0)
                    elif self._clock.monotonic() > deadline:
                        raise NotErasedYet("an archivist is at work")
                    else:
                        self._wait(limits.erase_look_seconds)
                renew()
                yield _Alone(opened, renew)
            finally:
                for name in names:
                    opened.let_go(name, holder)
