"""A file system in memory, by the rules of Linux, macOS or Windows.

Takes   what is written to it.
Gives   files, folders, locks, and mapped blocks that all who open a file share.
Never   touches the machine's own, and keeps nothing for another process.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from typing import TYPE_CHECKING, Literal

from .. import limits
from ..clock import SystemClock
from .faults import Faults

if TYPE_CHECKING:
    from ..seams import Clock


_UNFINISHED = ".tmp"


class FakeDisk(Faults):
    """A file system in memory: files, folders, locks, and mapped blocks that all who open a file share.

    Args:
        rules: whose rules hold. ``"windows"``: a file that is open or mapped can be neither removed nor replaced, a
            locked range cannot be read, and no folder is another user's. ``"macos"`` and ``"windows"``: without
            ``posix_fallocate``, so that a reservation that fails leaves a part of it behind.
        clock: tells when files are written.
        lock_at: the byte that a lock covers; that of the real disk lies far behind all content.
    """

    def __init__(
        self,
        rules: Literal["linux", "macos", "windows"] = "linux",
        *,
        clock: Clock | None = None,
        lock_at: int = 1 << 40,
    ) -> None:
        super().__init__()
        self.rules = rules
        self.of_another_user: set[str] = set()
        self._is_windows, self._reserves = rules == "windows", rules == "linux"
        self._now = (clock if clock is not None else SystemClock({})).now
        self._lock_at = lock_at
        self._folders: dict[str, None] = {os.path.abspath(os.sep): None}
        self._files: dict[str, _File] = {}
        self._unfinished = itertools.count(1)

    def write(self, path: str, content: bytes) -> None:
        """Put a file there for a test, with its folders: without faults, as any other program might."""
        path = os.path.abspath(path)
        folder = os.path.dirname(path)
        while folder not in self._folders:
            self._folders[folder] = None
            folder = os.path.dirname(folder)
        self._files[path] = _File(content, self._now())

    def read(self, path: str) -> bytes:
        """The whole file."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is None:
            raise self._missing(path)
        if self._is_windows and file.lock.locked() and self._lock_at < file.size:
            raise _error(errno.EACCES, path)
        return bytes(file.content[: file.size])

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        return [name for name in self._all_names(os.path.abspath(folder)) if not name.endswith(_UNFINISHED)]

    def exists(self, path: str) -> bool:
        """Whether something has that path."""
        path = os.path.abspath(path)
        return path in self._files or path in self._folders

    def make_folder(self, path: str) -> bool:
        """Make a folder, and its parents."""
        self._may_fail()
        path = os.path.abspath(path)
        if path in self._folders:
            return False
        if path in self._files:
            raise _error(errno.EEXIST, path)
        above = os.path.dirname(path)
        if above not in self._folders:
            if above in self._files:
                raise _error(errno.ENOENT if self._is_windows else errno.ENOTDIR, path)
            self.make_folder(above)
        self._folders[path] = None
        return True

    def is_ours(self, path: str) -> bool:
        """Whether a test did not say that it is `of_another_user`."""
        path = os.path.abspath(path)
        if not self.exists(path):
            raise self._missing(path)
        return self._is_windows or path not in self.of_another_user

    def create(self, path: str, content: bytes) -> bool:
        """Put a whole file there if there is none."""
        path = os.path.abspath(path)
        unfinished = self._write_unfinished(path, content)
        self.reach("before_link")
        file = self._files.pop(unfinished)
        if path in self._folders or self._files.setdefault(path, file) is not file:
            return False
        self.reach("after_link")
        return True

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Put a whole file there, in place of what there is."""
        path = os.path.abspath(path)
        unfinished = self._write_unfinished(path, content)
        self.reach("before_rename")
        self._rename(unfinished, path)

    def move(self, source: str, target: str) -> None:
        """Give a file another path."""
        source, target = os.path.abspath(source), os.path.abspath(target)
        file = self._files.get(source)
        if file is None:
            raise self._missing(source)
        self._require_removable(source, file)
        self._require_folder_of(target)
        self._rename(source, target)

    def remove(self, path: str) -> None:
        """Remove a file."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is not None:
            self._require_removable(path, file)
            self._files.pop(path, None)
        elif not isinstance(missing := self._missing(path), FileNotFoundError):
            raise missing

    def sweep(self, folder: str, before: float) -> None:
        """Remove unfinished files."""
        folder = os.path.abspath(folder)
        for name in self._all_names(folder):
            path = os.path.join(folder, name)
            file = self._files.get(path)
            if name.endswith(_UNFINISHED) and file is not None and file.modified < before:
                self.remove(path)

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is empty."""
        path = os.path.abspath(path)
        if not self._all_names(path):
            self._folders.pop(path, None)

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all in it; where a file cannot be removed, what comes after it stays."""
        path = os.path.abspath(path)
        if path not in self._folders:
            raise _error(errno.ENOTDIR, path) if path in self._files else self._missing(path)
        below = os.path.join(path, "")
        for each in sorted(self._files):
            if each.startswith(below):
                self.remove(each)
        for each in list(self._folders):
            if each == path or each.startswith(below):
                del self._folders[each]

    def try_lock(self, path: str) -> FakeLock | None:
        """Lock a file, made if need be, without waiting."""
        path = os.path.abspath(path)
        self._require_folder_of(path)
        if path in self._folders:
            raise self._missing(path)
        file = self._files.setdefault(path, _File(b"", self._now()))
        return FakeLock(file) if file.lock.acquire(blocking=False) else None

    def open_block(self, path: str) -> FakeBlock | None:
        """Lock and map a file that is there, without waiting."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is None:
            if isinstance(missing := self._missing(path), FileNotFoundError):
                return None
            raise missing
        if not file.lock.acquire(blocking=False):
            return None
        if self._files.get(path) is file and file.size > 0:
            return FakeBlock(file, disk=self)
        file.lock.release()
        return None

    def create_block(self, path: str, content: bytes, size: int) -> FakeBlock | None:
        """Make, lock and map a file of `size` bytes that begins with `content`."""
        self._may_fail()
        path = os.path.abspath(path)
        self._require_folder_of(path)
        file = _File(content.ljust(size, b"\0"), self._now())
        file.lock.acquire()
        if not self._is_windows:  # There the file has its name from the start.
            unfinished = self._put_unfinished(path, file)
            self.reach("before_block_link")
            del self._files[unfinished]
        if path in self._folders or self._files.setdefault(path, file) is not file:
            return None
        return FakeBlock(file, disk=self)

    def is_trusted(self, folder: str) -> bool:
        """As the test says: `trusted`."""
        return self.trusted

    def open_written(self, path: str, content: bytes) -> FakeWritten | None:
        """Make a file that is written to without a lock."""
        self._may_fail()
        path = os.path.abspath(path)
        self._require_folder_of(path)
        file = _File(content, self._now())
        if path in self._folders or self._files.setdefault(path, file) is not file:
            return None
        return FakeWritten(path, file, disk=self)

    def append(self, path: str, content: bytes) -> int:
        """Put `content` at the end of a file that is there, on a line of its own, or fail."""
        self._may_fail()
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is None:
            raise self._missing(path)
        if file.size > 0 and file.content[file.size - 1 : file.size] != b"\n":
            content = b"\n" + content
        file.put(file.size, content, self._now())
        return file.size

    def modified(self, path: str) -> float:
        """When a file was last written to."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is None:
            raise self._missing(path)
        return file.modified

    def _all_names(self, folder: str) -> list[str]:
        return sorted(
            os.path.basename(path)
            for path in (*list(self._files), *list(self._folders))
            if os.path.dirname(path) == folder != path
        )

    def _write_unfinished(self, path: str, content: bytes) -> str:
        self._may_fail()
        self._require_folder_of(path)
        return self._put_unfinished(path, _File(content, self._now()))

    def _put_unfinished(self, path: str, file: _File) -> str:
        unfinished = f"{path}.{next(self._unfinished)}{_UNFINISHED}"
        self._files[unfinished] = file
        return unfinished

    def _rename(self, source: str, target: str) -> None:
        if target in self._folders:
            raise self._missing(target)
        there = self._files.get(target)
        if there is not None:
            self._require_removable(target, there)
        self._files[target] = self._files.pop(source)

    def _require_folder_of(self, path: str) -> None:
        if os.path.dirname(path) not in self._folders:
            raise self._missing(path)

    def _require_removable(self, path: str, file: _File) -> None:
        if self._is_windows and file.is_held():
            raise _error(errno.EACCES, path)

    def _missing(self, path: str) -> OSError:
        """What is raised for a path that leads to no file."""
        if path in self._folders:
            return _error(errno.EACCES if self._is_windows else errno.EISDIR, path)
        above = os.path.dirname(path)
        while above not in self._folders and above not in self._files:
            above = os.path.dirname(above)
        return _error(errno.ENOTDIR if above in self._files and not self._is_windows else errno.ENOENT, path)


