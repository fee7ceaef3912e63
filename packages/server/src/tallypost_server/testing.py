"""Disks and clocks that do what real ones do only on a bad day, for tests of this and of what is built on it.

Takes   a script of failures, gates and kills; a time to begin at.
Gives   `FaultyDisk`, `FakeClock`, and `check`, which says whether what lies in a data folder is sound.
Never   differs from the real ones where nothing was scripted: one suite of checks holds for both.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import errno
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import zstandard

from .disk import FILE_MODE, FOLDER_MODE, Disk, FaultPoint, File, Lock, OsDisk, Stat
from .segments.format import (
    MANIFEST_ENDING,
    SEALED_ENDING,
    decode_line,
    decode_manifest,
)

Operation: TypeAlias = Literal[
    "create", "read", "write", "sync", "cut", "sync_folder", "sync_file", "link", "rename", "free_bytes"
]
# What a power cut leaves of a file that somebody else wrote, and that was not made durable.
Fate: TypeAlias = Literal["absent", "empty", "half", "whole"]


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class FaultyDisk:
    """A real disk with a script: operations that fail, syncs that wait at a gate, points at which the process ends.

    Its syncs are noted and not made: a test's files need not outlive the machine, and waiting for the disk is
    most of what a test of storage takes.
    """

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = disk or OsDisk()
        self._failures: dict[Operation, collections.deque[OSError | None]] = collections.defaultdict(collections.deque)
        self._gate = threading.Event()
        self._gate.set()
        self._sync_seconds: float | None = None
        self._kill_at: FaultPoint | None = None
        self._kill: Callable[[], None] = _raise_killed
        self._names: set[Path] = set()  # Made since their folder was last synced.
        self._names_lock = threading.Lock()  # Protects them: committer and sealer are threads of their own.
        self._synced_sizes: dict[int, int] = {}  # How much of a file is durable, by inode.
        self._folders: set[Path] = set()  # Those whose names are durable.
        self._before: Callable[[], None] = lambda: None
        self.removed: dict[Path, bytes] = {}  # What a power cut may bring back: removed since its folder was synced.
        self.free: int | None = None  # What `free_bytes` says; None: the truth.
        self.synced: list[bytes] = []  # What each sync since the start made durable.
        self._at_gate = threading.Semaphore(0)  # Released each time a sync comes to a closed gate.

    def fail(self, operation: Operation, number: int = errno.EIO, *, after: int = 0, times: int = 1) -> None:
        """Let `operation` fail so many times, after so many that succeed. A failing write leaves half of it behind."""
        script = self._failures[operation]
        script.extend([None] * after)
        script.extend(OSError(number, os.strerror(number)) for _ in range(times))

    def forgive(self) -> None:
        """Let nothing fail any more."""
        self._failures.clear()

    def close_gate(self) -> None:
        """Let each sync wait until `open_gate`."""
        self._gate.clear()

    def wait_at_gate(self) -> None:
        """Return once a sync waits at the closed gate; each one is waited for once."""
        assert self._at_gate.acquire(timeout=10), "no sync came to the gate"

    def open_gate(self) -> None:
        """Let all syncs go on."""
        self._gate.set()

    def slow(self, seconds: float) -> None:
        """Let each sync take so long."""
        self._sync_seconds = seconds
        self._gate.clear()

    def kill_at(self, point: FaultPoint | None, kill: Callable[[], None] | None = None) -> None:
        """End the process at `point`; by default by raising `Killed`. None: nowhere."""
        self._kill_at, self._kill = point, kill or _raise_killed

    def watch(self, before: Callable[[], None]) -> None:
        """Call `before` before each operation, and at each point."""
        self._before = before

    def power_cut(self, folder: Path, *, survives: Callable[[Path], bool] = lambda _: False) -> None:
        """Take from below `folder` what was not durable, as a machine without power does; see `left_by_power_cut`."""
        left = self.left_by_power_cut(folder, survives=survives)
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if path in left:
                os.truncate(path, left[path])
            else:
                path.unlink()

    def left_by_power_cut(
        self,
        folder: Path,
        *,
        survives: Callable[[Path], bool] = lambda _: False,
        others: Callable[[Path], Fate] = lambda _: "whole",
    ) -> dict[Path, int]:
        """Each file below `folder` of which something is left when the machine is without power, and how long it is.

        What goes are names since the last sync of their folder, and bytes since the last sync of their file. What was
        removed stays removed (or comes back: see `removed`). Of the names, which a disk may keep in any order, those
        stay that `survives` says. `others` says what is left of a file, or a folder, that was not made through this
        disk and not made durable through it.
        """
        left = {}
        for path in folder.rglob("*"):
            above = [parent for parent in path.parents if folder in parent.parents]
            if not path.is_file() or any(others(each) == "absent" for each in above if each not in self._folders):
                continue
            found = path.stat()
            if found.st_ino in self._synced_sizes:
                if path not in self._names or survives(path):
                    left[path] = self._synced_sizes[found.st_ino]
            elif (fate := others(path)) != "absent":
                left[path] = {"empty": 0, "half": found.st_size // 2, "whole": found.st_size}[fate]
        return left

    def create(self, path: Path) -> File:
        """A new empty file."""
        self._meet("create")
        file = _FaultyFile(self, self._disk.create(path), self._disk.stat(path).inode)
        self._made(path)
        return file

    def read(self, path: Path) -> bytes:
        """All of a file."""
        self._meet("read")
        return self._disk.read(path)

    def pieces(self, path: Path) -> Iterator[bytes]:
        """All of a file, piece by piece."""
        self._meet("read")
        yield from self._disk.pieces(path)

    def stat(self, path: Path) -> Stat:
        """A file's size and times."""
        return self._disk.stat(path)

    def names(self, folder: Path) -> list[str]:
        """The names in a folder."""
        return self._disk.names(folder)

    def make_folder(self, folder: Path) -> None:
        """See that a folder is there."""
        self._before()
        self._disk.make_folder(folder)
        with self._names_lock:
            self._folders |= {folder, *folder.parents}

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in a folder are durable."""
        self._meet("sync_folder")
        self._disk.stat(folder)  # A folder that is not there cannot be synced.
        inside = {folder / name for name in self._disk.names(folder) if (folder / name).is_dir()}
        with self._names_lock:
            self._names = {path for path in self._names if path.parent != folder}
            self._folders |= inside
            self.removed = {path: data for path, data in self.removed.items() if path.parent != folder}

    def sync_file(self, path: Path) -> None:
        """Return once a file's content is durable."""
        self._meet("sync_file")
        found = self._disk.stat(path)
        with self._names_lock:
            if found.inode not in self._synced_sizes:
                self._names.add(path)  # Somebody else's, whose name nobody has synced.
            self._synced_sizes[found.inode] = found.size

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""
        self._meet("link")
        self._disk.link(source, target)
        self._made(target)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name."""
        self._meet("rename")
        self._forget(target)
        self._disk.rename(source, target)
        self._made(target)

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        self._before()
        with contextlib.suppress(FileNotFoundError):
            self.removed[path] = self._disk.read(path)
        self._forget(path)
        self._disk.unlink(path)

    def free_bytes(self, folder: Path) -> int:
        """How much may still be written, or what the script says."""
        self._meet("free_bytes")
        return self._disk.free_bytes(folder) if self.free is None else self.free

    def lock(self, path: Path) -> Lock:
        """Hold the lock of a data folder."""
        return self._disk.lock(path)

    def is_locked(self, path: Path) -> bool:
        """Whether somebody holds this lock just now."""
        return self._disk.is_locked(path)

    def point(self, name: FaultPoint) -> None:
        """End the process here, if the script says so."""
        self._before()
        if name == self._kill_at:
            self._kill()

    def _made(self, path: Path) -> None:
        with self._names_lock:
            self._names.add(path)

    def _forget(self, path: Path) -> None:
        """Another file may get this one's inode."""
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if found.st_nlink == 1:
                self._synced_sizes.pop(found.st_ino, None)

    def _meet(self, operation: Operation) -> None:
        self._before()
        script = self._failures[operation]
        failure = script.popleft() if script else None
        if failure is not None:
            raise failure

    def _pass_gate(self) -> None:
        if not self._gate.is_set():
            self._at_gate.release()
            self._gate.wait(self._sync_seconds)


