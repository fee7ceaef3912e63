"""What the tests of the contrib modules share: a telemetry object on a folder, and some that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tallypost import Telemetry
from tallypost.counts.count_reader import Counted, read_all
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk

APPLICATION = "example.org/mytool"

# Django reads its settings once a process, and wants them before anything else of it is used.
if not settings.configured:
    settings.configure(SECRET_KEY="for tests", ALLOWED_HOSTS=["testserver"])


class WithoutCounters:
    """A telemetry object from which no counter can be had."""

    def counter(self, name: str) -> None:
        raise RuntimeError(f"no counter {name}")

    def histogram(self, name: str, edges: tuple[float, ...]) -> None:
        raise RuntimeError(f"no histogram {name}")


class WithBrokenCounters:
    """A telemetry object that hands out counters which raise."""

    def counter(self, name: str) -> WithBrokenCounters:
        return self

    def histogram(self, name: str, edges: tuple[float, ...]) -> WithBrokenCounters:
        return self

    def inc(self, n: int = 1, bucket: str | None = None) -> None:
        raise RuntimeError("this counter is broken")

    def observe(self, value: float) -> None:
        raise RuntimeError("this histogram is broken")


@pytest.fixture(params=[WithoutCounters, WithBrokenCounters, object])
def broken(request: pytest.FixtureRequest) -> Any:
    """A telemetry object that is broken in one way or another."""
    return request.param()


@pytest.fixture
def telemetry(tmp_path: Path) -> Telemetry:
    """An application's telemetry, counting into a folder of its own."""
    return Telemetry(
        APPLICATION,
        "1.2.3",
        dir=tmp_path / "state",
        clock=FakeClock(),
        environ={"TALLYPOST": "local"},
        uploader="manual",
    )


@pytest.fixture
def counted(tmp_path: Path) -> Callable[..., dict[str, int]]:
    """What the count files hold now, of the names that begin so."""

    def read(begin: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        directory = StateDirectory(str(tmp_path / "state"), APPLICATION)
        for file in read_all(directory.counts, disk=FaultyDisk()):
            assert isinstance(file, Counted)
            for name, n in file.values.items():
                if name.startswith(begin) and n:
                    found[name] = found.get(name, 0) + n
        return found

    return read
