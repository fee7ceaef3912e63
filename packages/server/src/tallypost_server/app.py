"""Wires the server: builds the rooms in the order in which data passes, starts and stops them.

Takes   settings; real or faked disk, clock and randomness.
Gives   `App`, an ASGI callable.
Never   decides anything that a room could decide.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from . import limits
from .clock import Clock, SystemClock
from .disk import Disk, Lock, OsDisk
from .erased import Erased
from .errors import CommitFailed, Declined, FolderMissing
from .ingest.admission import Admission
from .ingest.applications import Applications
from .ingest.endpoint import Ingest, Receive, Scope, Send
from .ingest.head import KINDS
from .ingest.intake import Intake
from .ingest.quarantine import Quarantine
from .ingest.senders import Senders
from .metrics import Metrics
from .segments.group_commit import GroupCommit
from .segments.node import node_of
from .segments.probe import probe
from .segments.recover import recover
from .segments.roll import OpenSegment
from .segments.seal import Sealer, SealThread
from .settings import Settings
from .shared_metrics import SharedMetrics
from .unsealed import oldest_sealed_seconds, oldest_unsealed_seconds
from .web import web
from .workers import Worker

_log = logging.getLogger(__name__)


class App:
    """The whole server but its socket. Built where it may block; `start` and `stop` belong to an event loop.

    Raises:
        FolderLocked: another server works on the data folder.
        FolderMissing: the applications folder was named and is not there.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        disk: Disk | None = None,
        clock: Clock | None = None,
        token: Callable[[int], str] = secrets.token_hex,
        body_seconds_max: float = limits.body_seconds_max,
        waiting_bytes_max: int = limits.waiting_bytes_max,
        worker: Worker | None = None,
    ) -> None:
        """`worker` is set where several serve one data folder; then the folder is locked by who started them."""
        self._settings = settings
        self._disk = disk = disk or OsDisk()
        self._clock = clock = clock or SystemClock()
        self._metrics = metrics = Metrics()
        self._segments = segments = settings.data / "segments"
        # Before the lock: a server that does not start must not hold it.
        self._applications = _registered(settings, disk)
        self._worker = worker
        self._lock: Lock | None = disk.lock(settings.data / "lock") if worker is None else None
        for folder in (segments / "open", settings.data / "quarantine"):
            disk.make_folder(folder)

        self._erased = Erased(settings.data / "erased", disk=disk)
        self._erased.scan()
        self._background = ThreadPoolExecutor(1, "quarantine")
        self._large = ThreadPoolExecutor(1, "large-documents")
        self._quarantine = Quarantine(
            settings.data / "quarantine",
            disk=disk,
            clock=clock,
            metrics=metrics,
            token=token,
            in_thread=self._background.submit,
            erased=self._erased,
        )
        self._sealer = Sealer(segments, disk=disk, metrics=metrics, torn_keeper=self._quarantine, erased=self._erased)
        self._sealing = SealThread(self._sealer, clock=clock, metrics=metrics)
        self._commit = GroupCommit(
            OpenSegment(
                segments / "open",
                disk=disk,
                clock=clock,
                node=node_of(settings.data, disk=disk, token=token),
                boot=worker.boot if worker is not None else token(4),
                seal_bytes=settings.seal_bytes,
                seal_seconds=settings.seal_seconds,
                reserve_bytes=settings.reserve_bytes,
                hand_over=self._sealing.hand_over,
            ),
            clock=clock,
            metrics=metrics,
            waiting_bytes_max=waiting_bytes_max,
        )
        self._admission = Admission(
            requests_max=limits.requests_max, held_bytes_max=limits.held_bytes_max, trouble=self._trouble
        )
        ids, run = itertools.count(1), token(4)
        self.new_id = lambda: f"{run}-{next(ids)}"
        self.intake = Intake(
            commit=self._commit,
            admission=self._admission,
            applications=self._applications,
            quarantine=self._quarantine,
            clock=clock,
            metrics=metrics,
            in_thread=lambda take: asyncio.get_running_loop().run_in_executor(self._large, take),
            senders=_senders(settings, clock, token),
            erased=self._erased,
        )
        self._ingest = Ingest(self.intake, new_id=self.new_id, body_seconds_max=body_seconds_max)
        self._shared = SharedMetrics(
            settings.data / "workers", metrics, worker.number if worker is not None else 0, disk=disk
        )
        self._web = web(
            applications=self._applications,
            clock=clock,
            metrics=metrics,
            not_ready=self._admission.not_ready,
            new_id=self.new_id,
            numbers_text=metrics.text if worker is None else self._shared.text,
        )
        metrics.waiting_bytes.ask = lambda: self._commit.waiting_bytes
        metrics.free_bytes.ask = lambda: disk.free_bytes(settings.data)
        metrics.oldest_unsealed.ask = lambda: oldest_unsealed_seconds(segments, disk=disk, clock=clock)
        metrics.oldest_sealed.ask = lambda: oldest_sealed_seconds(segments, disk=disk, clock=clock)
        metrics.parked.ask = lambda: sum(name.endswith(".jsonl") for name in disk.names(settings.data / "parked"))
        metrics.ready.ask = lambda: self._admission.not_ready() is None
        metrics.applications.ask = lambda: self._applications.count
        metrics.declarations_damaged.ask = lambda: self._applications.damaged
        self._tasks: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: the two hot paths directly, the rest by way of Starlette."""
        if scope["type"] == "http" and scope["path"] in KINDS:
            await self._ingest(scope, receive, send)
        else:
            await self._web(scope, receive, send)

    async def start(self) -> None:
        """Recover what was left open, then take documents."""
        if self._worker is not None:
            self._tasks.append(asyncio.create_task(self._beat(self._worker)))  # At once: recovery may take long.
        self._commit.start()
        self._sealing.start()
        left = await asyncio.get_running_loop().run_in_executor(None, self._recover)
        for stem in left:
            self._sealing.hand_over(stem)
        self._tasks += [asyncio.create_task(self._tick()), asyncio.create_task(self._scan())]
        if self._worker is not None:
            self._tasks.append(asyncio.create_task(self._share()))
        if self._admission.state == "starting":  # It may have been told to stop meanwhile.
            self._admission.state = "taking"

    def begin_stop(self) -> None:
        """Take nothing new; what has begun goes on."""
        self._admission.state = "stopping"

    async def stop(self) -> bool:
        """Commit and seal all there is, end the threads. False if the disk did not let that happen in time."""
        self.begin_stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        loop, until = asyncio.get_running_loop(), self._clock.monotonic() + limits.stop_seconds_max
        ended = await loop.run_in_executor(None, self._commit.stop, limits.stop_seconds_max)
        # What the committer took is gone: the time is for both.
        left = max(0.0, until - self._clock.monotonic())
        ended = await loop.run_in_executor(None, self._sealing.stop, left) and ended
        self._background.shutdown(wait=ended)
        self._large.shutdown(wait=ended)
        return ended

    def close(self) -> None:
        """Free the data folder."""
        if self._lock is not None:
            self._lock.close()

    def _recover(self) -> list[str]:
        return recover(
            self._segments,
            disk=self._disk,
            sealer=self._sealer,
            metrics=self._metrics,
            go_on=lambda: self._admission.state == "starting",
            owns=self._worker.owns if self._worker is not None else lambda boot: True,
        )

    def _trouble(self) -> Declined | None:
        if not self._commit.alive:
            return CommitFailed(RuntimeError("the committer has ended"))
        return probe(
            self._segments / "open",
            disk=self._disk,
            reserve_bytes=self._settings.reserve_bytes,
            write=self._commit.failure is not None,
        )

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(limits.tick_seconds)
            self._commit.tick()
            self._sealing.tick()

    async def _scan(self) -> None:
        while True:
            await self._clock.sleep(limits.applications_scan_seconds)
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._look)
            except FolderMissing as failure:
                _log.error("%s; what was registered stays", failure)
            except OSError as failure:
                _log.error("the marks of erased streams cannot be read: %s; those that were read stay", failure)

    def _look(self) -> None:
        self._erased.scan()
        self._applications.scan()

    async def _beat(self, worker: Worker) -> None:
        while True:
            worker.beat()
            await self._clock.sleep(limits.tick_seconds)

    async def _share(self) -> None:
        while True:
            await asyncio.get_running_loop().run_in_executor(None, self._shared.write)
            await self._clock.sleep(limits.metrics_seconds)


def _registered(settings: Settings, disk: Disk) -> Applications:
    disk.make_folder(settings.data)
    if settings.sources["applications"] == "default":
        disk.make_folder(settings.applications)
    applications = Applications(settings.applications, disk=disk)
    applications.scan()
    return applications


def _senders(settings: Settings, clock: Clock, token: Callable[[int], str]) -> Senders | None:
    if not settings.rate_per_address:
        return None
    return Senders(
        per_minute=settings.rate_per_address,
        trusted_hops=settings.trusted_hops,
        key=bytes.fromhex(token(16)),
        now=clock.monotonic,
    )


class Prepared(NamedTuple):
    """A data folder that several workers may serve: its lock, which who starts them holds, and a name for this run."""

    lock: Lock
    run: str


def prepare(settings: Settings) -> Prepared:
    """Make a data folder ready for several workers.

    Raises:
        FolderLocked: another server works on the data folder.
        FolderMissing: the applications folder was named and is not there.
    """
    disk = OsDisk()
    _registered(settings, disk)
    lock = disk.lock(settings.data / "lock")
    node_of(settings.data, disk=disk, token=secrets.token_hex)
    disk.make_folder(settings.data / "workers")
    for name in disk.names(settings.data / "workers"):
        disk.unlink(settings.data / "workers" / name)  # Of the last run.
    return Prepared(lock, secrets.token_hex(4))
