from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tallypost.disk import OsDisk
from tallypost.testing import FakeDisk


@pytest.fixture(params=[OsDisk, FakeDisk, lambda: FakeDisk("windows")], ids=["real", "in memory", "by Windows' rules"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A disk with a folder: what is in memory does as the real one does."""
    made = request.param()
    made.make_folder(str(tmp_path))
    return made


def test_append_ends_a_line_that_was_left_unfinished(disk: Any, tmp_path: Path) -> None:
    """What is added begins a line of its own, and the file's size is told."""
    path = str(tmp_path / "log")
    disk.create(path, b"")

    sizes = [disk.append(path, part) for part in (b"one\n", b"half", b"two\n", b"")]

    assert [4, 8, 13, 13] == sizes
    assert b"one\nhalf\ntwo\n" == disk.read(path)


def test_append_to_a_file_that_is_missing_raises_and_makes_none(disk: Any, tmp_path: Path) -> None:
    """A log that was taken away meanwhile does not come back."""
    with pytest.raises(FileNotFoundError):
        disk.append(str(tmp_path / "log"), b"one\n")

    assert [] == disk.names(str(tmp_path))


def test_folder_is_removed_if_it_is_empty(disk: Any, tmp_path: Path) -> None:
    """One with something in it stays, and one that is missing is no matter."""
    empty, full, missing = (str(tmp_path / name) for name in ("empty", "full", "missing"))
    disk.make_folder(empty)
    disk.make_folder(full)
    disk.create(str(tmp_path / "full" / "file"), b"")

    for folder in (empty, full, missing):
        disk.remove_folder(folder)

    assert ["full"] == disk.names(str(tmp_path))
    assert disk.exists(str(tmp_path / "full" / "file"))
