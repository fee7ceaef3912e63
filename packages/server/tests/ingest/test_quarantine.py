from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_server import limits
from tallypost_server.errors import Refused
from tallypost_server.ingest.quarantine import Quarantine
from tallypost_server.metrics import Metrics
from tallypost_server.testing import FakeClock, FaultyDisk

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"


@pytest.fixture
def make(
    data: Path, disk: FaultyDisk, clock: FakeClock, metrics: Metrics, token: Callable[[int], str]
) -> Callable[..., Quarantine]:
    def build(**bounds: Any) -> Quarantine:
        options: dict[str, Any] = {"in_thread": lambda job: job(), **bounds}
        return Quarantine(data / "quarantine", disk=disk, clock=clock, metrics=metrics, token=token, **options)

    return build


def keep(quarantine: Quarantine, body: bytes) -> None:
    refused = Refused("malformed", "not JSON")
    quarantine.keep_refused(refused, path="/v1/reports", encoding="zstd", body=body)


def kept(data: Path) -> list[bytes]:
    return [base64.b64decode(json.loads(path.read_text())["body"]) for path in sorted((data / "quarantine").iterdir())]


def test_keep_refused_keeps_body_and_reason_and_no_sender(make: Callable[..., Quarantine], data: Path) -> None:
    """What is needed to find out why, and nothing of who it was."""
    keep(make(), b"body")

    (path,) = (data / "quarantine").iterdir()
    expected = {
        "v": 1,
        "at": "2026-11-24T10:00:00.123Z",
        "code": "malformed",
        "message": "not JSON",
        "source": "/v1/reports",
        "body": base64.b64encode(b"body").decode(),
        "encoding": "zstd",
    }
    assert expected == json.loads(path.read_text())
    assert "20261124T100000Z-malformed-00000001.json" == path.name


def test_keep_refused_over_the_number_drops_the_oldest(
    make: Callable[..., Quarantine], data: Path, metrics: Metrics, clock: FakeClock
) -> None:
    """The newest stay, also over a restart."""
    for number in range(5):
        clock.advance(1)
        keep(make(files_max=3), b"%d" % number)

    assert [b"2", b"3", b"4"] == kept(data)
    assert 2 == metrics.quarantine_lost.value("bounds")


def test_keep_refused_by_several_workers_goes_by_the_same_bounds(
    make: Callable[..., Quarantine], data: Path, clock: FakeClock
) -> None:
    """What others keep counts too, soon; what others have dropped is missed by nobody."""
    workers = [make(files_max=10) for _ in range(3)]
    for number in range(3 * 3 * limits.quarantine_listed_writes):
        keep(workers[number % 3], b"%d" % number)
        clock.advance(1)

    assert len(kept(data)) <= 10 + 2 * limits.quarantine_listed_writes
    for number in range(limits.quarantine_listed_writes):
        keep(workers[0], b"last %d" % number)
        clock.advance(1)
    assert 10 == len(kept(data))


def test_keep_refused_over_the_bytes_drops_the_oldest(make: Callable[..., Quarantine], data: Path) -> None:
    """The quarantine's size on disk is bounded."""
    quarantine = make(bytes_max=5000)
    for number in range(20):
        keep(quarantine, b"%02d" % number * 500)

    assert sum(path.stat().st_size for path in (data / "quarantine").iterdir()) <= 5000
    assert b"19" * 500 == kept(data)[-1]


def test_keep_refused_on_a_failing_disk_is_counted(
    make: Callable[..., Quarantine], data: Path, disk: FaultyDisk, metrics: Metrics
) -> None:
    """A refused document that cannot be kept is lost, in numbers."""
    disk.fail("create")

    keep(make(), b"body")

    assert [] == kept(data)
    assert 1 == metrics.quarantine_lost.value("disk")


def test_keep_refused_in_a_flood_is_counted(make: Callable[..., Quarantine], metrics: Metrics) -> None:
    """What waits to be written is bounded."""
    waiting: list[Callable[[], None]] = []
    quarantine = make(in_thread=waiting.append)

    for _ in range(70):
        keep(quarantine, b"body")

    assert 64 == len(waiting)
    assert 6 == metrics.quarantine_lost.value("queue")


def test_keep_torn_twice_is_kept_once_and_durably(
    make: Callable[..., Quarantine], data: Path, disk: FaultyDisk
) -> None:
    """A start that ended before the damaged file was gone keeps its damage again, as one file."""
    quarantine = make()

    quarantine.keep_torn(STEM, 17, b"torn")
    quarantine.keep_torn(STEM, 17, b"torn")

    assert [b"torn"] == kept(data)
    assert 2 == len(disk.synced)


def test_keep_torn_on_a_failing_disk_raises(make: Callable[..., Quarantine], data: Path, disk: FaultyDisk) -> None:
    """The damaged file must not go before its bytes are kept."""
    disk.fail("sync")

    with pytest.raises(OSError, match="Input/output"):
        make().keep_torn(STEM, 17, b"torn")

    assert [] == list((data / "quarantine").iterdir())


def test_keep_damaged_keeps_the_file_itself_under_a_second_name(make: Callable[..., Quarantine], data: Path) -> None:
    """It takes no room; the same file twice is kept once, another one of this name beside it."""
    path, damaged = data / "segments" / "a", data / "quarantine" / "damaged"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        path.chmod(0o640)

        make().keep_damaged(path)
        make().keep_damaged(path)

        path.unlink()
    assert {"a": b"one", "a.2": b"two"} == {kept.name: kept.read_bytes() for kept in damaged.iterdir()}


def test_keep_damaged_is_beyond_the_bounds(make: Callable[..., Quarantine], data: Path) -> None:
    """What is refused later never pushes out a damaged file."""
    path = data / "segments" / "a"
    path.write_bytes(b"damaged" * 1000)
    path.chmod(0o640)
    make().keep_damaged(path)
    path.unlink()

    for number in range(5):
        keep(make(files_max=2, bytes_max=1000), b"%d" % number)

    assert ["a"] == [kept.name for kept in (data / "quarantine" / "damaged").iterdir()]
    assert 2 == len(list((data / "quarantine").glob("*.json")))
