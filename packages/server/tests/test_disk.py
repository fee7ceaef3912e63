"""One suite for the real disk and the faulty one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost_server.disk import SEAL_POINTS, Disk, OsDisk
from tallypost_server.errors import FolderLocked
from tallypost_server.testing import FaultyDisk, Killed


@pytest.fixture(params=[OsDisk, FaultyDisk])
def any_disk(request: pytest.FixtureRequest) -> Disk:
    make: Callable[[], Disk] = request.param
    return make()


def test_create_writes_and_syncs_what_read_gives(any_disk: Disk, tmp_path: Path) -> None:
    """What was written is read, in order."""
    file = any_disk.create(tmp_path / "a")
    file.write(b"one ")
    file.write(b"two")
    file.sync()
    file.close()

    assert b"one two" == any_disk.read(tmp_path / "a")
    assert 7 == any_disk.stat(tmp_path / "a").size


def test_pieces_are_all_of_a_file_a_part_at_a_time(any_disk: Disk, tmp_path: Path) -> None:
    """A large file comes in parts, an empty one in none, a missing one not at all."""
    content = bytes(range(256)) * 4096
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")

    pieces = list(any_disk.pieces(tmp_path / "a"))

    assert content == b"".join(pieces)
    assert max(map(len, pieces)) < len(content)
    assert [] == list(any_disk.pieces(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError):
        next(any_disk.pieces(tmp_path / "missing"))


def test_create_of_a_taken_name_raises(any_disk: Disk, tmp_path: Path) -> None:
    """A file is never opened for appending by accident."""
    any_disk.create(tmp_path / "a").close()

    with pytest.raises(FileExistsError):
        any_disk.create(tmp_path / "a")


def test_cut_takes_away_the_end_and_writing_goes_on_there(any_disk: Disk, tmp_path: Path) -> None:
    """After a cut the file ends at the given size, and so does its writer."""
    file = any_disk.create(tmp_path / "a")
    file.write(b"good bad")
    file.cut(5)
    file.write(b"end")
    file.close()

    assert b"good end" == any_disk.read(tmp_path / "a")


def test_link_to_a_taken_name_raises_and_leaves_it(any_disk: Disk, tmp_path: Path) -> None:
    """A link never takes the place of a file."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")

    with pytest.raises(FileExistsError):
        any_disk.link(tmp_path / "a", tmp_path / "b")

    assert b"b" == (tmp_path / "b").read_bytes()


