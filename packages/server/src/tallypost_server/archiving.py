"""Wires archival: coordinator, tables and archivist on a data folder; in `serve`, a process of its own for it.

Takes   settings.
Gives   what commands read and archive with; `ArchivistProcess`, which is kept alive.
Never   imports the archive's libraries before something is archived or read: they are an extra.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import limits
from .clock import Clock, SystemClock
from .disk import Disk, OsDisk
from .erased import Erased
from .errors import CannotArchive, CoordinatorForeign, CoordinatorUnusable, ExtraMissing, FolderMissing, LeaseLost
from .segments.node import kept_node
from .settings import ARCHIVAL, POSTGRESQL, VARIABLE_PREFIX, Settings, without_password
from .workers import die_with

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from .archive.archivist import Archivist
    from .archive.check import ArchiveChecked
    from .archive.reader import ArchiveReader
    from .archive.tables import Tables
    from .archive.views import Views
    from .streams.coordinator import Coordinator

_log = logging.getLogger(__name__)
_PACKAGES = ("deltalake", "pyarrow", "sqlalchemy")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def need_archive(what: str) -> None:
    """See that the archive's libraries are installed.

    Raises:
        ExtraMissing: one is not.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ExtraMissing(what, package, "archive")


def tables(settings: Settings, *, disk: Disk | None = None) -> Tables:
    """The archive's tables."""
    need_archive("the archive")
    from .archive.store import S3_SCHEME, FolderStore, ObjectStore, S3Store
    from .archive.tables import Tables

    disk = disk or OsDisk()
    store: ObjectStore
    if settings.archive.startswith(S3_SCHEME):
        store = S3Store(settings.archive, environment=os.environ)
    else:
        store = FolderStore(Path(settings.archive), disk=disk)
    return Tables(store, clock=SystemClock(), point=disk.point)


@contextlib.contextmanager
def coordinator(settings: Settings) -> Iterator[Coordinator]:
    """The coordinator, opened.

    Raises:
        CoordinatorUnusable, CoordinatorNewer: its database cannot be used.
        CoordinatorForeign: it is another data folder's.
        ExtraMissing: what it is reached with is not installed.
    """
    engine, on_server = _engine(settings), settings.coordinator.startswith(POSTGRESQL)
    from .streams.coordinator import Coordinator

    OsDisk().make_folder(settings.data)
    lanes = limits.postgresql_lanes if on_server else limits.file_lanes
    opened = Coordinator(engine, lanes=lanes)
    try:
        node = kept_node(settings.data, disk=OsDisk()) if on_server else None
        if node is not None and not opened.belongs_to(node):
            raise CoordinatorForeign(without_password(settings.coordinator), settings.data)
        yield opened
    finally:
        opened.close()


def _engine(settings: Settings) -> Engine:
    need_archive("the coordinator")
    if settings.coordinator.startswith(POSTGRESQL) and importlib.util.find_spec("psycopg") is None:
        raise ExtraMissing("a coordinator on PostgreSQL", "psycopg", "postgres")
    from .streams.database import engine_of, url_of

    return engine_of(url_of(settings.coordinator), SystemClock())


def archivist(settings: Settings, opened: Coordinator, go_on: Callable[[], bool], batch_seconds: float) -> Archivist:
    """One of those who archive."""
    from .archive.archivist import Archivist, Rules

    for folder in ("segments", "parked"):
        OsDisk().make_folder(settings.data / folder)
    return Archivist(
        settings.data,
        coordinator=opened,
        tables=tables(settings),
        rules=Rules(settings.archive_delay, settings.archive_max_delay, batch_seconds, settings.keep_days),
        disk=OsDisk(),
        clock=SystemClock(),
        token=secrets.token_hex,
        go_on=go_on,
    )


def archive(settings: Settings, *, once: bool, parent: int | None = None) -> int:
    """Archive what is due, until SIGTERM, or once; with a parent, no longer than that lives.

    Returns the exit status: with `once`, 1 if something that was due could not be archived.
    """
    if parent is not None:
        die_with(parent)
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in _SIGNALS:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # Who serves with several workers has them blocked.
    with contextlib.suppress(PermissionError):
        os.nice(limits.archive_niceness)
    spare_the_collector()
    batch_seconds = settings.archive_batch_seconds
    if once and settings.sources["archive_batch_seconds"] == "default":
        batch_seconds = 0.0
    with coordinator(settings) as opened:
        works = archivist(settings, opened, lambda: not ended.is_set(), batch_seconds)
        if once:
            _start(works, ended)
            return _until_nothing_is_due(works, ended)
        _for_ever(works, ended, settings.scan_seconds)
    return 0


