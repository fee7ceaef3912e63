"""What the client's tests share: a folder, a clock that stands still, a disk with faults, and an application."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry
from tallypost.counts.count_reader import Counted, read_all
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeRandom, FaultyDisk

APPLICATION = "example.org/mytool"

# A shell that runs the tests in the background has SIGINT ignored, and each program that a test starts inherits it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DECLARATION = """
application = "example.org/mytool"
contact = "privacy@example.org"
consent_version = 1

[counters."cmd/export"]
why = "Which formats are worth keeping"
owner = "export team"
buckets = ["pdf", "other"]
expires = "never"

[counters."cmd/sampled"]
why = "How often, roughly"
owner = "export team"
expires = "never"
rate = 0.25

[counters."cmd/old"]
why = "Whether anybody still does"
owner = "export team"
expires = 2026-11-22

[histograms."export/seconds"]
why = "Whether it is fast enough"
owner = "export team"
expires = "never"
edges = [0.1, 1]
"""


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at noon of 20 November 2026."""
    return FakeClock("2026-11-20T12:00:00Z")


@pytest.fixture
def disk() -> FaultyDisk:
    """A real disk on which a test can have faults happen."""
    return FaultyDisk()


@pytest.fixture
def random() -> FakeRandom:
    """Chance without surprise."""
    return FakeRandom()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of state directories."""
    return tmp_path / "state"


@pytest.fixture
def directory(base: Path) -> StateDirectory:
    """The application's state directory, not yet made."""
    return StateDirectory(str(base), APPLICATION)


@pytest.fixture
def declaration(tmp_path: Path) -> Path:
    """The application's declaration."""
    path = tmp_path / "telemetry.toml"
    path.write_text(DECLARATION)
    return path


@pytest.fixture
def application(base: Path, declaration: Path, clock: FakeClock, disk: FaultyDisk) -> Callable[..., Telemetry]:
    """Start the application once more: a process of its own, as far as its files can tell."""

    def start(**settings: object) -> Telemetry:
        given = {"declaration": declaration, "uploader": "manual", "environ": {"TALLYPOST": "on"}, **settings}
        return Telemetry(APPLICATION, "1.2.3", dir=base, clock=clock, disk=disk, **given)  # type: ignore[arg-type]  # A test's own settings.

    return start


@pytest.fixture
def counted(directory: StateDirectory, disk: FaultyDisk) -> Callable[[], dict[str, dict[str, int]]]:
    """By day, all that count files hold now."""

    def read() -> dict[str, dict[str, int]]:
        days: dict[str, dict[str, int]] = {}
        for file in read_all(directory.counts, disk=disk):
            assert isinstance(file, Counted)
            for name, n in file.values.items():
                total = days.setdefault(file.day, {})
                total[name] = total.get(name, 0) + n
        return days

    return read
