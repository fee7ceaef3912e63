from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_server.app import App
from tallypost_server.errors import FolderLocked, FolderMissing
from tallypost_server.settings import Settings
from tallypost_server.testing import FakeClock, FaultyDisk

pytestmark = pytest.mark.anyio
Running = Callable[..., AbstractAsyncContextManager[tuple[App, Any]]]
Document = Callable[..., bytes]
Stored = Callable[[], list[dict[str, Any]]]
Soon = Callable[[Callable[[], bool]], Any]


def sealed(data: Path) -> list[Path]:
    return sorted((data / "segments").glob("*.zst"))


async def test_stop_seals_what_is_open(running: Running, report: Document, data: Path) -> None:
    """At the end nothing lies open."""
    async with running() as (_, client):
        await client.post_report(report())
        assert [] == sealed(data)

    assert 1 == len(sealed(data))
    assert [] == list((data / "segments" / "open").iterdir())


async def test_stop_without_a_document_makes_no_file(running: Running, data: Path) -> None:
    """An empty segment is none."""
    async with running():
        pass

    assert [] == [path for path in (data / "segments").rglob("*") if path.is_file()]


async def test_segment_is_sealed_so_long_after_its_first_line(
    running: Running, report: Document, data: Path, clock: FakeClock, soon: Soon
) -> None:
    """Time alone seals a segment, and what comes then is in the next."""
    async with running(seal_seconds=60) as (_, client):
        await client.post_report(report())
        for _ in range(239):
            clock.advance(0.25)
            await asyncio.sleep(0)
        assert [] == sealed(data)

        clock.advance(0.25)

        await soon(lambda: 1 == len(sealed(data)))
        await client.post_report(report())
    assert 2 == len(sealed(data))


async def test_segment_is_sealed_when_it_is_full(
    running: Running, report: Document, data: Path, stored: Stored
) -> None:
    """Each segment ends with the group that fills it, and no line is lost or doubled between two."""
    async with running(seal_bytes=1500) as (_, client):
        for number in range(20):
            await client.post_report(report(id=format(number, "032x")))

    assert [format(number, "032x") for number in range(20)] == [line["stream"] for line in stored()]
    assert 4 < len(sealed(data)) < 20


async def test_sealing_that_stalls_holds_up_no_answer(
    running: Running, report: Document, data: Path, disk: FaultyDisk, stored: Stored
) -> None:
    """While a segment is being sealed documents are committed to the next."""
    stalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with running(seal_bytes=1) as (_, client):
        go_on = threading.Event()

        def stall() -> None:
            loop.call_soon_threadsafe(stalled.set)
            go_on.wait(10)

        disk.kill_at("before_seal", stall)
        await client.post_report(report(id="1" * 32))
        await stalled.wait()

        answers = [await client.post_report(report(id="2" * 32)) for _ in range(3)]

        assert {200} == {answer.status_code for answer in answers}
        assert [] == sealed(data)
        go_on.set()
    assert 4 == len(stored())


async def test_start_beside_a_damaged_segment_makes_it_anew_at_once(
    running: Running, report: Document, data: Path, stored: Stored, clock: FakeClock
) -> None:
    """A segment that was damaged while its open file was still there is mended, not met again at every start."""
    async with running() as (_, client):
        await client.post_report(report(id="1" * 32))
        (left,) = (data / "segments" / "open").iterdir()
        crashed = left.read_bytes()
    (segment,) = sealed(data)
    segment.write_bytes(segment.read_bytes()[:-1])
    left.write_bytes(crashed)
    left.chmod(0o640)

    async with running() as (_, client):
        assert [] == list((data / "segments" / "open").iterdir())
        metrics = (await client.get("/metrics")).text

    assert "tallypost_segments_damaged_total 1\n" in metrics
    assert "tallypost_seal_failures_total 0\n" in metrics
    assert ["1" * 32] == [line["stream"] for line in stored()]
    assert [segment.name] == [path.name for path in (data / "quarantine" / "damaged").glob("*.zst")]


