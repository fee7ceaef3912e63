"""A user's machine in memory: one disk, and processes that are ended, or interrupted, at any of their calls to it.

Takes   what is to happen at which call, or at which fault point, of a process.
Gives   a `Disk` for each process, whose locks and mappings go with the process, as the kernel does it.
Never   knows what a file means.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, TypeVar

from tallypost.counts.count_file import HEADER_BYTES, metadata_in
from tallypost.seams import Clock
from tallypost.testing import FakeDisk

T = TypeVar("T")

UNFINISHED = ".tmp"


class Crash(BaseException):
    """The process ended here: nothing of it runs on, whatever it catches."""


class MachineDisk(FakeDisk):
    """The one disk of the machine; a fault point that is reached on it belongs to the process that runs."""

    def __init__(self, *, clock: Clock, trusted: bool) -> None:
        super().__init__(clock=clock)
        self.trusted = trusted
        self.running: list[ProcessDisk] = []
        self._made: dict[str, int] = {}
        self._pieces = itertools.count()

    def reach(self, point: str) -> None:
        """A fault point."""
        super().reach(point)
        if self.running:
            self.running[-1].at_point(point)

    def names(self, folder: str) -> list[str]:
        """The names in a folder; files with random names in the order in which they were made, so that runs repeat."""
        return sorted(super().names(folder), key=lambda name: (self._made.get(os.path.join(folder, name), -1), name))

    def create_block(self, path: str, content: bytes, size: int) -> Any:
        """Make a count file; as on a real disk it is an unfinished one first."""
        self._may_fail()
        unfinished = f"{path}.{next(self._pieces)}{UNFINISHED}"
        self.write(unfinished, content)
        self.reach("before_block_link")
        self.remove(unfinished)
        return super().create_block(path, content, size)

    def open_written(self, path: str, content: bytes) -> Any:
        """Make a file that is written to."""
        written = super().open_written(path, content)
        self._made[path] = next(self._pieces)
        return written

    def content(self) -> dict[str, bytes]:
        """Each file with its bytes, unfinished ones too."""
        return {path: bytes(file.content[: file.size]) for path, file in self._files.items()}

    def unfinished(self, before: float) -> list[str]:
        """The unfinished files that were last written before that instant."""
        return [path for path, file in self._files.items() if path.endswith(UNFINISHED) and file.modified < before]

    def clear(self) -> None:
        """Forget everything: a file that was mapped once holds megabytes."""
        self._files.clear()
        self._folders.clear()


class ProcessDisk:
    """The disk as one process has it."""

    def __init__(self, disk: MachineDisk) -> None:
        self._disk = disk
        self._handles: list[Handle] = []
        self.calls = 0
        self.points: dict[str, int] = {}
        self.at_calls: dict[int, Callable[[], object]] = {}
        self.at_points: dict[tuple[str, int], Callable[[], object]] = {}
        self.has_ended = False
        self.happened = 0
        self.has_read: dict[str, bytes | None] = {}

    # ---------------------------------------------------------------- what a test does to it

    def end(self) -> None:
        """End the process: the kernel gives up its locks and mappings, and nothing of it reaches the disk again."""
        self.has_ended = True
        for handle in self._handles:
            handle.give_up()
        self._handles.clear()

    def count_file(self) -> str | None:
        """The id of the count file that the process has open, or None."""
        for handle in reversed(self._handles):
            if handle.file is not None and not handle.is_over:
                return handle.file
        return None

    def at_point(self, point: str) -> None:
        """A fault point that this process reached."""
        self.points[point] = seen = self.points.get(point, 0) + 1
        self._happen(self.at_points.pop((point, seen), None))

    def _happen(self, action: Callable[[], object] | None) -> None:
        if action is not None:
            self.happened += 1
            action()

    def _do(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        if self.has_ended:
            raise Crash
        self.calls += 1
        self._happen(self.at_calls.pop(self.calls, None))
        self._disk.running.append(self)
        try:
            return call(*arguments, **named)
        finally:
            self._disk.running.pop()

    def _keep(self, inner: Any, file: str | None = None) -> Handle | None:
        if inner is None:
            return None
        handle = Handle(inner, self, file)
        self._handles = [*(each for each in self._handles if not each.is_over), handle]
        return handle

    # ---------------------------------------------------------------- the disk

    def read(self, path: str) -> bytes:
        self.has_read[path] = None
        self.has_read[path] = content = self._do(self._disk.read, path)
        return content

    def names(self, folder: str) -> list[str]:
        return self._do(self._disk.names, folder)

    def exists(self, path: str) -> bool:
        return self._do(self._disk.exists, path)

    def make_folder(self, path: str) -> bool:
        return self._do(self._disk.make_folder, path)

    def is_ours(self, path: str) -> bool:
        return self._do(self._disk.is_ours, path)

    def create(self, path: str, content: bytes) -> bool:
        return self._do(self._disk.create, path, content)

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        return self._do(self._disk.replace, path, content, durable=durable)

    def move(self, source: str, target: str) -> None:
        return self._do(self._disk.move, source, target)

    def remove(self, path: str) -> None:
        return self._do(self._disk.remove, path)

    def sweep(self, folder: str, before: float) -> None:
        return self._do(self._disk.sweep, folder, before)

    def remove_tree(self, path: str) -> None:
        return self._do(self._disk.remove_tree, path)

    def try_lock(self, path: str) -> Handle | None:
        return self._keep(self._do(self._disk.try_lock, path))

    def open_block(self, path: str) -> Handle | None:
        inner = self._do(self._disk.open_block, path)
        return self._keep(inner, _file_in(inner.view)) if inner is not None else None

    def create_block(self, path: str, content: bytes, size: int) -> Handle | None:
        return self._keep(self._do(self._disk.create_block, path, content, size), _file_in(content))

    def is_trusted(self, folder: str) -> bool:
        return self._do(self._disk.is_trusted, folder)

    def open_written(self, path: str, content: bytes) -> Handle | None:
        return self._keep(self._do(self._disk.open_written, path, content), _file_in(content))

    def modified(self, path: str) -> float:
        return self._do(self._disk.modified, path)

    def reach(self, point: str) -> None:
        if self.has_ended:
            raise Crash
        self._disk.running.append(self)
        try:
            self._disk.reach(point)
        finally:
            self._disk.running.pop()

    def __getattr__(self, name: str) -> Any:
        """Whatever else a disk can do, without anything happening there."""
        return getattr(self._disk, name)


class Handle:
    """A lock, a block, or a file that is written to, held by a process."""

    def __init__(self, inner: Any, process: ProcessDisk, file: str | None) -> None:
        self._inner, self._process, self.file = inner, process, file
        self.is_over = False

    @property
    def view(self) -> memoryview:
        """The mapping of a block."""
        view: memoryview = self._inner.view
        return view

    def grow(self, size: int) -> None:
        """Grow a block."""
        self._process._do(self._inner.grow, size)

    def write_at(self, place: int, content: bytes) -> None:
        """Write a piece."""
        self._process._do(self._inner.write_at, place, content)

    def is_there(self) -> bool:
        """Whether a file's path still leads to it."""
        is_there: bool = self._process._do(self._inner.is_there)
        return is_there

    def remove(self, path: str) -> bool:
        """Remove a block's file, and close."""
        removed: bool = self._process._do(self._inner.remove, path)
        self.is_over = True
        return removed

    def release(self) -> None:
        """Give a lock up."""
        self.give_up()

    def close(self) -> None:
        """Close a block, or a file."""
        self.give_up()

    def give_up(self) -> None:
        """What the kernel does at the latest when the process ends."""
        if not self.is_over:
            self.is_over = True
            (self._inner.release if hasattr(self._inner, "release") else self._inner.close)()


def _file_in(content: bytes | memoryview) -> str | None:
    metadata = metadata_in(bytes(content[:HEADER_BYTES]))
    return metadata.get("file") if metadata is not None else None
