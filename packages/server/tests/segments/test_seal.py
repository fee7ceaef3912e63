from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_schema import documents
from tallypost_server.disk import SEAL_POINTS, FaultPoint, OsDisk
from tallypost_server.errors import SealFailed
from tallypost_server.metrics import Metrics
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.recover import recover
from tallypost_server.segments.seal import Sealer, SealThread
from tallypost_server.testing import FakeClock, FaultyDisk, Killed

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"


class Torn:
    """Keeps damaged stretches in memory."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, int, bytes]] = []

    def keep_torn(self, stem: str, offset: int, data: bytes) -> None:
        self.kept.append((stem, offset, data))


@pytest.fixture
def torn() -> Torn:
    return Torn()


@pytest.fixture
def sealer(data: Path, disk: FaultyDisk, metrics: Metrics, torn: Torn) -> Sealer:
    return Sealer(data / "segments", disk=disk, metrics=metrics, torn_keeper=torn)


@pytest.fixture
def lines(report: Callable[..., bytes], batch: Callable[..., bytes]) -> list[bytes]:
    """Stored lines of reports and batches, received later one after the other."""
    found = []
    for number in range(6):
        received = f"2026-11-24T10:00:0{number}.000Z"
        if number % 2:
            document = documents.decode_report(report(id=format(number, "032x")))
            found.append(line_of_report(document, received=received, sha256="0" * 64))
        else:
            other = documents.decode_batch(batch(2, first=2 * number))
            found.append(line_of_batch(other, received=received, sha256="0" * 64))
    return found


def frame(lines: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(lines)


@pytest.fixture
def opened(data: Path, lines: list[bytes]) -> Path:
    """An open file of six groups."""
    path = data / "segments" / "open" / (STEM + ".open")
    path.write_bytes(b"".join(map(frame, lines)))
    path.chmod(0o640)
    return path


def test_seal_makes_one_frame_with_a_manifest_and_removes_the_open_file(
    sealer: Sealer, data: Path, opened: Path, lines: list[bytes]
) -> None:
    """A sealed segment holds the lines in their order, and its manifest says what it is."""
    sealer.seal(STEM)

    path = data / "segments" / (STEM + ".jsonl.zst")
    manifest = json.loads((data / "segments" / (STEM + ".jsonl.zst.manifest.json")).read_bytes())
    assert b"".join(lines) == zstandard.ZstdDecompressor().decompress(path.read_bytes())
    expected = {
        "v": 1,
        "segment": path.name,
        "rows": 6,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "lines_bytes": len(b"".join(lines)),
        "first": "2026-11-24T10:00:00.000Z",
        "last": "2026-11-24T10:00:05.000Z",
        "node": "0a0a0a0a",
    }
    assert expected == manifest
    assert [] == list((data / "segments" / "open").iterdir())


@pytest.mark.parametrize("point", SEAL_POINTS)
def test_seal_killed_at_any_point_leaves_each_document_once_after_the_next_start(
    sealer: Sealer,
    disk: FaultyDisk,
    metrics: Metrics,
    torn: Torn,
    opened: Path,
    data: Path,
    lines: list[bytes],
    stored: Callable[[], list[dict[str, Any]]],
    point: FaultPoint,
) -> None:
    """Wherever the process ends, the next start has the documents in one segment of the same name."""
    disk.kill_at(point)
    with pytest.raises(Killed):
        sealer.seal(STEM)

    again = Sealer(data / "segments", disk=OsDisk(), metrics=metrics, torn_keeper=torn)
    left = recover(data / "segments", disk=OsDisk(), sealer=again, metrics=metrics, go_on=lambda: True)

    assert [] == left
    assert [json.loads(line) for line in lines] == stored()
    assert [STEM + ".jsonl.zst"] == [path.name for path in (data / "segments").glob("*.zst")]
    assert [] == list((data / "segments" / "open").iterdir())


@pytest.mark.parametrize("survivor", ["none", ".zst", ".json", "all"])
@pytest.mark.parametrize("point", SEAL_POINTS)
def test_seal_cut_off_from_power_at_any_point_loses_nothing(
    sealer: Sealer,
    disk: FaultyDisk,
    metrics: Metrics,
    torn: Torn,
    opened: Path,
    data: Path,
    lines: list[bytes],
    stored: Callable[[], list[dict[str, Any]]],
    point: FaultPoint,
    survivor: str,
) -> None:
    """What is relied on is durable before what relies on it, whichever of the new names the disk kept."""
    disk.kill_at(point)
    with pytest.raises(Killed):
        sealer.seal(STEM)
    disk.power_cut(data, survives=lambda path: survivor in ("all", path.suffix))

    again = Sealer(data / "segments", disk=OsDisk(), metrics=metrics, torn_keeper=torn)
    left = recover(data / "segments", disk=OsDisk(), sealer=again, metrics=metrics, go_on=lambda: True)

    assert [] == left
    assert [json.loads(line) for line in lines] == stored()


@pytest.mark.parametrize("point", SEAL_POINTS)
def test_seal_killed_at_any_point_shows_each_document_at_any_time(
    sealer: Sealer,
    disk: FaultyDisk,
    opened: Path,
    lines: list[bytes],
    stored: Callable[[], list[dict[str, Any]]],
    point: FaultPoint,
    tmp_path: Path,
) -> None:
    """Between the crash and the next start readers find every document, at most twice."""
    disk.kill_at(point)
    with pytest.raises(Killed):
        sealer.seal(STEM)

    assert {line["received"] for line in map(json.loads, lines)} == {line["received"] for line in stored()}


def test_seal_in_a_process_that_exits_after_the_link_is_finished_by_the_next_start(
    data: Path,
    opened: Path,
    metrics: Metrics,
    torn: Torn,
    lines: list[bytes],
    stored: Callable[[], list[dict[str, Any]]],
) -> None:
    """The same in a process that really ends, without any of Python's clearing up."""
    program = (
        "import os, sys, pathlib\n"
        "from tallypost_server.metrics import Metrics\n"
        "from tallypost_server.segments.seal import Sealer\n"
        "from tallypost_server.testing import FaultyDisk\n"
        "disk = FaultyDisk()\n"
        "disk.kill_at('after_link', lambda: os._exit(9))\n"
        "Sealer(pathlib.Path(sys.argv[1]), disk=disk, metrics=Metrics(), torn_keeper=None).seal(sys.argv[2])\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(data / "segments"), STEM], check=False)
    assert 9 == ended.returncode
    assert opened.exists()

    again = Sealer(data / "segments", disk=OsDisk(), metrics=metrics, torn_keeper=torn)
    recover(data / "segments", disk=OsDisk(), sealer=again, metrics=metrics, go_on=lambda: True)

    assert [json.loads(line) for line in lines] == stored()
    assert not opened.exists()


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_folder", "link", "read"])
def test_seal_on_a_failing_disk_keeps_the_open_file_and_succeeds_later(
    sealer: Sealer,
    disk: FaultyDisk,
    opened: Path,
    data: Path,
    lines: list[bytes],
    stored: Callable[[], list[dict[str, Any]]],
    operation: str,
) -> None:
    """Whatever fails, nothing is lost, nothing half made stays, and the next try seals."""
    disk.fail(operation, errno.ENOSPC)  # type: ignore[arg-type]
    with pytest.raises(SealFailed):
        sealer.seal(STEM)
    assert [STEM + ".open"] == [path.name for path in (data / "segments" / "open").iterdir()]

    sealer.seal(STEM)

    assert [json.loads(line) for line in lines] == stored()


def test_seal_puts_damage_into_quarantine_and_keeps_what_follows_it(
    sealer: Sealer,
    opened: Path,
    torn: Torn,
    lines: list[bytes],
    stored: Callable[[], list[dict[str, Any]]],
    metrics: Metrics,
) -> None:
    """A torn frame in the middle and one at the end cost only themselves."""
    frames = [frame(line) for line in lines]
    opened.write_bytes(b"".join(frames[:2]) + frames[2][:-9] + b"".join(frames[3:]) + b"half")

    sealer.seal(STEM)

    offset = len(b"".join(frames[:2]))
    end = offset + len(frames[2][:-9]) + len(b"".join(frames[3:]))
    assert [(STEM, offset, frames[2][:-9]), (STEM, end, b"half")] == torn.kept
    assert [json.loads(line) for line in (*lines[:2], *lines[3:])] == stored()
    assert 2 == metrics.torn.value()


@pytest.mark.parametrize("content", [b"", b"\x28\xb5\x2f\xfd torn"])
def test_seal_of_a_file_without_a_whole_frame_makes_no_segment(
    sealer: Sealer, opened: Path, data: Path, content: bytes
) -> None:
    """What holds no line becomes nothing."""
    opened.write_bytes(content)

    sealer.seal(STEM)

    assert [] == [path for path in (data / "segments").rglob("*") if path.is_file()]


def test_seal_never_writes_over_a_segment_that_is_not_whole(
    sealer: Sealer, opened: Path, data: Path, lines: list[bytes]
) -> None:
    """A segment that was damaged since is left alone, and so is the open file that could restore it."""
    content = opened.read_bytes()
    sealer.seal(STEM)
    path = data / "segments" / (STEM + ".jsonl.zst")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    opened.write_bytes(content)
    opened.chmod(0o640)

    with pytest.raises(SealFailed, match="not what its manifest says"):
        sealer.seal(STEM)

    assert whole[:-1] == path.read_bytes()
    assert content == opened.read_bytes()
    path.write_bytes(whole)


def test_segment_is_read_by_zstdcat_json_and_duckdb(
    sealer: Sealer, opened: Path, data: Path, lines: list[bytes], tmp_path: Path
) -> None:
    """Tools that know nothing of this program read a segment whole."""
    duckdb = pytest.importorskip("duckdb")
    sealer.seal(STEM)
    path = data / "segments" / (STEM + ".jsonl.zst")

    zstdcat = shutil.which("zstdcat")
    if zstdcat is not None:
        text = subprocess.run([zstdcat, str(path)], capture_output=True, check=True).stdout
    else:
        text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes())).read()
    tool = [sys.executable, "-m", "json.tool", "--json-lines", "--no-indent"]
    checked = subprocess.run(tool, input=text, capture_output=True, check=True).stdout
    with duckdb.connect() as connection:
        rows = connection.sql(
            f"select kind, first, last from read_json('{path}', format='newline_delimited')"
        ).fetchall()

    assert b"".join(lines) == text
    assert 6 == checked.count(b"\n")
    assert [("events", 0, 1), ("report", None, None)] == rows[:2]


class TestSealThread:
    @pytest.fixture
    def thread(self, sealer: Sealer, clock: FakeClock, metrics: Metrics) -> SealThread:
        return SealThread(sealer, clock=clock, metrics=metrics)

    def test_stop_seals_what_waits(self, thread: SealThread, opened: Path, data: Path) -> None:
        """What was handed over is sealed before the end."""
        thread.start()
        thread.hand_over(STEM)

        assert thread.stop(5.0)
        assert [STEM + ".jsonl.zst"] == [path.name for path in (data / "segments").glob("*.zst")]

    def test_tick_after_a_while_seals_what_the_disk_refused(
        self, thread: SealThread, disk: FaultyDisk, clock: FakeClock, metrics: Metrics, opened: Path
    ) -> None:
        """A refused segment waits, then is tried again, and the failure is counted."""
        gone = threading.Event()
        disk.kill_at("after_unlink", gone.set)
        disk.fail("link")
        thread.start()
        thread.hand_over(STEM)
        while not metrics.seal_failures.value():
            pass

        while not gone.is_set():
            clock.advance(5)
            thread.tick()

        assert thread.stop(5.0)
        assert not opened.exists()
        assert 1 == metrics.seal_failures.value()
