from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tallypost_server.app import App
from tallypost_server.testing import FakeClock, FaultyDisk
from tallypost_server.unsealed import oldest_sealed_seconds, oldest_unsealed_seconds

Running = Callable[..., AbstractAsyncContextManager[tuple[App, Any]]]


def test_nothing_open_is_0_seconds_old(data: Path, disk: FaultyDisk, clock: FakeClock) -> None:
    """Half-made files and others' are none."""
    (data / "segments" / "open" / "x.making").write_bytes(b"")
    (data / "segments" / "open" / "other.open").write_bytes(b"")

    found = oldest_unsealed_seconds(data / "segments", disk=disk, clock=clock)

    for name in ("x.making", "other.open"):
        (data / "segments" / "open" / name).unlink()
    assert 0.0 == found


def test_oldest_segment_that_is_still_here_tells_how_far_archival_is_behind(
    data: Path, disk: FaultyDisk, clock: FakeClock
) -> None:
    """By its name, and whatever else lies there."""
    assert 0.0 == oldest_sealed_seconds(data / "segments", disk=disk, clock=clock)
    names = [f"documents-2026112{day}T100000Z-0a0a-0b0b-000001.jsonl.zst" for day in (3, 4)]
    for name in (*names, "documents.jsonl.zst", names[0] + ".manifest.json"):
        (data / "segments" / name).touch()

    found = oldest_sealed_seconds(data / "segments", disk=disk, clock=clock)

    for path in (data / "segments").glob("documents*"):
        path.unlink()
    assert 86_400 == int(found)


@pytest.mark.anyio
async def test_metric_grows_while_a_segment_is_open_and_a_clock_that_goes_back_makes_it_0(
    running: Running, report: Callable[..., bytes], clock: FakeClock
) -> None:
    """It is what an alert looks at."""

    async def told(client: Any) -> float:
        (line,) = [one for one in (await client.get("/metrics")).text.splitlines() if one.startswith(NAME)]
        return float(line.partition(" ")[2])

    async with running(seal_seconds=1e9) as (_, client):
        assert 0 == await told(client)
        await client.post_report(report())
        clock.advance(50)
        assert 50 <= await told(client) < 51
        clock.advance(-100)
        assert 0 == await told(client)


NAME = "tallypost_oldest_unsealed_seconds "
