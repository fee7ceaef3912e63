"""The seams through which time, chance and the disk come in; the network's is ``uploads/transport.py``.

Takes   nothing.
Gives   contracts: what may block, what a return promises, which errors there are.
Never   imported while something is recorded; the recording path names these types for type checkers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Time as the machine tells it: it may jump in both directions."""

    now: Callable[[], float]
    """UTC seconds since 1970. Called on the recording path: it must be cheap and must not raise."""

    def sleep(self, seconds: float) -> None:
        """Return after about so many seconds."""


class Disk(Protocol):
    """A file system. Every method may raise `OSError`; then nothing half-written bears a final name."""

    def read(self, path: str) -> bytes:
        """The whole file."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none if there is no such folder. Unfinished files are left out."""

    def exists(self, path: str) -> bool:
        """Whether something has that path."""

    def make_folder(self, path: str) -> bool:
        """Make a folder for this user alone, and its parents; False if it was there."""

    def is_ours(self, path: str) -> bool:
        """Whether a folder belongs to the user who runs this process."""

    def create(self, path: str, content: bytes) -> bool:
        """Put a whole, durable file there if there is none; False if there is one."""

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Put a whole file there, in place of what there is."""

    def move(self, source: str, target: str) -> None:
        """Give a file another path, durably; what had that path is replaced."""

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""

    def sweep(self, folder: str, before: float) -> None:
        """Remove unfinished files that were last written before that instant: what killed processes left."""

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is empty; nothing happens if it is not, or if there is none."""

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all in it."""

    def try_lock(self, path: str) -> Lock | None:
        """Lock a file, made if need be, without waiting; None if it is held."""

    def open_block(self, path: str) -> Block | None:
        """Lock and map a file that is there, without waiting; None if it is held, or was removed meanwhile."""

    def create_block(self, path: str, content: bytes, size: int) -> Block | None:
        """Make, lock and map a file of `size` reserved bytes, `content` first; None if the path is taken."""

    def is_trusted(self, folder: str) -> bool:
        """Whether mapped memory and locks do what they promise there: not on network and unknown file systems."""

    def open_written(self, path: str, content: bytes) -> Written | None:
        """Make a file that begins with `content`, and is written to without a lock; None if the path is taken."""

    def append(self, path: str, content: bytes) -> int:
        """Have the kernel take `content` at the end of a file that is there; returns how large it then is.

        A line that an earlier append left unfinished is ended first. Where this raises a part may have been taken.
        """

    def modified(self, path: str) -> float:
        """When a file was last written to, in UTC seconds by the file system's clock."""

    def reach(self, point: str) -> None:
        """A place of danger by its name; a test's disk ends the process here."""


class Written(Protocol):
    """A file that is written to piece by piece."""

    def write_at(self, place: int, content: bytes) -> None:
        """Have the kernel take `content` at a place; what it took survives the process."""

    def is_there(self) -> bool:
        """Whether its path still leads to it."""

    def close(self) -> None:
        """Close it."""


class Lock(Protocol):
    """A lock on an open file, held until `release` or the end of the process."""

    def release(self) -> None:
        """Give it up."""


class Block(Protocol):
    """A locked file, mapped: what is written to `view` survives the process from that instant."""

    view: memoryview

    def grow(self, size: int) -> None:
        """Reserve and map `size` bytes; what is written to earlier views still reaches the file."""

    def remove(self, path: str) -> bool:
        """Remove the file, if the path still leads to it, and close; False where it stays.

        It is locked until it is gone, except where the system removes no file that is open.
        """

    def close(self) -> None:
        """Unmap, close, and give up the lock; after a fork the parent keeps it when its child closes.

        While a view is still held somewhere the lock may outlive this, until that view is gone.
        """


class Random(Protocol):
    """A source of chance."""

    def bytes(self, count: int) -> bytes:
        """So many random bytes."""

    def fraction(self) -> float:
        """A number in [0, 1)."""
