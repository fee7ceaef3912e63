"""Acknowledged means kept, on a disk that refuses: whichever operation, at whichever call."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, get_args

import pytest
import zstandard

from tallypost_schema import receipts
from tallypost_server import limits
from tallypost_server.app import App
from tallypost_server.testing import FakeClock, FaultyDisk, Operation

pytestmark = pytest.mark.anyio

Running = Callable[..., AbstractAsyncContextManager[tuple[App, Any]]]
Stored = Callable[[], list[dict[str, Any]]]
Document = Callable[..., bytes]
CALLS = 12


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["error", "full"])
@pytest.mark.parametrize("operation", get_args(Operation))
async def test_document_with_a_receipt_is_kept_whichever_call_the_disk_refuses(
    running: Running,
    report: Document,
    disk: FaultyDisk,
    clock: FakeClock,
    stored: Stored,
    operation: Operation,
    number: int,
) -> None:
    """Each document is stored, with its receipt, or declined as the server's own trouble; sealings included."""
    acknowledged: list[str] = []
    for call in range(CALLS):
        async with running(started=False, stopped=False, seal_bytes="600") as (app, client):
            await app.start()
            disk.fail(operation, number, after=call)
            for n in range(8):
                name = f"{call:016x}{n:016x}"
                body = report(id=name)
                answer = await client.post_report(body)
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 200:
                    assert receipts.is_receipt_of(answer.content, body)
                    acknowledged.append(name)
            assert 200 == answer.status_code or operation in ("free_bytes", "create", "sync_folder", "write", "sync")
            clock.advance(limits.seal_retry_seconds)
            await app.stop()
            disk.forgive()

    async with running():
        await asyncio.sleep(0)

    kept = [line["stream"] for line in stored()]
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept))
    assert len(acknowledged) > CALLS * 4


async def test_segment_of_a_trickle_is_hardly_larger_than_one_frame(
    running: Running, report: Document, data: Any, stored: Stored
) -> None:
    """A document at a time makes groups of one, which compress badly; what is sealed does not remember that."""
    async with running() as (_, client):
        for n in range(600):
            assert 200 == (await client.post_report(report(id=f"{n * 7919:032x}"))).status_code

    (segment,) = (data / "segments").glob("*.zst")
    lines = zstandard.ZstdDecompressor().stream_reader(segment.read_bytes()).read()
    assert 600 == lines.count(b"\n")
    assert segment.stat().st_size <= 1.05 * len(zstandard.ZstdCompressor(level=3).compress(lines))
