"""What the archive refuses, kept as it was stored, with the reason.

Takes   the lines of a stream.
Gives   ``parked/<stream>-<hash of the application>.jsonl`` and its reason beside it.
Never   deletes: a person looks at it, and posts it again or erases it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from pathlib import Path
from typing import Any

import msgspec

from ..clock import stamp
from ..disk import Disk

_LINES, _REASON = ".jsonl", ".reason.json"


class Parked:
    """The folder ``parked/``."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._folder, self._disk = folder, disk

    def keep(self, app: str, stream: str, lines: list[bytes], *, reason: str, at: datetime.datetime) -> None:
        """Return once a stream's lines, and why they are here, are on disk."""
        self._disk.make_folder(self._folder)
        stem = f"{stream}-{hashlib.sha256(app.encode()).hexdigest()[:8]}"
        told = {"app": app, "stream": stream, "at": stamp(at), "lines": len(lines), "reason": reason}
        self._put(stem + _LINES, b"".join(line + b"\n" for line in lines))
        self._put(stem + _REASON, msgspec.json.encode(told) + b"\n")
        self._disk.sync_folder(self._folder)

    def all(self) -> list[dict[str, Any]]:
        """What is parked, and why."""
        found = []
        for name in self._disk.names(self._folder):
            if name.endswith(_REASON):
                with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                    found.append(
                        {
                            **msgspec.json.decode(self._disk.read(self._folder / name)),
                            "file": f"parked/{name.removesuffix(_REASON)}{_LINES}",
                        }
                    )
        return found

    def erase(self, stream: str) -> int:
        """Remove what is parked of a stream; how many files that were."""
        # Half made ones too, which a crash has left.
        names = [name for name in self._disk.names(self._folder) if name.lstrip(".").startswith(f"{stream}-")]
        for name in names:
            self._disk.unlink(self._folder / name)
        if names:
            self._disk.sync_folder(self._folder)
        return len(names)

    def _put(self, name: str, data: bytes) -> None:
        half = self._folder / f".{name}.making"
        self._disk.unlink(half)
        file = self._disk.create(half)
        try:
            file.write(data)
            file.sync()
        finally:
            file.close()
        self._disk.rename(half, self._folder / name)
