"""Where the tables lie: a local folder, or an S3-compatible store.

Takes   objects by their path below the archive.
Gives   `ObjectStore`, and the real ones as `FolderStore` and `S3Store`.
Never   knows what a table is, beyond that a log entry of one lies in ``_delta_log/`` and must be durable.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

from ..disk import Disk


class ObjectStore(Protocol):
    """A store of whole objects. Every call may block, and may raise OSError."""

    @property
    def address(self) -> str:
        """As deltalake takes it."""
        ...

    @property
    def options(self) -> dict[str, str]:
        """As deltalake takes them."""
        ...

    @property
    def may_tear(self) -> bool:
        """Whether a power cut may take, empty or halve what was put by somebody else and not yet made durable."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Return once an object is there, whole and durable; one of this name is replaced."""
        ...

    def get(self, path: str) -> bytes:
        """An object.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """The names directly in a folder, of objects and of folders, sorted; empty if it is not there."""
        ...

    def size(self, path: str) -> int:
        """How long an object is.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def remove(self, path: str) -> None:
        """Take an object away, durably; that it is not there is no error."""
        ...

    def make_durable(self, paths: list[str]) -> None:
        """Return once these objects, which somebody else has put, are durable."""
        ...


class FolderStore:
    """A local folder, on the disk."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._folder, self._disk = folder, disk
        disk.make_folder(folder)

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self._folder.resolve())

    @property
    def options(self) -> dict[str, str]:
        """None."""
        return {}

    @property
    def may_tear(self) -> bool:
        """It may."""
        return True

    def put(self, path: str, data: bytes) -> None:
        """Write beside it, sync, rename, sync the folder."""
        target = self._folder / path
        self._disk.make_folder(target.parent)
        # Of this process alone: who has lost its lease and sleeps must not rename what another is at.
        half = target.with_name(f".{target.name}.{os.getpid()}.making")
        self._disk.unlink(half)  # Left by one that was killed.
        file = self._disk.create(half)
        try:
            file.write(data)
            file.sync()
        finally:
            file.close()
        self._disk.rename(half, target)
        self._disk.sync_folder(target.parent)

    def get(self, path: str) -> bytes:
        """A file's bytes."""
        return self._disk.read(self._folder / path)

    def names(self, folder: str) -> list[str]:
        """A folder's names."""
        return self._disk.names(self._folder / folder)

    def size(self, path: str) -> int:
        """A file's size."""
        return self._disk.stat(self._folder / path).size

    def remove(self, path: str) -> None:
        """Unlink, sync the folder."""
        target = self._folder / path
        self._disk.unlink(target)
        with contextlib.suppress(FileNotFoundError):
            self._disk.sync_folder(target.parent)

    def make_durable(self, paths: list[str]) -> None:
        """Sync the files, then their folders, and those above: somebody else made them too."""
        for path in paths:
            self._disk.sync_file(self._folder / path)
        for folder in sorted({folder for path in paths for folder in Path(path).parents}, reverse=True):
            self._disk.sync_folder(self._folder / folder)
