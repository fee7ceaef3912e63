from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tallypost_server import archiving, limits
from tallypost_server.archive.archivist import Round
from tallypost_server.archiving import ArchivistProcess
from tallypost_server.settings import Settings
from tallypost_server.testing import FakeClock

from .databases import Postgres


def children() -> list[int]:
    """The processes that this one has started and not yet buried."""
    return list(map(int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()))


@pytest.fixture
def started() -> Callable[[], list[int]]:
    """Tells which of them the test has started."""
    before = set(children())
    return lambda: sorted(set(children()) - before)


def wait_until(holds: Callable[[], Any]) -> None:
    for _ in range(1_000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


class Rounds:
    """An archivist that does what is said, round by round, and then ends whoever has it work."""

    def __init__(self, *rounds: Round) -> None:
        self.left, self.ended = list(rounds), threading.Event()

    def start(self) -> None:
        pass

    def round(self) -> Round:
        done = self.left.pop(0)
        if not self.left:
            self.ended.set()
        return done


def test_archivist_with_a_backlog_does_not_rest_between_its_rounds() -> None:
    """It looks for more at once, until there is none."""
    works = Rounds(Round(1, 1, 0, 0, more=True), Round(1, 0, 0, 0, more=True), Round(1, 1, 0, 0))
    begin = time.monotonic()

    archiving._for_ever(cast(Any, works), works.ended, 30.0)

    assert [] == works.left
    assert time.monotonic() - begin < 20


def test_archive_once_goes_on_while_there_is_more() -> None:
    """Also after a round in which another took up what it saw."""
    works = Rounds(Round(1, 1, 0, 0, more=True), Round(0, 0, 0, 0, more=True), Round(0, 1, 0, 0), Round(0, 0, 0, 0))

    status = archiving._until_nothing_is_due(cast(Any, works), works.ended)

    assert (0, []) == (status, works.left)


@pytest.fixture
def process(make_settings: Callable[..., Settings], clock: FakeClock) -> Iterator[ArchivistProcess]:
    made = ArchivistProcess(make_settings(scan_seconds=0.05), clock=clock)
    yield made
    made.wait()


def test_archivist_that_died_is_started_again_after_a_rest(
    process: ArchivistProcess, clock: FakeClock, data: Path, started: Callable[[], list[int]]
) -> None:
    """One that dies at once must not cost a server all its time."""
    process.tend()
    wait_until((data / "coordinator.sqlite").exists)
    (first,) = started()
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)

    process.tend()
    assert [] == started()
    clock.advance(limits.archivist_rest_seconds)
    process.tend()

    (second,) = started()
    assert first != second


def test_archivist_that_is_told_to_end_ends(
    process: ArchivistProcess, data: Path, started: Callable[[], list[int]]
) -> None:
    """After what it is at; there is nothing then that anybody has to mend."""
    process.tend()
    wait_until((data / "coordinator.sqlite").exists)

    process.end()
    process.wait()

    assert [] == started()


def test_archivist_that_hangs_is_killed_some_seconds_after_it_was_told(
    process: ArchivistProcess, clock: FakeClock, started: Callable[[], list[int]]
) -> None:
    """The server's own end has its time from the same moment."""
    process.tend()
    (child,) = started()
    os.kill(child, signal.SIGSTOP)
    process.end()
    clock.advance(limits.archivist_stop_seconds_max)

    process.wait()

    assert [] == started()


@pytest.mark.parametrize("workers", [1, 2])
def test_archivist_ends_with_a_server_that_is_killed(data: Path, workers: int) -> None:
    """However its parent ends, nothing is left behind that would work on the folder."""
    command = ["--data", str(data), "serve", "--listen", "127.0.0.1:0", "--workers", str(workers)]
    server = subprocess.Popen([sys.executable, "-m", "tallypost_server", *command], stderr=subprocess.DEVNULL)
    wait_until((data / "coordinator.sqlite").exists)

    def living() -> list[bytes]:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(path.read_bytes())
            except OSError:  # noqa: PERF203  It has ended meanwhile.
                continue
        return [line for line in lines if str(data).encode() in line]

    assert any(b"--child-of" in line for line in living())
    server.kill()
    server.wait()

    wait_until(lambda: not living())


@pytest.mark.postgres
def test_archivist_of_a_server_finds_its_database_and_shows_nobody_the_password(
    make_settings: Callable[..., Settings], clock: FakeClock, postgres: Postgres, started: Callable[[], list[int]]
) -> None:
    """Arguments of a process are seen by every user of the machine."""
    schema = postgres.schema()
    settings = make_settings(coordinator=schema.place + "&password=hush", scan_seconds=0.05)
    archivist = ArchivistProcess(settings, clock=clock)
    archivist.tend()
    try:
        (process,) = started()
        made = f"SELECT FROM pg_tables WHERE schemaname = '{schema.name}' AND tablename = 'facts'"
        wait_until(lambda: postgres.run(made))

        assert b"hush" not in Path(f"/proc/{process}/cmdline").read_bytes()
    finally:
        archivist.wait()
        schema.drop()
