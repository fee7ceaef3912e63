from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_server.archive.columns import TABLES
from tallypost_server.errors import ArchiveDamaged, LeaseLost
from tallypost_server.streams.task import Mark
from tallypost_server.testing import FaultyDisk, Killed


@pytest.fixture
def fill(local: Any, report: Callable[..., bytes]) -> Callable[[int], None]:
    """Archives so many segments, each in a task of its own."""

    def archive(count: int) -> None:
        for number in range(count):
            local.seal(report(id=format(number, "032x")))
            local.work()

    return archive


@pytest.fixture
def log(data: Path) -> Path:
    return data / "archive" / "reports" / "_delta_log"


def entry(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"


def unsettle(log: Path, version: int) -> None:
    """Let it be so that nothing after this version was told to be durable."""
    (log.parent / "_settled").write_text(str(version))


def undone(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "archive" / "undone").rglob("*") if path.is_file())


@pytest.mark.parametrize("left", [b"", b"half", b"line", b"zeros"])
def test_start_undoes_an_entry_that_a_power_cut_tore(
    local: Any, fill: Callable[[int], None], log: Path, data: Path, left: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is left of an entry that was not durable is moved aside, and said."""
    fill(2)
    whole = entry(log, 2).read_bytes()
    parts = {b"half": whole[: len(whole) // 2], b"line": whole[: whole.rindex(b"\n")], b"zeros": bytes(len(whole))}
    torn = parts.get(left, left)
    entry(log, 2).write_bytes(torn)
    unsettle(log, 1)

    with caplog.at_level(logging.WARNING):
        local.archivist()

    assert [entry(log, 2).name] == undone(data)
    assert torn == next((data / "archive" / "undone").rglob("*.json")).read_bytes()
    assert f"of the table reports {entry(log, 2).name} was undone: it is empty or torn" in caplog.text
    assert {format(0, "032x"): 1} == local.reports()


def test_start_undoes_what_follows_a_torn_entry_too(
    local: Any, fill: Callable[[int], None], log: Path, data: Path
) -> None:
    """A log has no holes: a whole entry after a torn one goes with it."""
    fill(3)
    entry(log, 2).write_bytes(b"")
    unsettle(log, 1)

    local.archivist()

    assert [entry(log, 2).name, entry(log, 3).name] == undone(data)
    assert [] == local.damages()


def test_start_undoes_an_entry_behind_one_that_is_missing(
    local: Any, fill: Callable[[int], None], log: Path, data: Path
) -> None:
    """A disk keeps names in any order."""
    fill(3)
    entry(log, 2).unlink()
    unsettle(log, 1)

    local.archivist()

    assert [entry(log, 3).name] == undone(data)


@pytest.mark.parametrize("damage", ["missing", "short", "torn"])
def test_start_undoes_an_entry_whose_file_is_not_what_it_tells(
    local: Any, fill: Callable[[int], None], log: Path, data: Path, damage: str
) -> None:
    """A file that is missing, of another size, or of the same size and torn."""
    fill(2)
    (path,) = [
        log.parent / json.loads(line)["add"]["path"]
        for line in entry(log, 2).read_bytes().splitlines()
        if "add" in json.loads(line)
    ]
    content = path.read_bytes()
    path.write_bytes({"missing": b"", "short": content[:-1], "torn": bytes(len(content) - 8) + content[-8:]}[damage])
    if damage == "missing":
        path.unlink()
    unsettle(log, 1)

    local.archivist()

    assert [entry(log, 2).name] == undone(data)
    assert {format(0, "032x"): 1} == local.reports()


def test_start_undoes_a_torn_first_entry(local: Any, fill: Callable[[int], None], log: Path, data: Path) -> None:
    """A table that was not made durably is made again."""
    fill(1)
    whole = entry(log, 0).read_bytes()
    entry(log, 0).write_bytes(whole[: whole.rindex(b"\n")])
    (log.parent / "_settled").unlink()

    local.archivist()

    assert [entry(log, 0).name, entry(log, 1).name] == undone(data)
    assert {} == local.reports()


def test_start_never_undoes_what_was_told_to_be_durable(
    local: Any, fill: Callable[[int], None], log: Path, data: Path
) -> None:
    """Damage that no power cut did is an error each time; nothing is moved."""
    fill(3)
    entry(log, 2).unlink()

    for _ in range(2):
        with pytest.raises(ArchiveDamaged, match="version 2 of its log is gone"):
            local.archivist()

    assert [] == undone(data)
    assert entry(log, 3).exists()


def test_start_leaves_a_whole_archive_as_it_is(local: Any, fill: Callable[[int], None], log: Path, data: Path) -> None:
    """An entry that is whole stays, whether or not it was told to be durable; it is so afterwards."""
    fill(2)
    unsettle(log, 0)

    local.archivist()

    assert [] == undone(data)
    assert "2" == (log.parent / "_settled").read_text()
    assert 2 == len(local.reports())


def test_start_does_not_undo_while_another_archivist_is_at_work(
    local: Any, fill: Callable[[int], None], log: Path, data: Path
) -> None:
    """Who finds something to undo waits until all leases are free."""
    fill(2)
    entry(log, 2).write_bytes(b"")
    unsettle(log, 1)
    assert local.coordinator().hold("lane-0", "another")

    with pytest.raises(LeaseLost):
        local.archivist()

    assert [] == undone(data)
    local.clock.advance(121)
    local.archivist()
    assert [entry(log, 2).name] == undone(data)


def test_undoing_that_is_killed_goes_on_at_the_next_start(
    local: Any, fill: Callable[[int], None], log: Path, data: Path, disk: FaultyDisk
) -> None:
    """The last entry goes first, so that the torn one is found again."""
    fill(3)
    entry(log, 2).write_bytes(b"")
    unsettle(log, 1)
    disk.kill_at("before_undo")
    with pytest.raises(Killed):
        local.archivist()
    disk.kill_at("before_seal")  # Which is not passed here.
    local.close()
    local.clock.advance(121)

    local.archivist()

    assert {entry(log, 2).name, entry(log, 3).name} == set(undone(data))
    assert [entry(log, 0).name, entry(log, 1).name] == sorted(path.name for path in log.glob("*.json"))


@pytest.fixture
def checkpointed(local: Any, fill: Callable[[int], None]) -> None:
    """Four commits and a checkpoint, before anything older was removed."""
    fill(3)
    local.tables().handle("reports").create_checkpoint()
    local.tables().settle("reports")


@pytest.mark.parametrize("left", ["empty", "half"])
def test_start_undoes_a_torn_checkpoint(local: Any, checkpointed: None, log: Path, data: Path, left: str) -> None:
    """A checkpoint that was not durable goes aside with what leads to it; the entries are still there."""
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2] if left == "half" else b"")

    local.archivist()

    assert [checkpoint.name, "_last_checkpoint"] == undone(data)
    assert 3 == len(local.reports())


@pytest.mark.parametrize("left", [b"", b'{"vers', b'{"version":99,"size":5}'])
def test_start_undoes_what_leads_to_no_checkpoint(
    local: Any, checkpointed: None, log: Path, data: Path, left: bytes
) -> None:
    """The file that names the last checkpoint is read as the table is opened."""
    (log / "_last_checkpoint").write_bytes(left)

    local.archivist()

    assert ["_last_checkpoint"] == undone(data)
    assert 3 == len(local.reports())


def test_start_never_undoes_a_checkpoint_that_is_needed(local: Any, checkpointed: None, log: Path, data: Path) -> None:
    """Without the entries that it stands for, a torn checkpoint is damage that a person must see."""
    entry(log, 0).unlink()
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    checkpoint.write_bytes(b"")
    (log.parent / "_settled").unlink()

    with pytest.raises(ArchiveDamaged):
        local.archivist()

    assert [] == undone(data)


def test_every_commit_tells_of_how_many_actions_it_consists(
    local: Any, data: Path, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """So a part of an entry that ends with a line is no whole one."""
    local.seal(report(), batch(2, terminal=1))
    local.work()
    local.tables().spend("reports", 0, Mark.of(99, "ab" * 16))

    for name in TABLES:
        entries = sorted((data / "archive" / name / "_delta_log").glob("*.json"))
        for path in entries[1:]:
            actions = [json.loads(line) for line in path.read_bytes().splitlines()]
            assert [str(len(actions))] == [each["commitInfo"]["actions"] for each in actions if "commitInfo" in each]
