"""The node's name, which is part of every segment's: made once for a data folder, and kept.

Takes   the data folder.
Gives   a random word.
Never   the machine's name or address, which would end up in names that are published.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

from ..disk import Disk

_NODE = re.compile(r"[0-9a-f]{8}")


def node_of(folder: Path, *, disk: Disk, token: Callable[[int], str]) -> str:
    """The name in ``<data>/node``; if none is there, a new one that is durable before it is used."""
    kept = kept_node(folder, disk=disk)
    if kept is not None:
        return kept
    path, node, made = folder / "node", token(4), folder / "node.making"
    disk.unlink(made)
    file = disk.create(made)
    try:
        file.write(node.encode("ascii") + b"\n")
        file.sync()
    finally:
        file.close()
    disk.rename(made, path)
    disk.sync_folder(folder)
    return node


def kept_node(folder: Path, *, disk: Disk) -> str | None:
    """The name in ``<data>/node``; None if none is there."""
    with contextlib.suppress(FileNotFoundError):
        kept = disk.read(folder / "node").decode("ascii", "replace").strip()
        if _NODE.fullmatch(kept):
            return kept
    return None
