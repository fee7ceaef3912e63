from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_server import limits
from tallypost_server.disk import SEAL_POINTS, FaultPoint, OsDisk
from tallypost_server.errors import SealFailed
from tallypost_server.metrics import Metrics
from tallypost_server.segments.recover import recover
from tallypost_server.segments.seal import Sealer, SealThread
from tallypost_server.testing import FakeClock, FaultyDisk, Killed

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"


@pytest.fixture
def sealer(data: Path, disk: FaultyDisk, metrics: Metrics, torn: Any) -> Sealer:
    return Sealer(data / "segments", disk=disk, metrics=metrics, torn_keeper=torn)


def frame(lines: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(lines)


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
    torn: Any,
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
    torn: Any,
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
    torn: Any,
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
    torn: Any,
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


@pytest.fixture
def sealed_and_open(sealer: Sealer, opened: Path, data: Path) -> Path:
    """A segment beside the open file from which it was made."""
    content = opened.read_bytes()
    sealer.seal(STEM)
    opened.write_bytes(content)
    opened.chmod(0o640)
    return data / "segments" / (STEM + ".jsonl.zst")


@pytest.mark.parametrize("damage", ["cut", "changed", "no manifest", "torn manifest", "other manifest"])
def test_seal_beside_a_damaged_segment_puts_it_aside_and_makes_it_anew(
    sealer: Sealer,
    sealed_and_open: Path,
    opened: Path,
    lines: list[bytes],
    torn: Any,
    metrics: Metrics,
    stored: Callable[[], list[dict[str, Any]]],
    damage: str,
) -> None:
    """A segment that was damaged since is not in the way for ever: it is kept, and the open file restores it."""
    whole, manifest = sealed_and_open.read_bytes(), sealed_and_open.with_name(sealed_and_open.name + ".manifest.json")
    told = manifest.read_bytes()
    if damage == "cut":
        sealed_and_open.write_bytes(whole[:-1])
    elif damage == "changed":
        sealed_and_open.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(told[:-9] if damage == "torn manifest" else told.replace(b'"bytes":', b'"bytes":1'))
    damaged = {path.name: path.read_bytes() for path in (sealed_and_open, manifest) if path.exists()}

    sealer.seal(STEM)

    assert damaged == torn.damaged
    assert [json.loads(line) for line in lines] == stored()
    assert (whole, told) == (sealed_and_open.read_bytes(), manifest.read_bytes())
    assert not opened.exists()
    assert 1 == metrics.damaged.value()


def test_seal_beside_a_damaged_segment_that_cannot_be_kept_leaves_both(
    sealer: Sealer, sealed_and_open: Path, opened: Path, torn: Any
) -> None:
    """The damaged segment goes only once it is in the quarantine."""

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    whole = sealed_and_open.read_bytes()
    sealed_and_open.write_bytes(whole[:-1])
    torn.keep_damaged = refuse

    with pytest.raises(SealFailed):
        sealer.seal(STEM)

    assert whole[:-1] == sealed_and_open.read_bytes()
    assert opened.exists()
    sealed_and_open.write_bytes(whole)


def test_seal_with_both_files_damaged_keeps_every_line_that_one_of_them_has(
    sealer: Sealer, sealed_and_open: Path, opened: Path, data: Path, lines: list[bytes]
) -> None:
    """What the open file has lost is salvaged from the damaged segment, into one of its own."""
    sealed_and_open.write_bytes(sealed_and_open.read_bytes()[:-1])
    frames = [frame(line) for line in lines]
    opened.write_bytes(b"".join(frames[:2]) + frames[2][:-9] + b"".join(frames[3:]))

    sealer.seal(STEM)

    segments = sorted((data / "segments").glob("*.zst"))
    found = {line for path in segments for line in zstandard.decompress(path.read_bytes()).splitlines(keepends=True)}
    assert 2 == len(segments)
    assert set(lines) == found


@pytest.mark.parametrize("point", SEAL_POINTS)
def test_seal_beside_a_damaged_segment_killed_at_any_point_loses_nothing(
    sealer: Sealer,
    sealed_and_open: Path,
    opened: Path,
    disk: FaultyDisk,
    lines: list[bytes],
    stored: Callable[[], list[dict[str, Any]]],
    point: FaultPoint,
) -> None:
    """Wherever the process ends, the next start finishes what it began."""
    sealed_and_open.write_bytes(sealed_and_open.read_bytes()[:-1])
    disk.kill_at(point)
    with pytest.raises(Killed):
        sealer.seal(STEM)
    assert {json.loads(line)["received"] for line in lines} <= {line["received"] for line in stored()}
    disk.kill_at("before_commit_sync")  # Never met here.

    sealer.seal(STEM)

    assert [json.loads(line) for line in lines] == stored()
    assert not opened.exists()


def test_seal_of_a_whole_frame_that_holds_no_lines_keeps_it_and_goes_on(
    sealer: Sealer, opened: Path, lines: list[bytes], torn: Any, stored: Callable[[], list[dict[str, Any]]]
) -> None:
    """What nobody can read as lines costs only itself, and does not stop every later start."""
    strange = lines[0] + b"no line\n"
    opened.write_bytes(frame(lines[0]) + frame(strange) + frame(lines[1]))

    sealer.seal(STEM)

    assert [(STEM, len(frame(lines[0])), strange)] == torn.kept
    assert [json.loads(line) for line in lines[:2]] == stored()


def test_seal_holds_little_of_a_large_file(sealer: Sealer, opened: Path, lines: list[bytes], data: Path) -> None:
    """The memory that sealing takes does not grow with the segment."""
    group = frame(b"".join(lines[:1] * 500))
    opened.write_bytes(group * 400)
    size = 400 * 500 * len(lines[0])

    tracemalloc.start()
    sealer.seal(STEM)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert size > 64 << 20
    assert peak < 8 << 20


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

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is the process's")
    def test_sealing_steps_back_and_nobody_else(
        self, sealer: Sealer, clock: FakeClock, metrics: Metrics, opened: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who posts is answered first, as long as there is a processor too few."""
        nice = []
        monkeypatch.setattr(sealer, "seal", lambda stem: nice.append(os.getpriority(os.PRIO_PROCESS, 0)))
        before = os.getpriority(os.PRIO_PROCESS, 0)
        thread = SealThread(sealer, clock=clock, metrics=metrics)

        thread.start()
        thread.hand_over(STEM)

        assert thread.stop(5.0)
        assert [max(before, limits.seal_niceness)] == nice
        assert before == os.getpriority(os.PRIO_PROCESS, 0)

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