class FakeLock:
    """A lock on a file in memory."""

    def __init__(self, file: _File) -> None:
        self._file = file

    def release(self) -> None:
        """Give it up."""
        self._file.lock.release()


class FakeBlock:
    """A locked file in memory, as its holder sees it mapped."""

    def __init__(self, file: _File, *, disk: FakeDisk) -> None:
        self._file, self._disk = file, disk
        self.view = file.mapped(file.size)

    def grow(self, size: int) -> None:
        """Reserve and map `size` bytes; cells that were handed out before still reach the file."""
        try:
            self._disk._may_fail()
        except OSError:
            if not self._disk._reserves:
                self._file.size += (size - self._file.size) // 2
            raise
        if size > limits.count_file_bytes_max:
            raise _error(errno.EFBIG, "a block in memory")
        self.view = self._file.mapped(size)

    def remove(self, path: str) -> bool:
        """Remove the file, if the path still leads to it, and close."""
        path = os.path.abspath(path)
        ours = self._disk._files.get(path) is self._file
        if self._disk.rules == "windows":
            self.close()
        if ours:
            try:
                self._disk._require_removable(path, self._file)
            except PermissionError:
                return False
            del self._disk._files[path]
        if self._disk.rules != "windows":
            self.close()
        return ours

    def close(self) -> None:
        """Unmap, and give up the lock."""
        self.view.release()
        self._file.lock.release()


