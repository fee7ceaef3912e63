"""A power cut at every moment of an archivist's work, on a disk that knows what was made durable."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from tallypost_server import limits
from tallypost_server.archive.store import FolderStore
from tallypost_server.segments.format import MANIFEST_ENDING, SEALED_ENDING
from tallypost_server.streams.coordinator import Coordinator
from tallypost_server.streams.task import Mark
from tallypost_server.testing import Fate, FaultyDisk

DATABASE = "coordinator.sqlite"
REPORTS = [format(number, "032x") for number in range(4)]
SESSIONS = [format(number, "032x") for number in range(16, 20)]


class Camera:
    """Keeps what a power cut would leave of a data folder, at each operation of its disk; each different state once."""

    def __init__(self, data: Path, disk: FaultyDisk, into: Path, durable: dict[str, bytes] | None = None) -> None:
        """`durable` are the coordinator's files as they are left, if not whole."""
        self._data, self._disk, self._into, self._durable = data, disk, into, durable
        self._seen: set[str] = set()
        self.kept: list[Path] = []

    def take(self) -> None:
        """Keep the states that a power cut may leave now."""
        back = {str(path.relative_to(self._data)): content for path, content in self._disk.removed.items()}
        for fate in get_args(Fate):
            self._keep(self._left(fate))
            self._keep(self._left(fate) | back)

    def _left(self, fate: Fate) -> dict[str, bytes]:
        archive = self._data / "archive"
        left = self._disk.left_by_power_cut(
            self._data, others=lambda path: fate if archive in path.parents else "whole"
        )
        state = {str(path.relative_to(self._data)): path.read_bytes()[:size] for path, size in left.items()}
        if self._durable is not None:
            state = {name: content for name, content in state.items() if not name.startswith(DATABASE)} | self._durable
        return {name: content for name, content in state.items() if not name.endswith("-shm")}  # SQLite makes it anew.

    def _keep(self, state: dict[str, bytes]) -> None:
        told = hashlib.sha256()
        for name, content in sorted(state.items()):
            told.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        if told.hexdigest() in self._seen:
            return
        self._seen.add(told.hexdigest())
        folder = self._into / format(len(self.kept), "04d")
        (folder / "segments" / "open").mkdir(parents=True)
        for name, content in state.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.kept.append(folder)


@pytest.fixture
def local(on: Callable[..., Any], data: Path, disk: FaultyDisk) -> Any:
    """A world of which all lies on the one disk, the coordinator too."""
    return on(data, FolderStore(data / "archive", disk=disk))


@pytest.fixture
def sealed(local: Any, report: Callable[..., bytes], batch: Callable[..., bytes]) -> Callable[..., None]:
    """Seals the reports, or sessions, of these numbers, in one segment."""

    def seal(first: int, end: int, kinds: str) -> None:
        bodies = [report(id=name) for name in REPORTS[first:end] if "report" in kinds]
        bodies += [batch(3, session=name, terminal=2) for name in SESSIONS[first:end] if "session" in kinds]
        local.seal(*bodies)

    return seal


