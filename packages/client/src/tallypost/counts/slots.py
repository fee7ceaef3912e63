"""Slots: as many count files of a kind as processes ever counted at once, each locked by the one that owns it.

Takes   a folder and the metadata of the process.
Gives   a count file that nobody else writes.
Never   waits for a lock; never shares a file.
"""

from __future__ import annotations

import os
from zlib import crc32

from .. import limits
from .count_file import HEADER_BYTES, CountFile, WrittenFile, header, metadata_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..seams import Disk


def take(
    folder: str, key: dict[str, str], begin: str, *, disk: Disk, random_bytes: Callable[[int], bytes]
) -> CountFile | WrittenFile | None:
    """A count file of this key: the first one that no process holds, else a new one. None if all slots are held.

    `key` is the metadata that all processes of a kind share (program, version, day, mode line, declaration, …).

    Raises:
        OSError: the folder or the disk does not allow it.
    """
    stem = _stem(key)
    if not disk.is_trusted(folder):
        return _written(folder, stem, {"file": random_bytes(16).hex(), **key, "begin": begin}, disk)
    for slot in range(limits.slots_max):
        path = os.path.join(folder, f"{stem}-{slot}.count")
        block = disk.open_block(path)
        if block is not None:
            if _has_key(metadata_in(block.view[:HEADER_BYTES]), key):
                return CountFile(block)
            block.close()  # Damaged, or another kind whose name has the same checksum.
        elif not disk.exists(path):
            metadata = {"file": random_bytes(16).hex(), **key, "begin": begin}
            block = disk.create_block(path, header(metadata), limits.count_file_bytes_first)
            if block is not None:
                return CountFile(block)
    return None


def _written(folder: str, stem: str, metadata: dict[str, str], disk: Disk) -> WrittenFile | None:
    """A file of this process alone, whose random name nobody else takes."""
    start = header({**metadata, "kept": "written"})
    written = disk.open_written(os.path.join(folder, f"{stem}-{metadata['file']}.count"), start)
    return WrittenFile(written, start) if written is not None else None


def _has_key(metadata: dict[str, str] | None, key: dict[str, str]) -> bool:
    return metadata is not None and all(metadata.get(word) == value for word, value in key.items())


def _stem(key: dict[str, str]) -> str:
    """A readable name; which kind it is stands in the header, the checksum only keeps kinds apart."""
    version = "".join(letter if letter.isalnum() or letter in "._+" else "_" for letter in key["version"])
    checksum = crc32("\n".join(key.values()).encode())
    return f"{key['program']}@{version[:40]}-{key['day']}-{checksum:08x}"