def test_rename_takes_the_place_of_a_file(any_disk: Disk, tmp_path: Path) -> None:
    """A rename replaces what had the name."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")

    any_disk.rename(tmp_path / "a", tmp_path / "b")

    assert ["b"] == any_disk.names(tmp_path)
    assert b"a" == any_disk.read(tmp_path / "b")


def test_unlink_of_nothing_is_no_error(any_disk: Disk, tmp_path: Path) -> None:
    """Taking a name away that is not there changes nothing."""
    any_disk.unlink(tmp_path / "a")

    assert [] == any_disk.names(tmp_path)


def test_names_of_a_missing_folder_are_none(any_disk: Disk, tmp_path: Path) -> None:
    """A folder that is not there has no names."""
    assert [] == any_disk.names(tmp_path / "missing")


def test_make_folder_makes_those_above_with_their_mode(any_disk: Disk, tmp_path: Path) -> None:
    """Folders are 0750, files 0640."""
    any_disk.make_folder(tmp_path / "a" / "b")
    any_disk.make_folder(tmp_path / "a" / "b")
    any_disk.create(tmp_path / "a" / "b" / "c").close()

    modes = [(tmp_path / path).stat().st_mode & 0o777 for path in ("a", "a/b", "a/b/c")]
    assert [0o750, 0o750, 0o640] == modes


def test_lock_held_refuses_another(any_disk: Disk, tmp_path: Path) -> None:
    """One lock a data folder, free again once closed."""
    held = any_disk.lock(tmp_path / "lock")

    with pytest.raises(FolderLocked):
        any_disk.lock(tmp_path / "lock")
    held.close()
    any_disk.lock(tmp_path / "lock").close()


def test_is_locked_tells_whether_somebody_holds_it_and_takes_nothing(any_disk: Disk, tmp_path: Path) -> None:
    """Asking makes no file, and leaves the lock free."""
    assert not any_disk.is_locked(tmp_path / "lock")
    assert [] == any_disk.names(tmp_path)
    held = any_disk.lock(tmp_path / "lock")

    assert any_disk.is_locked(tmp_path / "lock")
    held.close()
    assert not any_disk.is_locked(tmp_path / "lock")
    any_disk.lock(tmp_path / "lock").close()


def test_free_bytes_is_some_room(any_disk: Disk, tmp_path: Path) -> None:
    """The disk tells how much it has free."""
    assert any_disk.free_bytes(tmp_path) > 0


def test_point_unscripted_does_nothing(any_disk: Disk, tmp_path: Path) -> None:
    """Fault points are passed in silence."""
    for point in SEAL_POINTS:
        any_disk.point(point)

    assert [] == any_disk.names(tmp_path)


def test_faulty_write_that_fails_leaves_half_behind(tmp_path: Path) -> None:
    """A failing write is torn, as on a real disk."""
    disk = FaultyDisk()
    disk.fail("write", errno.ENOSPC)
    file = disk.create(tmp_path / "a")

    with pytest.raises(OSError, match="No space"):
        file.write(b"1234")
    file.close()

    assert b"12" == disk.read(tmp_path / "a")


def test_faulty_disk_forbids_a_sync_after_a_failed_one(tmp_path: Path) -> None:
    """The fake finds programs that trust a second sync."""
    disk = FaultyDisk()
    disk.fail("sync")
    file = disk.create(tmp_path / "a")
    with pytest.raises(OSError, match="Input/output"):
        file.sync()

    with pytest.raises(AssertionError, match="synced again"):
        file.sync()
    file.close()


def test_faulty_disk_kills_at_its_point() -> None:
    """At the scripted point the process ends, elsewhere it goes on."""
    disk = FaultyDisk()
    disk.kill_at("after_link")

    disk.point("before_link")
    with pytest.raises(Killed):
        disk.point("after_link")


def test_faulty_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    """Names without a sync of their folder and bytes without a sync of their file are gone."""
    disk = FaultyDisk()
    kept = disk.create(tmp_path / "kept")
    kept.write(b"durable")
    kept.sync()
    disk.sync_folder(tmp_path)
    kept.write(b" and not")
    kept.close()
    nameless = disk.create(tmp_path / "nameless")
    nameless.write(b"durable")
    nameless.sync()
    nameless.close()

    disk.power_cut(tmp_path)

    assert ["kept"] == disk.names(tmp_path)
    assert b"durable" == disk.read(tmp_path / "kept")


def test_faulty_power_cut_leaves_of_what_others_wrote_as_much_as_is_said(tmp_path: Path) -> None:
    """A file or folder that another program made is durable once it and its folder were synced here, and not before."""
    disk = FaultyDisk()
    for name in ("alone", "file", "both"):
        (tmp_path / name).write_bytes(b"four")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "inside").write_bytes(b"four")
    disk.sync_file(tmp_path / "both")
    disk.sync_file(tmp_path / "made" / "inside")
    disk.sync_folder(tmp_path / "made")
    before = disk.left_by_power_cut(tmp_path, others=lambda _: "absent")
    disk.sync_folder(tmp_path)
    disk.sync_file(tmp_path / "file")

    absent = disk.left_by_power_cut(tmp_path, others=lambda _: "absent")
    half = disk.left_by_power_cut(tmp_path, others=lambda _: "half")

    inside = {tmp_path / "made" / "inside": 4}
    assert {} == before
    assert {tmp_path / "both": 4, **inside} == absent
    assert {tmp_path / "both": 4, tmp_path / "alone": 2, **inside} == half


def test_faulty_disk_keeps_what_was_removed_until_the_folder_is_synced(tmp_path: Path) -> None:
    """A power cut may bring back what was removed."""
    disk = FaultyDisk()
    (tmp_path / "a").write_bytes(b"a")

    disk.unlink(tmp_path / "a")

    assert {tmp_path / "a": b"a"} == disk.removed
    disk.sync_folder(tmp_path)
    assert {} == disk.removed