@pytest.fixture
def durable(data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The least that a power cut leaves of the coordinator: what it was when it last let segments go."""
    files: dict[str, bytes] = {}
    settled = Coordinator.settled

    def noted(coordinator: Coordinator) -> list[str]:
        names = settled(coordinator)
        if names:
            files.clear()
            files.update({path.name: path.read_bytes() for path in data.glob(f"{DATABASE}*")})
        return names

    monkeypatch.setattr(Coordinator, "settled", noted)
    return files


@pytest.mark.parametrize("coordinator", ["as it was", "as it was durable", "lost"])
@pytest.mark.parametrize(
    ("kinds", "before"),
    [
        ("reports", True),
        pytest.param("reports and sessions", False, marks=pytest.mark.long),
        pytest.param("reports and sessions", True, marks=pytest.mark.long),
    ],
)
def test_power_cut_at_any_moment_loses_nothing_and_doubles_nothing(
    local: Any,
    on: Callable[..., Any],
    sealed: Callable[..., None],
    data: Path,
    disk: FaultyDisk,
    tmp_path: Path,
    durable: dict[str, bytes],
    coordinator: str,
    kinds: str,
    before: bool,
) -> None:
    """Whatever is left of the library's own files, absent, empty, half or whole: each row is there once in the end."""
    if before:
        sealed(0, 2, kinds)
        local.work()
    sealed(2, 4, kinds)
    camera = Camera(data, disk, tmp_path / "left", durable if coordinator == "as it was durable" else None)
    archivist = local.archivist()
    disk.watch(camera.take)
    local.work(archivist)
    disk.watch(lambda: None)
    camera.take()
    reports = {REPORTS[number]: 1 for number in range(0 if before else 2, 4)}
    sessions = SESSIONS[0 if before else 2 :] if "session" in kinds else []

    for left in camera.kept:
        found = on(left, FolderStore(left / "archive", disk=FaultyDisk()), FaultyDisk())
        if coordinator == "lost":
            found.lose_coordinator()
        local.clock.advance(121)  # Whoever held a lease is no more.
        found.work()
        assert reports == found.reports(), left
        assert {(name, index): 1 for name in sessions for index in range(3)} == found.events(), left
        assert ["complete"] * len(sessions) == [found.part(name)["state"] for name in sessions], left
        assert [] == found.segments(), left
        found.close()
        shutil.rmtree(left)
    assert len(camera.kept) >= 10


@pytest.fixture
def removed(data: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a command; the segments that it removed, none while anything of the coordinator's log was not synced."""

    def run(*command: str) -> list[str]:
        trace, calls = tmp_path / "trace", "trace=pwrite64,fsync,fdatasync,unlink,unlinkat"
        program = [sys.executable, "-m", "tallypost_server", "--data", str(data), *command]
        subprocess.run(["strace", "-f", "-y", "-qq", "-o", str(trace), "-e", calls, *program], check=True)
        unsynced, gone = set[str](), []
        for line in trace.read_text().splitlines():
            called = re.search(rf"(\w+)\(.*?({DATABASE}[\w-]*|documents-[\w.-]+)", line)
            if called is None:
                continue
            call, name = called.groups()
            if call == "pwrite64":
                unsynced.add(name)
            elif call in ("fsync", "fdatasync"):
                unsynced.discard(name)
            elif name.endswith((SEALED_ENDING, MANIFEST_ENDING)):  # And not half made.
                assert f"{DATABASE}-wal" not in unsynced
                gone += [name] * name.endswith(SEALED_ENDING)
        return gone

    return run


NOW = ("--archive-delay", "0", "--archive-batch-seconds", "0")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed here; CI has it")
def test_segment_goes_once_the_coordinators_word_is_durable(
    local: Any, sealed: Callable[..., None], removed: Callable[..., list[str]]
) -> None:
    """As the kernel sees it, when all that is in it is archived, or was before."""
    for number in range(3):
        sealed(number, number + 1, "reports and sessions")
    sealed(0, 3, "reports and sessions")

    assert 4 == len(removed("archive", "--once", *NOW))
    assert [] == local.segments()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed here; CI has it")
def test_segment_without_an_erased_stream_is_known_durably_before_the_other_goes(
    local: Any, batch: Callable[..., bytes], removed: Callable[..., list[str]]
) -> None:
    """As the kernel sees it, for one whose lines wait, and for one of which nothing is left."""
    local.seal(batch(1, session=SESSIONS[0]), batch(1, session=SESSIONS[1]))
    local.seal(batch(1, session=SESSIONS[0], first=5))
    assert [] == removed("archive", "--once", *NOW)

    assert 2 == len(removed("erase", "--stream", SESSIONS[0]))
    assert 1 == len(local.segments())


@pytest.mark.long
@pytest.mark.timeout(300)
def test_power_cut_while_a_log_begins_anew_leaves_all_rows(
    local: Any, on: Callable[..., Any], sealed: Callable[..., None], data: Path, disk: FaultyDisk, tmp_path: Path
) -> None:
    """The checkpoint is durable before an older entry goes; a torn one is undone, and made again."""
    sealed(0, 4, "reports")
    local.work()
    tables = local.tables()
    for number in range(limits.checkpoint_commits):
        tables.spend("reports", 1, Mark.of(number + 1, "ab" * 16))
    camera = Camera(data, disk, tmp_path / "left")
    disk.watch(camera.take)
    assert tables.checkpoint("reports")
    disk.watch(lambda: None)
    camera.take()
    local.close()

    # Of the removals, which are all alike, some will do.
    looked_at = [
        left for place, left in enumerate(camera.kept) if place < 16 or place % 24 == 0 or left is camera.kept[-1]
    ]
    for left in looked_at:
        found = on(left, FolderStore(left / "archive", disk=FaultyDisk()), FaultyDisk())
        found.clock.advance(121)
        found.work()
        assert dict.fromkeys(REPORTS, 1) == found.reports(), left
        assert Mark.of(limits.checkpoint_commits, "ab" * 16).spent == found.tables().mark("reports", 1), left
        found.close()