def spare_the_collector() -> None:
    """Let Python look for garbage less often: documents come by the ten thousand, and none is a part of a cycle."""
    gc.set_threshold(limits.archive_collector_objects, *gc.get_threshold()[1:])


# What one that was killed holds is free after so long; one that lives lets go sooner.
_TRIES, _PAUSE_SECONDS = int(limits.lease_seconds * 2), 0.5


def _start(works: Archivist, ended: threading.Event) -> None:
    """Start it, once nobody else is at work if that is needed.

    Raises:
        LeaseLost: somebody was for all that time.
    """
    for _ in range(_TRIES):
        try:
            return works.start()
        except LeaseLost:  # noqa: PERF203  It waits in between.
            if ended.wait(_PAUSE_SECONDS):
                return None
    return works.start()


def _until_nothing_is_due(works: Archivist, ended: threading.Event) -> int:
    failed = tries = 0
    while not ended.is_set():
        done = works.round()
        failed += done.failed
        if done.busy and tries < _TRIES:  # Another may be about to do it, or died with it in hand.
            tries += 1
            ended.wait(_PAUSE_SECONDS)
        elif not (done.registered or done.archived or done.more):
            break
    return 1 if failed else 0


def _for_ever(works: Archivist, ended: threading.Event, pause: float) -> None:
    started = False
    while not ended.is_set():
        more = False
        try:
            if not started:
                works.start()
                started = True
            more = works.round().more
        except (CannotArchive, OSError) as failure:  # Nothing is lost; what does not pass by itself is said each time.
            _log.error("%s", failure)
            started = started and not isinstance(failure, CoordinatorUnusable)
        ended.wait(0 if more else pause)


def archive_reader(settings: Settings) -> ArchiveReader:
    """What reads the archive."""
    found = tables(settings)
    from .archive.reader import ArchiveReader

    return ArchiveReader(found)


@contextlib.contextmanager
def views(settings: Settings) -> Iterator[Views]:
    """The archive as SQL asks it; an archive that nobody has written yet is empty.

    Raises:
        ExtraMissing: DuckDB, or a library of the archive, is not installed.
        FolderMissing: there is neither an archive nor a data folder that it could be of.
        ArchiveUnusable: the store refuses.
    """
    for package in ("deltalake", "duckdb", "pyarrow", "sqlalchemy"):
        if importlib.util.find_spec(package) is None:
            raise ExtraMissing("asking the archive", package, "query")
    from .archive.views import Views

    there = "://" in settings.archive or Path(settings.archive).is_dir()
    if not there and not settings.data.is_dir():
        raise FolderMissing("the archive", Path(settings.archive))
    with tempfile.TemporaryDirectory(prefix="tallypost-query-") as spill:
        opened = Views(tables(settings) if there else None, spill=spill)
        try:
            yield opened
        finally:
            opened.close()


def is_archived(settings: Settings) -> bool:
    """Whether there is an archive that can be read here."""
    if not all(importlib.util.find_spec(package) for package in _PACKAGES):
        return False
    return "://" in settings.archive or Path(settings.archive).is_dir()


def check_archive(settings: Settings) -> ArchiveChecked:
    """What is damaged or missing of the archive."""
    found, disk = tables(settings), OsDisk()
    from .archive.check import ArchiveChecker, Fault

    with contextlib.ExitStack() as stack:
        opened, problem = None, None
        try:
            if has_coordinator(settings):
                opened = stack.enter_context(coordinator(settings))
        except CannotArchive as failure:
            problem = Fault(str(failure))
        sealed = lambda: disk.names(settings.data / "segments")  # noqa: E731  It is handed on, and says only this.
        erased = Erased(settings.data / "erased", disk=disk)
        erased.scan()
        checked = ArchiveChecker(
            found,
            coordinator=opened,
            sealed=sealed,
            is_erased=erased.has,
            keep_days=settings.keep_days,
            today=SystemClock().now().date(),
        ).check()
    return checked if problem is None else checked._replace(faults=[problem, *checked.faults])


