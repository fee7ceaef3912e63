"""Erasing beside many archivists at once, which share a PostgreSQL server."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_server import archiving
from tallypost_server.erasing import Erasure
from tallypost_server.errors import CannotArchive, NotErasedYet
from tallypost_server.settings import Settings

from ..databases import Database
from ..together import together

GONE = "ab" * 16
OTHERS = [format(number * 0x9E3779B97F4A7C15 % 2**64, "016x") * 2 for number in range(1, 13)]


@pytest.fixture
def database(data: Path, database_of: Callable[[str, Path], Database]) -> Database:
    return database_of("postgres", data)


@pytest.mark.anyio
@pytest.mark.postgres
@pytest.mark.timeout(240)
async def test_erase_beside_archivists_at_once_leaves_nothing_and_costs_no_other_row(
    post: Callable[..., Awaitable[None]],
    report: Any,
    batch: Any,
    make_settings: Callable[..., Settings],
    say: Callable[..., tuple[int, str, str]],
    data: Path,
) -> None:
    """Whatever they are at: it waits for each lane, and whoever has planned with the stream does not commit it."""
    settings = make_settings(archive_delay=0)

    def work(_: int, ended: threading.Event) -> None:
        with archiving.coordinator(settings) as opened:
            works = archiving.archivist(settings, opened, lambda: not ended.is_set(), 0.0)
            while not ended.is_set():
                try:
                    works.start()
                    works.round()
                except CannotArchive:  # noqa: PERF203  It waits in between.
                    ended.wait(0.05)

    def bodies(first: int) -> list[bytes]:
        return [batch(3, session=name, first=first, terminal=8) for name in (*OTHERS, GONE)]

    await post(*bodies(0), *(report(id=name) for name in OTHERS))
    with together(2, work) as failures:
        await post(*bodies(3))
        erase(settings)
        await post(*bodies(6))
        for _ in range(400):
            if failures or not list((data / "segments").glob("*.zst")):
                break
            time.sleep(0.1)

    assert [] == [str(path) for path in data.rglob("*") if path.is_file() and GONE.encode() in path.read_bytes()]
    assert 1 == say("show", GONE)[0]
    tables = archiving.tables(settings)
    rows = [row for file in tables.files("events") for row in tables.read("events", file.path).to_pylist()]
    expected = [(name, index) for name in OTHERS for index in range(9)]
    assert sorted(expected) == sorted((row["session"], row["index"]) for row in rows)
    assert len(OTHERS) == sum(file.rows for file in tables.files("reports"))
    with archiving.coordinator(settings) as opened:
        assert {("example.org/mytool", name) for name in OTHERS} == set(opened.known("", "~"))
    assert 0 == say("verify")[0]


def erase(settings: Settings) -> None:
    for _ in range(20):
        try:
            Erasure(settings).erase(GONE)
        except NotErasedYet:
            continue
        return
    raise AssertionError("the archivists never let it happen")
