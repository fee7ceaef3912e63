from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tallypost_server.segments.probe import probe
from tallypost_server.testing import FaultyDisk


@pytest.mark.parametrize(
    ("operation", "number", "code"),
    [
        ("sync", errno.EIO, "storage_failed"),
        ("create", errno.EROFS, "storage_failed"),
        ("write", errno.ENOSPC, "no_space"),
        ("free_bytes", errno.EIO, "storage_failed"),
    ],
)
def test_probe_of_a_failing_disk_tells_why_and_leaves_nothing(
    data: Path, disk: FaultyDisk, operation: str, number: int, code: str
) -> None:
    """What would befall the next group befalls the probe."""
    disk.fail(operation, number)  # type: ignore[arg-type]

    trouble = probe(data / "segments" / "open", disk=disk, reserve_bytes=1, write=True)

    assert trouble is not None
    assert code == trouble.code
    assert [] == list((data / "segments" / "open").iterdir())
    assert probe(data / "segments" / "open", disk=disk, reserve_bytes=1, write=True) is None


def test_probe_of_a_full_disk_needs_no_writing(data: Path, disk: FaultyDisk) -> None:
    """Room is asked for without touching the disk's content."""
    disk.free = 10

    trouble = probe(data / "segments" / "open", disk=disk, reserve_bytes=10, write=False)

    assert trouble is not None
    assert "no_space" == trouble.code
