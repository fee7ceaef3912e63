from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_server.disk import SEAL_POINTS, FaultPoint
from tallypost_server.ingest.quarantine import Quarantine
from tallypost_server.metrics import Metrics
from tallypost_server.segments.check import SegmentChecker
from tallypost_server.segments.repair import Repaired, Repairer, held
from tallypost_server.segments.seal import Sealer
from tallypost_server.testing import FakeClock, FaultyDisk, Killed

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"
Frame = Callable[[bytes], bytes]
Stored = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def repair(
    data: Path, disk: FaultyDisk, clock: FakeClock, metrics: Metrics, token: Callable[[int], str]
) -> Callable[[], list[Repaired]]:
    """Repairs whatever is damaged."""
    segments = data / "segments"
    keeper = Quarantine(
        data / "quarantine", disk=disk, clock=clock, metrics=metrics, token=token, in_thread=lambda job: job()
    )
    checker = SegmentChecker(segments, disk=disk, serving=lambda: disk.is_locked(data / "lock"))
    repairer = Repairer(
        segments,
        disk=disk,
        checker=checker,
        sealer=Sealer(segments, disk=disk, metrics=metrics, torn_keeper=keeper),
        keeper=keeper,
        lock=lambda: held(data / "lock", disk),
    )
    return lambda: [repairer.repair(checked) for checked in checker.files() if checked.problems]


@pytest.fixture
def sealed(data: Path, disk: FaultyDisk, metrics: Metrics, torn: Any, opened: Path) -> Path:
    """A sealed segment of six lines."""
    Sealer(data / "segments", disk=disk, metrics=metrics, torn_keeper=torn).seal(STEM)
    return data / "segments" / (STEM + ".jsonl.zst")


def large(path: Path, data: Path, lines: list[bytes]) -> list[bytes]:
    """A segment of many blocks in place of the small one; its lines, each another."""
    many = [lines[1].replace(b"0" * 31 + b"1", b"%032x" % number) for number in range(4000)]
    content = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"".join(many))
    path.write_bytes(content)
    manifest = path.with_name(path.name + ".manifest.json")
    told = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**told, "rows": 4000, "bytes": len(content)}))
    return many


