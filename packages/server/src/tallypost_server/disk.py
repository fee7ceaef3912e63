"""The disk: every file and folder that the server makes passes through here.

Takes   paths and bytes.
Gives   `Disk` and `File`, and the real ones as `OsDisk` and `OsFile`.
Never   knows what a segment is. Files are 0640, folders 0750, whatever the process's umask.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

from . import limits
from .errors import FolderLocked

FILE_MODE = 0o640
FOLDER_MODE = 0o750

# Places where a crash leaves a state of its own. Tests end the process at each of them.
SealPoint: TypeAlias = Literal[
    "before_seal",
    "before_sync",
    "after_sync",
    "after_manifest",
    "before_link",
    "after_link",
    "before_unlink",
    "after_unlink",
]
ArchivePoint: TypeAlias = Literal[
    "after_register",
    "before_table_commit",
    "after_table_commit",
    "after_table_durable",
    "between_tables",
    "before_finish",
    "after_finish",
    "after_manifest_unlink",
]
ErasePoint: TypeAlias = Literal[
    "after_mark",
    "after_forget",
    "after_rewrite",
    "after_moved",
    "before_replace_commit",
    "after_replace_commit",
    "after_replace",
    "before_scrub",
]
FaultPoint: TypeAlias = Literal[
    SealPoint,
    ArchivePoint,
    ErasePoint,
    "before_commit_sync",
    "after_commit_sync",
    "at_table_commit",
    "after_spend",
    "after_park",
    "before_undo",
]
# In the order in which they are passed.
SEAL_POINTS: tuple[SealPoint, ...] = get_args(SealPoint)
ARCHIVE_POINTS: tuple[ArchivePoint, ...] = get_args(ArchivePoint)
ERASE_POINTS: tuple[ErasePoint, ...] = get_args(ErasePoint)


class Stat(NamedTuple):
    """What of a file changes when its content does."""

    size: int
    changed_ns: int
    inode: int


class File(Protocol):
    """A file open for appending: ``OsFile``, or ``testing.FaultyFile``."""

    def write(self, data: bytes) -> None:
        """Append all of `data`; it is not durable yet. On OSError a part of it may have been written."""
        ...

    def sync(self) -> None:
        """Return once what was written is durable.

        After an OSError the file must not be synced again: the kernel may hold the lost pages for clean,
        and a second sync would "succeed" without them.
        """
        ...

    def cut(self, size: int) -> None:
        """Let the file end at `size`."""
        ...

    def close(self) -> None:
        """Give the descriptor back. Does not sync."""
        ...


class Lock(Protocol):
    """A held lock; the system frees it when the process ends, however it ends."""

    def close(self) -> None:
        """Free it."""
        ...


class Disk(Protocol):
    """A file system: ``OsDisk``, or ``testing.FaultyDisk``. Every call may block, and may raise OSError."""

    def create(self, path: Path) -> File:
        """A new empty file. Its name is durable only after `sync_folder`.

        Raises:
            FileExistsError: something has this name.
        """
        ...

    def read(self, path: Path) -> bytes:
        """All of a file."""
        ...

    def pieces(self, path: Path) -> Iterator[bytes]:
        """All of a file, piece by piece, none of them empty. It is opened with the first."""
        ...

    def stat(self, path: Path) -> Stat:
        """A file's size and times.

        Raises:
            FileNotFoundError: nothing has this name.
        """
        ...

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, sorted; empty if the folder is not there."""
        ...

    def make_folder(self, folder: Path) -> None:
        """See that a folder is there, with those above it, and that their names are durable."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in a folder are durable."""
        ...

    def sync_file(self, path: Path) -> None:
        """Return once the content of a file that somebody else wrote is durable."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name.

        Raises:
            FileExistsError: `target` is taken; it was not touched.
        """
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of what had it."""
        ...

    def unlink(self, path: Path) -> None:
        """Take a name away; that nothing has it is no error."""
        ...

    def free_bytes(self, folder: Path) -> int:
        """How much an unprivileged process may still write."""
        ...

    def lock(self, path: Path) -> Lock:
        """Hold the lock of a data folder.

        Raises:
            FolderLocked: another process holds it.
        """
        ...

    def is_locked(self, path: Path) -> bool:
        """Whether somebody holds this lock just now. Nothing is made, and nothing held afterwards."""
        ...

    def point(self, name: FaultPoint) -> None:
        """A place of danger is passed. The real disk does nothing here."""
        ...


class OsFile:
    """A descriptor, opened for appending."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Return once data and size are durable; times need not be."""
        os.fdatasync(self._descriptor)

    def cut(self, size: int) -> None:
        """Let the file end at `size`."""
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class OsDisk:
    """The machine's own file system."""

    def create(self, path: Path) -> File:
        """A new empty file."""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        os.fchmod(descriptor, FILE_MODE)
        return OsFile(descriptor)

    def read(self, path: Path) -> bytes:
        """All of a file."""
        return path.read_bytes()

    def pieces(self, path: Path) -> Iterator[bytes]:
        """All of a file, piece by piece."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while piece := os.read(descriptor, limits.piece_bytes_max):
                yield piece
        finally:
            os.close(descriptor)

    def stat(self, path: Path) -> Stat:
        """A file's size and times."""
        found = path.stat()
        return Stat(found.st_size, found.st_mtime_ns, found.st_ino)

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, sorted."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def make_folder(self, folder: Path) -> None:
        """See that a folder is there, durably."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        try:
            folder.mkdir(FOLDER_MODE)
        except FileExistsError:
            if folder.is_dir():
                return
            raise
        folder.chmod(FOLDER_MODE)
        self.sync_folder(folder.parent)

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in a folder are durable."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_file(self, path: Path) -> None:
        """Return once a file's content is durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, never one that is taken."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        path.unlink(missing_ok=True)

    def free_bytes(self, folder: Path) -> int:
        """How much an unprivileged process may still write."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def lock(self, path: Path) -> Lock:
        """Hold the lock of a data folder."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            os.close(descriptor)
            if failure.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FolderLocked(path.parent) from failure
            raise
        return OsFile(descriptor)

    def is_locked(self, path: Path) -> bool:
        """Whether somebody holds this lock just now."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who ask do not take each other for a server.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as failure:
            if failure.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return True
            raise
        finally:
            os.close(descriptor)
        return False

    def point(self, name: FaultPoint) -> None:
        """Nothing happens here on a real disk."""