class FakeWritten:
    """A file in memory that is written to piece by piece."""

    def __init__(self, path: str, file: _File, *, disk: FakeDisk) -> None:
        self._path, self._file, self._disk = path, file, disk
        file.writers += 1

    def is_there(self) -> bool:
        """Whether its path still leads to it."""
        return self._disk._files.get(self._path) is self._file

    def write_at(self, place: int, content: bytes) -> None:
        """Put `content` at a place, or fail."""
        self._disk._may_fail()
        self._file.put(place, content, self._disk._now())

    def close(self) -> None:
        """Close it."""
        self._file.writers -= 1


class _File:
    """A file in memory; its bytes keep their place, so that each who mapped it sees what another writes."""

    __slots__ = ("content", "lock", "modified", "size", "writers")

    def __init__(self, content: bytes, modified: float) -> None:
        self.content, self.size, self.modified = bytearray(content), len(content), modified
        # Held by the one `FakeLock` or `FakeBlock` that has it. A forked child inherits it held, as with flock.
        self.lock = threading.Lock()
        self.writers = 0

    def mapped(self, size: int) -> memoryview:
        """A view of the first `size` bytes."""
        # What is viewed cannot change its place: it gets its largest size before the first view of it.
        if len(self.content) < limits.count_file_bytes_max:
            self.content += bytes(limits.count_file_bytes_max - len(self.content))
        self.size = size
        return memoryview(self.content)[:size]

    def put(self, place: int, content: bytes, now: float) -> None:
        """Have `content` at a place; what lies between it and the end is zeros."""
        hole = bytes(max(0, place - self.size))
        self.content[place - len(hole) : place + len(content)] = hole + content
        self.size, self.modified = max(self.size, place + len(content)), now

    def is_held(self) -> bool:
        """Whether somebody has it open, or still has a view of it."""
        if self.lock.locked() or self.writers:
            return True
        try:
            self.content.append(0)
        except BufferError:
            return True
        del self.content[-1]
        return False


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
