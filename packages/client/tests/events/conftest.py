"""What the tests of events share: one process's events on a disk in memory, and the reading of what they left."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tallypost import limits
from tallypost.events.event_queue import EventQueue
from tallypost.events.session import Session
from tallypost.events.writer import EventWriter
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk

APPLICATION = "example.org/mytool"
TABLE: dict[str, dict[str, Any]] = {"export": {"format": ("pdf", "html"), "pages": "count"}, "opened": {}}


class Process:
    """A process that logs events: its queue and its writer, whose thread never runs: a test says when it writes."""

    def __init__(self, directory: StateDirectory, *, disk: FakeDisk, clock: FakeClock, letters: Callable[[], str]):
        self.mode = "local 2026-11-20 1 user"
        self.lost = 0
        self.cuts: list[str] = []
        self.started = 0
        self.queue = EventQueue(now=clock.now, start=self._start, drop=lambda: self._lose(1), forked=lambda: None)
        self.writer = EventWriter(
            self.queue,
            wanted=lambda: self.mode != "off",
            terms=self._terms,
            begin=lambda facts: Session(
                directory, facts, disk=disk, clock=clock, random_bytes=lambda n: bytes.fromhex(letters() * 2 * n)
            ),
            table=lambda key: TABLE,
            cut=self.cuts.append,
            lose=self._lose,
            clock=clock,
        )

    def log(self, name: str = "export", **fields: object) -> None:
        """Log one event."""
        self.queue.put(name, fields)

    def write(self) -> None:
        """Do what the thread does, once."""
        items = self.queue.take()
        self.writer._write(items, self.writer._clock.now() + limits.append_lock_seconds_max)

    def _start(self) -> str | None:
        self.started += 1
        return None if self.mode != "off" else "off"

    def _terms(self, now: float) -> dict[str, str] | None:
        if self.mode == "off":
            return None
        facts = {"mode": self.mode, "declaration": "00000000-1", "app": APPLICATION, "program": "mytool"}
        return {**facts, "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}

    def _lose(self, n: int) -> None:
        self.lost += n


@pytest.fixture
def disk(clock: FakeClock) -> FakeDisk:
    """A disk in memory."""
    return FakeDisk(clock=clock)


@pytest.fixture
def directory(disk: FakeDisk) -> StateDirectory:
    """A state directory that was set up."""
    directory = StateDirectory("/state", APPLICATION)
    for folder in directory.folders():
        disk.make_folder(folder)
    return directory


@pytest.fixture
def new_process(directory: StateDirectory, disk: FakeDisk, clock: FakeClock) -> Callable[[], Process]:
    """Start a process; its sessions are named a…, b…, and so on."""
    letters = iter("abcdef0123456789")
    return lambda: Process(directory, disk=disk, clock=clock, letters=lambda: next(letters))


@pytest.fixture
def process(new_process: Callable[[], Process]) -> Process:
    """A process."""
    return new_process()


@pytest.fixture
def logged(directory: StateDirectory, disk: FakeDisk) -> Callable[[], dict[str, list[dict[str, Any]]]]:
    """By session's first letter, the lines of each log: its header, then its events."""

    def read() -> dict[str, list[dict[str, Any]]]:
        return {
            name[0]: [json.loads(line) for line in disk.read(f"{directory.events}/{name}").splitlines()]
            for name in disk.names(directory.events)
        }

    return read