async def test_start_recovers_what_a_crash_left_open(
    running: Running, report: Document, data: Path, stored: Stored
) -> None:
    """An open file with a torn end is sealed, its damage is in the quarantine, and documents are taken."""
    async with running() as (_, client):
        await client.post_report(report(id="1" * 32))
        (path,) = (data / "segments" / "open").iterdir()
        crashed = path.read_bytes()
    for path in [*sealed(data), *(data / "segments").glob("*.json")]:
        path.unlink()
    left = data / "segments" / "open" / "documents-20261124T090000Z-0a0a0a0a-0b0b0b0b-000009.open"
    left.write_bytes(crashed + zstandard.compress(b"torn")[:-1])
    left.chmod(0o640)

    async with running() as (_, client):
        await client.post_report(report(id="2" * 32))

    assert ["1" * 32, "2" * 32] == [line["stream"] for line in stored()]
    (torn,) = (data / "quarantine").iterdir()
    assert "torn_frame" == json.loads(torn.read_text())["code"]
    assert "20261124T090000Z-torn_frame-0a0a0a0a-0b0b0b0b-000009-" in torn.name


async def test_power_cut_after_a_200_loses_nothing(
    running: Running, report: Document, data: Path, disk: FaultyDisk, segments: Any
) -> None:
    """What was answered is durable with its name, whatever of the rest the disk forgot."""
    async with running() as (_, client):
        for name in ("1" * 32, "2" * 32):
            assert 200 == (await client.post_report(report(id=name))).status_code
        disk.power_cut(data)

        assert ["1" * 32, "2" * 32] == [json.loads(line)["stream"] for line in segments.lines()]


async def test_start_with_a_segment_that_cannot_be_sealed_takes_documents_all_the_same(
    running: Running, report: Document, data: Path, disk: FaultyDisk, stored: Stored, clock: FakeClock, soon: Soon
) -> None:
    """Trouble with an old file is told and tried again; new documents do not wait for it."""
    left = data / "segments" / "open" / "documents-20261124T090000Z-0a0a0a0a-0b0b0b0b-000009.open"
    line = b'{"v":1,"received":"2026-11-24T09:00:00.000Z","kind":"report","app":"a","stream":"old",'
    line += b'"first":null,"last":null,"lost":null,"terminal":null,"sha256":"","doc":{}}\n'
    left.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(line))
    left.chmod(0o640)
    disk.fail("link", times=2)

    async with running() as (_, client):
        assert 200 == (await client.post_report(report())).status_code
        while left.exists():
            clock.advance(5)
            await asyncio.sleep(0.001)
        assert ["old"] == [row["stream"] for row in stored() if row["app"] == "a"]


async def test_changed_declaration_is_in_force_within_five_seconds(
    running: Running, report: Document, data: Path, clock: FakeClock, soon: Soon
) -> None:
    """A new application needs no restart."""
    async with running() as (app, client):
        text = (data / "applications" / "mytool.toml").read_text()
        (data / "applications" / "new.toml").write_text(text.replace("example.org/mytool", "example.org/new"))
        assert 403 == (await client.post_report(report(app="example.org/new"))).status_code

        clock.advance(4.9)
        await soon(lambda: 2 == app._applications.count)

        assert 200 == (await client.post_report(report(app="example.org/new"))).status_code


def test_app_on_a_locked_folder_does_not_start(make_settings: Callable[..., Settings]) -> None:
    """The lock of a data folder belongs to one server, until it lets go."""
    first = App(make_settings())

    with pytest.raises(FolderLocked):
        App(make_settings())
    first.close()
    App(make_settings()).close()


def test_app_without_its_named_applications_folder_does_not_start(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """A misspelt folder would refuse every document for good; the lock is free again afterwards."""
    with pytest.raises(FolderMissing, match="applications folder"):
        App(make_settings(applications=str(tmp_path / "missing")))

    App(make_settings()).close()


def test_app_makes_the_folders_that_it_needs(tmp_path: Path, make_settings: Callable[..., Settings]) -> None:
    """A new data folder is whole after the first start."""
    settings = make_settings(data=str(tmp_path / "new" / "data"))

    App(settings).close()

    names = sorted(path.relative_to(settings.data).as_posix() for path in settings.data.rglob("*"))
    assert ["applications", "lock", "node", "quarantine", "segments", "segments/open"] == names
