"""The node's name, which is part of every segment's: made once for a data folder, and kept.

Takes   the data folder.
Gives   a random word.
Never   the machine's name or address, which would end up in names that are published.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..disk import Disk

_NODE = re.compile(r"[0-9a-f]{8}")


def node_of(folder: Path, *, disk: Disk, token: Callable[[int], str]) -> str:
    """The name in ``<data>/node``; if none is there, a new one that is durable before it is used."""
    path = folder / "node"
    try:
        kept = disk.read(path).decode("ascii", "replace").strip()
    except FileNotFoundError:
        kept = ""
    if _NODE.fullmatch(kept):
        return kept
    node, made = token(4), folder / "node.making"
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
