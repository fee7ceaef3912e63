from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost.testing import FakeDisk, FaultyDisk

FULL = OSError(28, "No space left on device")


@pytest.fixture(params=[FaultyDisk, FakeDisk, lambda: FakeDisk("macos")], ids=["real", "in memory", "by macOS's rules"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A disk on which faults happen, with a folder."""
    made = request.param()
    made.make_folder(str(tmp_path))
    return made


def test_faulty_disk_raises_for_changes_and_for_no_question(disk: Any, tmp_path: Path) -> None:
    """A full disk can still be read."""
    path = str(tmp_path / "file")
    disk.replace(path, b"before")

    disk.fail(FULL)

    for change in (
        lambda: disk.replace(path, b"after"),
        lambda: disk.create(f"{path}-2", b""),
        lambda: disk.make_folder(f"{path}-3"),
        lambda: disk.create_block(f"{path}-4", b"", 4096),
        lambda: disk.open_written(f"{path}-5", b""),
        lambda: disk.append(path, b"after"),
    ):
        with pytest.raises(OSError, match="No space"):
            change()
    assert (b"before", ["file"]) == (disk.read(path), disk.names(str(tmp_path)))
    disk.fail(None)
    disk.replace(path, b"after")
    assert b"after" == disk.read(path)


@pytest.mark.parametrize("begin", ["create_block", "open_block"])
def test_faulty_disk_raises_where_a_file_that_is_open_needs_room(begin: str, disk: Any, tmp_path: Path) -> None:
    """A count file that is to grow, and one that is written to; with room again both go on."""
    block = disk.create_block(str(tmp_path / "block"), b"before", 4096)
    if begin == "open_block":
        block.close()
        block = disk.open_block(str(tmp_path / "block"))
    written = disk.open_written(str(tmp_path / "written"), b"before")
    changes: list[Callable[[], object]] = [lambda: block.grow(8192), lambda: written.write_at(6, b" and after")]

    disk.fail(FULL)
    for change in changes:
        with pytest.raises(OSError, match="No space"):
            change()
    disk.fail(None)
    for change in changes:
        change()

    assert (8192, b"before and after") == (len(block.view), disk.read(str(tmp_path / "written")))
    block.close()
    written.close()


def test_faulty_disk_moves_and_removes_without_room(disk: Any, tmp_path: Path) -> None:
    """Neither needs any."""
    for name in ("kept", "removed"):
        disk.create(str(tmp_path / name), b"x")
    disk.fail(FULL)

    disk.move(str(tmp_path / "kept"), str(tmp_path / "moved"))
    disk.remove(str(tmp_path / "removed"))

    assert ["moved"] == disk.names(str(tmp_path))


def test_faulty_disk_acts_at_the_fault_points_that_are_named(disk: Any, tmp_path: Path) -> None:
    """A point that is passed is counted; an action there happens before what follows."""
    path = str(tmp_path / "file")
    seen: list[tuple[str, list[str]]] = []
    for point in ("before_link", "after_link", "before_block_link", "before_rename"):
        disk.at(point, lambda point=point: seen.append((point, disk.names(str(tmp_path)))))

    disk.create(path, b"x")
    disk.create_block(f"{path}-2", b"", 4096).close()
    disk.replace(f"{path}-3", b"")

    assert [
        ("before_link", []),
        ("after_link", ["file"]),
        ("before_block_link", ["file"]),
        ("before_rename", ["file", "file-2"]),
    ] == seen
    assert {"before_link": 1, "after_link": 1, "before_block_link": 1, "before_rename": 1} == disk.points


def test_faulty_disk_whose_process_ends_before_a_block_has_its_name_leaves_it_unfinished(
    disk: Any, tmp_path: Path
) -> None:
    """What is left is swept away later; nobody takes it for a count file."""

    def end() -> None:
        raise KeyboardInterrupt

    disk.at("before_block_link", end)

    with pytest.raises(KeyboardInterrupt):
        disk.create_block(str(tmp_path / "block"), b"", 4096)

    assert [] == disk.names(str(tmp_path))
    disk.sweep(str(tmp_path), before=float("inf"))
    assert not os.path.exists(tmp_path / "block")
