"""The disk: the one way in. What others may read appears whole, and is durable when a call returns.

Takes   paths and bytes.
Gives   files that appear by link or rename, locks that never wait, and mapped blocks for count files.
Never   knows what a file means.
"""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .seams import Disk


_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_UNFINISHED = ".tmp"


class OsDisk:
    """The operating system's file system."""

    def read(self, path: str) -> bytes:
        """The whole file."""
        descriptor = os.open(path, os.O_RDONLY | _CLOEXEC)
        try:
            pieces = []
            while piece := os.read(descriptor, 1 << 20):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(descriptor)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        try:
            return sorted(name for name in os.listdir(folder) if not name.endswith(_UNFINISHED))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: str) -> bool:
        """Whether something has that path."""
        return os.path.lexists(path)

    def make_folder(self, path: str) -> bool:
        """Make a folder for this user alone, and its parents."""
        try:
            os.mkdir(path, _FOLDER_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            return False
        except FileNotFoundError:
            self.make_folder(os.path.dirname(path))
            return self.make_folder(path)
        _sync_folder(os.path.dirname(path))
        return True

    def is_ours(self, path: str) -> bool:
        """Whether a folder belongs to the user who runs this process."""
        return not hasattr(os, "geteuid") or os.stat(path).st_uid == os.geteuid()

    def create(self, path: str, content: bytes) -> bool:
        """Put a whole, durable file there if there is none."""
        unfinished = _write_unfinished(path, content, durable=True)
        self.reach("before_link")
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(unfinished)
        self.reach("after_link")
        _sync_folder(os.path.dirname(path))
        return True

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Put a whole file there, in place of what there is."""
        unfinished = _write_unfinished(path, content, durable=durable)
        self.reach("before_rename")
        os.replace(unfinished, path)
        if durable:
            _sync_folder(os.path.dirname(path))

    def move(self, source: str, target: str) -> None:
        """Give a file another path, durably."""
        os.replace(source, target)
        # The new name first: after a power cut two names are better than none.
        _sync_folder(os.path.dirname(target))
        _sync_folder(os.path.dirname(source))

    def remove(self, path: str) -> None:
        """Remove a file."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def sweep(self, folder: str, before: float) -> None:
        """Remove unfinished files of killed processes."""
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if name.endswith(_UNFINISHED) and _is_older(path, before):
                self.remove(path)

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is empty."""
        try:
            os.rmdir(path)
        except OSError:
            if os.path.isdir(path) and not os.listdir(path):
                raise

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all in it."""
        import shutil

        shutil.rmtree(path)

    def try_lock(self, path: str) -> OsLock | None:
        """Lock a file, made if need be, without waiting."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, _FILE_MODE)
        if _lock(descriptor):
            return OsLock(descriptor)
        os.close(descriptor)
        return None

    def open_block(self, path: str) -> OsBlock | None:
        """Lock and map a file that is there, without waiting."""
        try:
            descriptor = os.open(path, os.O_RDWR | _CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # Between opening and locking the reporter may have folded the file and removed it: then the lock is
            # on a file that nobody will ever read. An empty file, from a power cut, cannot be mapped.
            if _lock(descriptor) and _leads_to(path, descriptor) and os.fstat(descriptor).st_size > 0:
                return OsBlock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def create_block(self, path: str, content: bytes, size: int) -> OsBlock | None:
        """Make, lock and map a file of `size` reserved bytes that begins with `content`."""
        # Windows gives no second name to a file that is mapped, and removes none: there it has its own from the start,
        # and who looks at it before its header is whole takes it for damaged, and goes on.
        unfinished = path if sys.platform == "win32" else _unfinished(path)
        try:
            descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOEXEC, _FILE_MODE)
        except FileExistsError:
            return None
        try:
            _lock(descriptor)  # Before it has its name: nobody else ever sees it unlocked.
            _write_at(descriptor, 0, content)
            _reserve(descriptor, len(content), size - len(content))
            block = OsBlock(descriptor)
        except BaseException:
            os.close(descriptor)
            os.unlink(unfinished)
            raise
        if unfinished == path:
            return block
        self.reach("before_block_link")
        try:
            os.link(unfinished, path)
        except FileExistsError:
            block.close()
            return None
        except BaseException:
            block.close()
            raise
        finally:
            os.unlink(unfinished)
        return block

    def is_trusted(self, folder: str) -> bool:
        """Whether the folder is on a file system of this machine that is known to keep its promises."""
        if sys.platform == "win32":
            return not os.path.abspath(folder).startswith("\\\\")
        kind = _file_system_of(os.path.realpath(folder)) if sys.platform == "linux" else None
        return kind is None or kind in _TRUSTED_FILE_SYSTEMS

    def open_written(self, path: str, content: bytes) -> OsWritten | None:
        """Make a file that is written to without a lock."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOEXEC, _FILE_MODE)
        except FileExistsError:
            return None
        written = OsWritten(descriptor, path)
        written.write_at(0, content)
        return written

    def append(self, path: str, content: bytes) -> int:
        """Have the kernel take `content` at the end of a file that is there."""
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | _CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            if size > 0:
                os.lseek(descriptor, size - 1, os.SEEK_SET)
                if os.read(descriptor, 1) != b"\n":
                    content = b"\n" + content
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            return size + len(content)
        finally:
            os.close(descriptor)

    def modified(self, path: str) -> float:
        """When a file was last written to."""
        return os.stat(path).st_mtime

    def reach(self, point: str) -> None:
        """Nothing happens here on a real disk."""


class OsWritten:
    """A file that is written to piece by piece."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor, self._path = descriptor, path

    def write_at(self, place: int, content: bytes) -> None:
        """Have the kernel take `content` at a place."""
        _write_at(self._descriptor, place, content)

    def is_there(self) -> bool:
        """Whether its path still leads to it; also where that cannot be told now."""
        try:
            return _leads_to(self._path, self._descriptor)
        except OSError:
            return True

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


class OsLock:
    """A lock on an open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._owner = descriptor, os.getpid()

    def release(self) -> None:
        """Give it up; in a child after a fork leave it to the parent."""
        # Closing is not enough: a child that was forked meanwhile shares the lock, for as long as it lives.
        if os.getpid() == self._owner:
            _unlock(self._descriptor)
        os.close(self._descriptor)


class OsBlock:
    """A locked file, mapped and shared with the kernel."""

    def __init__(self, descriptor: int) -> None:
        import mmap

        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, 0)
        self.view = memoryview(self._map)

    def grow(self, size: int) -> None:
        """Reserve and map `size` bytes. The old mapping stays until its views are gone: no reader of it stalls."""
        import mmap

        _reserve(self._descriptor, len(self.view), size - len(self.view))
        self._map = mmap.mmap(self._descriptor, size)
        self.view = memoryview(self._map)

    def remove(self, path: str) -> bool:
        """Remove the file, if the path still leads to it, and close."""
        ours = _leads_to(path, self._descriptor)
        if ours and sys.platform != "win32":
            os.unlink(path)
        self.close()
        if ours and sys.platform == "win32":
            try:
                os.unlink(path)
            except PermissionError:
                return False  # Somebody took it in that instant: it stays.
        return ours

    def close(self) -> None:
        """Unmap, close, and give up the lock unless a parent process shares it."""
        self.view.release()
        try:
            self._map.close()
        except BufferError:
            # A view of a cell is still somewhere; the mapping goes with it.
            self._map = None  # type: ignore[assignment]  # Only the reference is given up; the object is finished.
        os.close(self._descriptor)