class _FaultyFile:
    """A file of a `FaultyDisk`. Syncing it again after a failed sync is an error of the program under test."""

    def __init__(self, disk: FaultyDisk, file: File, inode: int) -> None:
        self._disk, self._file, self._inode, self._size = disk, file, inode, 0
        disk._synced_sizes[inode] = 0
        self._unsynced = b""
        self._refused = False

    def write(self, data: bytes) -> None:
        try:
            self._disk._meet("write")
        except OSError:
            self._file.write(data[: len(data) // 2])
            self._size += len(data) // 2
            raise
        self._file.write(data)
        self._size += len(data)
        self._unsynced += data

    def sync(self) -> None:
        assert not self._refused, "a file that refused to sync was synced again"
        self._disk._pass_gate()
        try:
            self._disk._meet("sync")
        except OSError:
            self._refused = True
            raise
        self._disk._synced_sizes[self._inode] = self._size
        self._disk.synced.append(self._unsynced)
        self._unsynced = b""

    def cut(self, size: int) -> None:
        self._disk._meet("cut")
        self._file.cut(size)
        self._size = size
        self._disk._synced_sizes[self._inode] = min(size, self._disk._synced_sizes[self._inode])

    def close(self) -> None:
        self._file.close()


class FakeClock:
    """Time that passes only when told to."""

    def __init__(self, at: datetime.datetime) -> None:
        self._now, self._monotonic = at, 0.0
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime.datetime:
        """The present moment in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was advanced by `seconds`."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeping.append((self._monotonic + seconds, woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake in order whoever has slept long enough. Call it in the event loop of the sleepers."""
        self._now += datetime.timedelta(seconds=seconds)
        self._monotonic += seconds
        due = sorted((entry for entry in self._sleeping if entry[0] <= self._monotonic), key=lambda entry: entry[0])
        self._sleeping = [entry for entry in self._sleeping if entry[0] > self._monotonic]
        for _, woken in due:
            if not woken.done():
                woken.set_result(None)


def check(data: Path) -> list[str]:
    """What is unsound in a data folder: a sentence each, none if all is well. Ask while nobody writes."""
    problems: list[str] = []
    segments = data / "segments"
    for path in sorted(segments.glob("*")):
        if path.name.endswith(SEALED_ENDING):
            problems += _check_segment(path)
        elif path.name != "open" and not path.name.endswith(MANIFEST_ENDING):
            problems.append(f"{path.name} does not belong into segments/")
    problems += [f"{path.name} is open and ends like a sealed one" for path in (segments / "open").glob("*.zst")]
    for path in [path for folder in (segments, data / "quarantine") for path in folder.rglob("*")]:
        wanted = FOLDER_MODE if path.is_dir() else FILE_MODE
        if path.stat().st_mode & 0o777 != wanted:
            problems.append(f"{path.name} has mode {path.stat().st_mode & 0o777:o}, not {wanted:o}")
    return problems


def _check_segment(path: Path) -> list[str]:
    data = path.read_bytes()
    try:
        manifest = decode_manifest(path.with_name(path.name + MANIFEST_ENDING).read_bytes())
    except FileNotFoundError:
        return [f"{path.name} has no manifest"]
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as source:
        lines = source.read()
    rows = [decode_line(line) for line in lines.splitlines()]
    received = [row.received for row in rows]
    told = (manifest.segment, manifest.rows, manifest.bytes, manifest.sha256, manifest.lines_bytes)
    found = (path.name, len(rows), len(data), hashlib.sha256(data).hexdigest(), len(lines))
    problems = []
    if told != found:
        problems.append(f"the manifest of {path.name} tells {told}, found is {found}")
    if (manifest.first, manifest.last) != (min(received), max(received)):
        problems.append(f"the manifest of {path.name} tells other times than its lines")
    if zstandard.frame_content_size(data) != len(lines):
        problems.append(f"{path.name} is not one frame that tells its size")
    return problems


def _raise_killed() -> None:
    raise Killed
