from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from tallypost_server.metrics import Metrics
from tallypost_server.segments.recover import recover
from tallypost_server.segments.seal import Sealer
from tallypost_server.testing import FaultyDisk

STEMS = [f"documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-{number:06d}" for number in (1, 2, 3)]


@pytest.fixture
def sealer(data: Path, disk: FaultyDisk, metrics: Metrics) -> Sealer:
    class Nothing:
        def keep_torn(self, stem: str, offset: int, data: bytes) -> None:
            raise AssertionError(stem)

        def keep_damaged(self, path: Path) -> None:
            raise AssertionError(path)

    return Sealer(data / "segments", disk=disk, metrics=metrics, torn_keeper=Nothing())


@pytest.fixture
def opened(data: Path) -> list[Path]:
    paths = [data / "segments" / "open" / (stem + ".open") for stem in STEMS]
    line = (
        b'{"v":1,"received":"2026-11-24T10:00:00.000Z","kind":"report","app":"a","stream":"%s","first":null,'
        b'"last":null,"lost":null,"terminal":null,"sha256":"","doc":{}}\n'
    )
    for path in paths:
        path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(line % path.name.encode()))
        path.chmod(0o640)
    return paths


def sealed(data: Path) -> list[str]:
    return sorted(path.name.removesuffix(".jsonl.zst") for path in (data / "segments").glob("*.zst"))


def test_recover_seals_every_open_file(
    data: Path, disk: FaultyDisk, sealer: Sealer, metrics: Metrics, opened: list[Path]
) -> None:
    """What a run before left open is sealed."""
    assert [] == recover(data / "segments", disk=disk, sealer=sealer, metrics=metrics, go_on=lambda: True)

    assert STEMS == sealed(data)


def test_recover_with_one_file_that_fails_seals_the_others(
    data: Path, disk: FaultyDisk, sealer: Sealer, metrics: Metrics, opened: list[Path]
) -> None:
    """One file that cannot be sealed holds up nothing, and is told."""
    disk.fail("link", after=1)

    left = recover(data / "segments", disk=disk, sealer=sealer, metrics=metrics, go_on=lambda: True)

    assert [STEMS[1]] == left
    assert [STEMS[0], STEMS[2]] == sealed(data)
    assert opened[1].exists()


def test_recover_removes_half_made_files_and_leaves_strangers(
    data: Path, disk: FaultyDisk, sealer: Sealer, metrics: Metrics
) -> None:
    """What a sealing left half made goes; a file that is not ours stays."""
    folder = data / "segments" / "open"
    for name in (STEMS[0] + ".making", "notes.txt"):
        (folder / name).write_bytes(b"")
        (folder / name).chmod(0o640)

    recover(data / "segments", disk=disk, sealer=sealer, metrics=metrics, go_on=lambda: True)

    assert ["notes.txt"] == [path.name for path in folder.iterdir()]


def test_recover_told_to_end_leaves_the_rest_for_the_next_start(
    data: Path, disk: FaultyDisk, sealer: Sealer, metrics: Metrics, opened: list[Path]
) -> None:
    """A server that is stopped while it starts does not finish a long recovery first."""
    recover(data / "segments", disk=disk, sealer=sealer, metrics=metrics, go_on=lambda: not sealed(data))

    assert STEMS[:1] == sealed(data)
    assert opened[1].exists()
    assert opened[2].exists()