def test_repair_of_a_damaged_segment_keeps_it_and_seals_what_can_be_read(
    repair: Callable[[], list[Repaired]], sealed: Path, data: Path, lines: list[bytes], stored: Stored
) -> None:
    """The lines before the damage are in a segment of another name, and the damaged bytes are in the quarantine."""
    many = large(sealed, data, lines)
    content = bytearray(sealed.read_bytes())
    content[len(content) // 2] ^= 0xFF
    sealed.write_bytes(content)

    (repaired,) = repair()

    kept = stored()
    assert repaired.right
    assert bytes(content) == (data / "quarantine" / "damaged" / sealed.name).read_bytes()
    assert [json.loads(line) for line in many[: len(kept)]] == kept
    assert 1000 < len(kept) < 4000
    assert repaired.segment is not None
    assert repaired.segment != sealed.name
    assert not sealed.exists()
    assert [] == repair()


def test_repair_again_after_the_same_damage_makes_no_second_segment(
    repair: Callable[[], list[Repaired]], sealed: Path, lines: list[bytes], stored: Stored
) -> None:
    """A damaged file that is put back is found to be salvaged already."""
    content = sealed.read_bytes()[:-2]
    manifest = sealed.with_name(sealed.name + ".manifest.json").read_bytes()
    for _ in range(2):
        for path, whole in ((sealed, content), (sealed.with_name(sealed.name + ".manifest.json"), manifest)):
            path.write_bytes(whole)
            path.chmod(0o640)

        (repaired,) = repair()

        assert repaired.right
        assert [json.loads(line) for line in lines] == stored()


@pytest.mark.parametrize("point", SEAL_POINTS[1:6])
def test_repair_killed_at_any_point_is_finished_by_the_next(
    repair: Callable[[], list[Repaired]],
    sealed: Path,
    disk: FaultyDisk,
    data: Path,
    lines: list[bytes],
    stored: Stored,
    point: FaultPoint,
) -> None:
    """Wherever it ends, every readable line is there, and in the end once."""
    sealed.write_bytes(sealed.read_bytes()[:-2])
    disk.kill_at(point)
    with pytest.raises(Killed):
        repair()
    assert {json.loads(line)["received"] for line in lines} <= {line["received"] for line in stored()}
    disk.kill_at("before_commit_sync")  # Never met here.

    repair()

    assert [json.loads(line) for line in lines] == stored()
    assert [] == repair()


@pytest.mark.parametrize("survivor", ["none", ".zst", ".json", "all"])
@pytest.mark.parametrize("point", SEAL_POINTS[1:6])
def test_repair_cut_off_from_power_at_any_point_loses_nothing(
    repair: Callable[[], list[Repaired]],
    sealed: Path,
    disk: FaultyDisk,
    data: Path,
    lines: list[bytes],
    stored: Stored,
    point: FaultPoint,
    survivor: str,
) -> None:
    """What is relied on is durable before what relies on it, whichever of the new names the disk kept."""
    disk.sync_folder(sealed.parent)
    sealed.write_bytes(sealed.read_bytes()[:-2] + b"00")
    disk.kill_at(point)
    with pytest.raises(Killed):
        repair()
    disk.power_cut(data, survives=lambda path: survivor in ("all", path.suffix))
    disk.kill_at("before_commit_sync")  # Never met here.

    repair()

    assert [json.loads(line) for line in lines] == stored()
    assert [] == repair()


def test_repair_that_has_ended_survives_a_power_cut(
    repair: Callable[[], list[Repaired]], sealed: Path, disk: FaultyDisk, data: Path, lines: list[bytes], stored: Stored
) -> None:
    """What it said it did is durable: the new segment, and the damaged one in its new place."""
    disk.sync_folder(sealed.parent)
    content = sealed.read_bytes()[:-2] + b"00"
    sealed.write_bytes(content)
    repair()

    disk.power_cut(data)

    assert [json.loads(line) for line in lines] == stored()
    assert content == (data / "quarantine" / "damaged" / sealed.name).read_bytes()


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_folder", "link", "read"])
def test_repair_on_a_failing_disk_leaves_the_damaged_file(
    repair: Callable[[], list[Repaired]],
    sealed: Path,
    disk: FaultyDisk,
    lines: list[bytes],
    stored: Stored,
    operation: str,
) -> None:
    """Nothing goes before what was read of it is sealed; the next repair does it."""
    sealed.write_bytes(sealed.read_bytes()[:-2])
    disk.fail(operation, after=3 if operation == "read" else 0)  # type: ignore[arg-type]

    (repaired,) = repair()
    assert not repaired.right
    assert sealed.exists()
    (repaired,) = repair()

    assert repaired.right
    assert [json.loads(line) for line in lines] == stored()


def test_repair_of_a_manifest_alone_leaves_the_segment(
    repair: Callable[[], list[Repaired]], sealed: Path, data: Path
) -> None:
    """A segment that is sound is not written anew; the manifest is, and the old one is kept."""
    content, manifest = sealed.read_bytes(), sealed.with_name(sealed.name + ".manifest.json")
    told = manifest.read_bytes()
    manifest.write_bytes(told[:-5])

    (repaired,) = repair()

    assert repaired.right
    assert (content, told) == (sealed.read_bytes(), manifest.read_bytes())
    assert told[:-5] == (data / "quarantine" / "damaged" / manifest.name).read_bytes()


def test_repair_of_a_segment_without_a_readable_line_moves_it_alone(
    repair: Callable[[], list[Repaired]], sealed: Path, data: Path
) -> None:
    """What nobody can read is kept, and makes no empty segment."""
    sealed.write_bytes(b"\0" * 100)

    (repaired,) = repair()

    assert (True, None) == (repaired.right, repaired.segment)
    assert b"\0" * 100 == (data / "quarantine" / "damaged" / sealed.name).read_bytes()
    assert [] == list((data / "segments").glob("*.zst*"))


def test_repair_of_a_missing_segment_keeps_its_manifest(
    repair: Callable[[], list[Repaired]], sealed: Path, data: Path
) -> None:
    """Nobody makes up for what is gone: the manifest stays, and the next check says so again."""
    content = sealed.read_bytes()
    sealed.unlink()

    (repaired,) = repair()

    assert not repaired.right
    assert "from a backup" in repaired.done
    assert sealed.with_name(sealed.name + ".manifest.json").exists()
    sealed.write_bytes(content)
    sealed.chmod(0o640)
    assert [] == repair()


def test_repair_of_an_open_file_seals_its_whole_frames(
    repair: Callable[[], list[Repaired]], opened: Path, data: Path, lines: list[bytes], frame: Frame, stored: Stored
) -> None:
    """Without a server it is done as the next start would do it."""
    frames = [frame(line) for line in lines]
    opened.write_bytes(frames[0] + frames[1][:-3] + b"".join(frames[2:]))

    (repaired,) = repair()

    assert repaired.right
    assert [json.loads(line) for line in [lines[0], *lines[2:]]] == stored()
    assert 1 == len(list((data / "quarantine").glob("*torn_frame*.json")))
    assert not opened.exists()


@pytest.mark.parametrize("beside", ["open", "sealed"])
def test_repair_beside_a_server_leaves_what_is_the_servers(
    repair: Callable[[], list[Repaired]],
    data: Path,
    disk: FaultyDisk,
    metrics: Metrics,
    torn: Any,
    opened: Path,
    lines: list[bytes],
    frame: Frame,
    beside: str,
) -> None:
    """An open file, and a segment whose open file is still there, are not touched while a server runs."""
    if beside == "sealed":
        content = opened.read_bytes()
        Sealer(data / "segments", disk=disk, metrics=metrics, torn_keeper=torn).seal(STEM)
        opened.write_bytes(content)
        (data / "segments" / (STEM + ".jsonl.zst")).write_bytes(b"\0")
    else:
        opened.write_bytes(frame(lines[0])[:-3] + frame(lines[1]))
    opened.chmod(0o640)
    before = {path: path.read_bytes() for path in (data / "segments").rglob("*") if path.is_file()}

    with held(data / "lock", disk):
        (repaired,) = repair()

    assert not repaired.right
    assert "running server" in repaired.done
    assert before == {path: path.read_bytes() for path in (data / "segments").rglob("*") if path.is_file()}
    assert all(told.right for told in repair())
