from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tallypost_server.segments.node import node_of
from tallypost_server.testing import FaultyDisk


def test_node_is_made_once_and_kept(data: Path, disk: FaultyDisk, token: Callable[[int], str]) -> None:
    """A data folder's node has one name for ever."""
    first = node_of(data, disk=disk, token=token)

    assert "00000001" == first
    assert first == node_of(data, disk=disk, token=token)


def test_node_that_is_damaged_is_made_anew(data: Path, disk: FaultyDisk, token: Callable[[int], str]) -> None:
    """A file with anything else in it would make names that no reader knows."""
    (data / "node").write_text("../evil-name")

    assert "00000001" == node_of(data, disk=disk, token=token)