def is_settled(settings: Settings, segment: str) -> bool:
    """Whether all that a segment held is archived, a duplicate or parked; False where nobody can tell."""
    if not all(importlib.util.find_spec(package) for package in _PACKAGES):
        return False
    try:
        if not has_coordinator(settings):
            return False
        with coordinator(settings) as opened:
            return opened.segments().get(segment, False)
    except CannotArchive:
        return False


def has_coordinator(settings: Settings) -> bool:
    """Whether anybody has archived here. It makes nothing.

    Raises:
        CoordinatorUnusable: its server is away.
        ExtraMissing: what it is reached with is not installed.
    """
    if "://" not in settings.coordinator:
        return Path(settings.coordinator).exists()
    engine = _engine(settings)
    from .streams.database import is_made

    try:
        return is_made(engine)
    finally:
        engine.dispose()


class Waiting(NamedTuple):
    """What ``status`` tells of archival."""

    streams: dict[str, int]
    tasks: dict[str, int]
    oldest: float | None
    """When the oldest document was received that is registered and not archived; seconds since 1970."""
    registered: list[str]
    parked: list[dict[str, Any]]
    believed: float | None = None
    """The moment by which rows are over, and streams forgotten; seconds since 1970. Without an archive none."""


def waiting(settings: Settings) -> Waiting:
    """What is known of streams and tasks; nothing, if nobody ever archived here."""
    from .archive.parked import Parked

    parked = Parked(settings.data / "parked", disk=OsDisk()).all()
    streams = {"open": 0, "complete": 0, "sparse": 0, "parked": len(parked), "supplements": 0, "contradictions": 0}
    tasks = {"waiting": 0, "running": 0, "failed": 0}
    if not has_coordinator(settings):
        return Waiting({**streams, "duplicates": 0}, tasks, None, [], parked)
    with coordinator(settings) as opened:
        counts, registered, believed = opened.counts(), list(opened.segments()), opened.believed()
    oldest = None if counts.oldest_waiting is None else counts.oldest_waiting / 1_000_000
    moment = None if believed is None else believed / 1_000_000
    return Waiting({**streams, **counts.streams}, counts.tasks, oldest, registered, parked, moment)


class ArchivistProcess:
    """An archivist beside a server, started again when it dies. To be tended by a loop; no method blocks for long."""

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        """Nothing is started yet.

        Raises:
            ExtraMissing: the archive's libraries are not installed.
        """
        need_archive("archival beside a server (serve --no-archive does without)")
        self._command = [sys.executable, "-m", __package__, "--data", str(settings.data), "archive"]
        for name in sorted(ARCHIVAL - {"coordinator"}):
            self._command += ["--" + name.replace("_", "-"), str(getattr(settings, name))]
        # Not as an argument: those are seen by whoever looks at the machine's processes, and it may hold a password.
        self._environment = {**os.environ, VARIABLE_PREFIX + "COORDINATOR": settings.coordinator}
        self._command += ["--log-format", settings.log_format, "--child-of", str(os.getpid())]
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = clock.monotonic()
        self._told_to_end: float | None = None

    def tend(self) -> None:
        """Start it if it is not there and due."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            _log.error("the archivist ended with %d and is started again", status)
            self._process = None
            self._not_before = self._clock.monotonic() + limits.archivist_rest_seconds
        if self._clock.monotonic() >= self._not_before:
            try:
                self._process = subprocess.Popen(  # noqa: S603  Ours alone.
                    self._command, stdin=subprocess.DEVNULL, env=self._environment
                )
            except OSError as failure:  # No process or no memory left: ingestion goes on.
                _log.error("the archivist cannot be started: %s", failure)
                self._not_before = self._clock.monotonic() + limits.archivist_rest_seconds

    def end(self) -> None:
        """Tell it to end after what it is at."""
        if self._process is not None and self._told_to_end is None:
            self._told_to_end = self._clock.monotonic()
            self._process.terminate()

    def wait(self) -> None:
        """Return once it has ended; some seconds after it was told to it is killed, which loses nothing."""
        if self._process is None:
            return
        self.end()
        told = self._clock.monotonic() if self._told_to_end is None else self._told_to_end
        try:
            self._process.wait(max(0.0, told + limits.archivist_stop_seconds_max - self._clock.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
