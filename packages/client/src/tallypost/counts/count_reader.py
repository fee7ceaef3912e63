"""The count file as everybody else reads it: without a lock, while its owner counts on.

Takes   a folder.
Gives   what each file says of itself, and its present values.
Never   writes; never raises for a damaged file; never invents a number.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tallypost_schema import limits as shared_limits
from tallypost_schema import names
from tallypost_schema.documents import Program, day_of

from ..seams import Disk
from .count_file import metadata_in, records_in


@dataclass(frozen=True)
class Counted:
    """A count file as it was read: who counted, when, under which mode line and declaration, and how much."""

    path: str
    file: str
    application: str
    program: Program
    day: str
    begin: str
    mode: str
    declaration: str
    values: dict[str, int]
    written: float | None = None
    """When it was last written to, in UTC seconds, if its owner holds no lock; None: its lock tells."""


@dataclass(frozen=True)
class Damaged:
    """A file that tells nothing: its header is not whole, or it cannot be read."""

    path: str


def read_all(folder: str, *, disk: Disk) -> Iterator[Counted | Damaged]:
    """Every count file of a folder."""
    for name in disk.names(folder):
        if name.endswith(".count"):
            path = os.path.join(folder, name)
            try:
                content = disk.read(path)
            except FileNotFoundError:
                continue  # Folded and removed by another reporter meanwhile.
            except OSError:
                yield Damaged(path)
                continue
            seen = read(path, content)
            if isinstance(seen, Counted) and seen.written is not None:
                try:
                    seen = dataclasses.replace(seen, written=disk.modified(path))
                except OSError:
                    continue
            yield seen


def read(path: str, content: bytes) -> Counted | Damaged:
    """What the content of a count file says."""
    metadata = metadata_in(content)
    if metadata is None:
        return Damaged(path)
    try:
        program = Program(*(metadata[key] for key in ("program", "version", "python", "os", "arch")))
        counted = Counted(
            path,
            metadata["file"],
            metadata["application"],
            program,
            metadata["day"],
            metadata["begin"],
            metadata["mode"],
            metadata["declaration"],
            _values(content),
            0.0 if metadata.get("kept") == "written" else None,
        )
    except KeyError:
        return Damaged(path)
    return counted if day_of(counted.day) is not None and counted.file else Damaged(path)


@lru_cache(maxsize=4096)  # Ten thousand files of one program have the same names.
def _is_key(name: str) -> bool:
    return names.is_counter(name) or names.is_stack(name)


def _values(content: bytes) -> dict[str, int]:
    values: dict[str, int] = {}
    for name, at in records_in(content):
        if _is_key(name):
            value = int.from_bytes(content[at : at + 8], "little")
            values[name] = min(values.get(name, 0) + value, shared_limits.count_max)
    return {name: value for name, value in values.items() if value > 0}
