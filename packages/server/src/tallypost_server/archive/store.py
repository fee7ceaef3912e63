"""Where the tables lie: a local folder, or an S3-compatible store.

Takes   objects by their path below the archive.
Gives   `ObjectStore`, and the real ones as `FolderStore` and `S3Store`.
Never   knows what a table is, beyond that a log entry of one lies in ``_delta_log/`` and must be durable.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pyarrow import fs

from .. import limits
from ..disk import Disk

S3_SCHEME = "s3://"


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
        half = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.making")
        self._disk.unlink(half)  # Left by one that was killed.
        file = self._disk.create(half)
        try:
            # Piece by piece: who syncs a document meanwhile waits for what else the disk has to write by then.
            for begin in range(0, max(len(data), 1), limits.store_piece_bytes):
                file.write(data[begin : begin + limits.store_piece_bytes])
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


class S3Store:
    """A part of a bucket of an S3-compatible store; what it answers to be stored is durable.

    Tables need no lock beside it: a log entry is put on the condition that there is none of its name.
    """

    def __init__(self, address: str, *, environment: Mapping[str, str]) -> None:
        """`environment` has the store's own variables, ``AWS_…``, as its other programs go by them."""
        self._address = address.rstrip("/")
        self._root = self._address.removeprefix(S3_SCHEME)
        given = {name: environment.get(f"AWS_{name.upper()}") or None for name in _VARIABLES}
        endpoint = given["endpoint_url_s3"] or given["endpoint_url"]
        region = given["region"] or given["default_region"] or "us-east-1"
        keys = {name: given[name] for name in ("access_key_id", "secret_access_key", "session_token")}
        answer, connect = limits.store_answer_seconds_max, limits.store_connect_seconds_max
        told = {
            **{f"aws_{name}": text for name, text in keys.items()},
            "aws_region": region,
            "aws_endpoint_url": endpoint,
            "aws_conditional_put": "etag",
            "allow_http": str(endpoint is not None and endpoint.startswith("http:")).lower(),
            "timeout": f"{answer}s",
            "connect_timeout": f"{connect}s",
        }
        self._options = {name: text for name, text in told.items() if text is not None}
        parts = urlsplit(endpoint or "")
        self._objects = fs.S3FileSystem(
            access_key=keys["access_key_id"],
            secret_key=keys["secret_access_key"],
            session_token=keys["session_token"],
            region=region,
            scheme=parts.scheme or "https",
            endpoint_override=parts.netloc or None,
            request_timeout=answer,
            connect_timeout=connect,
            background_writes=False,  # Who puts waits for the answer anyway.
        )

    @property
    def address(self) -> str:
        """``s3://BUCKET/PREFIX``."""
        return self._address

    @property
    def options(self) -> dict[str, str]:
        """How deltalake reaches it."""
        return self._options

    @property
    def may_tear(self) -> bool:
        """Objects are there whole, or not."""
        return False

    def put(self, path: str, data: bytes) -> None:
        """One request, or several of which the last makes the object."""
        with self._objects.open_output_stream(f"{self._root}/{path}", compression=None) as stream:
            stream.write(data)

    def get(self, path: str) -> bytes:
        """An object's bytes."""
        with self._objects.open_input_stream(f"{self._root}/{path}", compression=None) as stream:
            data: bytes = stream.read()
        return data

    def names(self, folder: str) -> list[str]:
        """The names below a prefix, up to the next slash."""
        found = self._objects.get_file_info(fs.FileSelector(f"{self._root}/{folder}", allow_not_found=True))
        return sorted(each.base_name for each in found)

    def size(self, path: str) -> int:
        """An object's size."""
        (found,) = self._objects.get_file_info([f"{self._root}/{path}"])
        if found.type != fs.FileType.File:
            raise FileNotFoundError(path)
        size: int = found.size
        return size

    def remove(self, path: str) -> None:
        """Delete an object."""
        with contextlib.suppress(FileNotFoundError):
            self._objects.delete_file(f"{self._root}/{path}")

    def make_durable(self, paths: list[str]) -> None:
        """They are."""


_VARIABLES = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "default_region",
    "endpoint_url",
    "endpoint_url_s3",
)