def text_of(disk: Disk, path: str) -> str | None:
    """A small file's text; None if there is none, empty if it cannot be read: what is damaged must not look absent."""
    try:
        return disk.read(path).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return ""


_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


# Those whose mappings are coherent with what other processes read, and whose flock is heard by all of them.
_TRUSTED_FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "jfs", "zfs", "tmpfs", "overlay")


def _file_system_of(path: str) -> str | None:
    """The kind of file system that a path lies on, or None where Linux does not tell."""
    found, longest = None, -1
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                # 36 35 98:0 /root /mount/point options - type source options
                before, _, after = line.decode("utf-8", "surrogateescape").partition(" - ")
                point = before.split(" ")[4].replace("\\040", " ")
                below = point if point.endswith("/") else point + "/"
                # The last of equal ones is the one mounted on top.
                if (path == point or path.startswith(below)) and len(point) >= longest:
                    found, longest = after.split(" ", 1)[0], len(point)
    except (OSError, IndexError):
        return None
    return found


def _unfinished(path: str) -> str:
    return f"{path}.{os.getpid()}-{os.urandom(4).hex()}{_UNFINISHED}"


def _write_unfinished(path: str, content: bytes, *, durable: bool) -> str:
    unfinished = _unfinished(path)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC, _FILE_MODE)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if durable:
            os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        os.unlink(unfinished)
        raise
    os.close(descriptor)
    return unfinished


def _write_at(descriptor: int, place: int, content: bytes) -> None:
    if hasattr(os, "pwrite"):
        written = os.pwrite(descriptor, content, place)
    else:
        os.lseek(descriptor, place, os.SEEK_SET)
        written = os.write(descriptor, content)
    if written != len(content):
        raise OSError(errno.ENOSPC, "No space left on device")


def _reserve(descriptor: int, begin: int, count: int) -> None:
    """Have the file system set blocks aside: a hole that cannot be filled later would be a SIGBUS in the host."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, begin, count)
        return
    os.lseek(descriptor, begin, os.SEEK_SET)
    rest = memoryview(bytes(count))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        there, here = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _is_older(path: str, before: float) -> bool:
    try:
        return os.stat(path).st_mtime < before
    except FileNotFoundError:
        return False  # It was finished meanwhile.


def _sync_folder(folder: str) -> None:
    if sys.platform == "win32":
        return  # Windows has no such call; a rename is in its journal.
    descriptor = os.open(folder or ".", os.O_RDONLY | _CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file without waiting: by flock, since a POSIX record lock goes when any descriptor is closed."""
    if sys.platform == "win32":
        import msvcrt

        # A byte far behind the content: Windows' locks keep others from reading what they cover.
        os.lseek(descriptor, 1 << 40, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    """Give a lock up while the file is open; where nothing forks, closing it does that."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)
