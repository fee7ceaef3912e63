"""What tests of segments share: stored lines, an open file of them, and a keeper of damage in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tallypost_schema import documents, receipts
from tallypost_server.segments.format import line_of_batch, line_of_report

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"


class Torn:
    """Keeps damaged stretches in memory, and damaged files by their bytes."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, int, bytes]] = []
        self.damaged: dict[str, bytes] = {}

    def keep_torn(self, stem: str, offset: int, data: bytes) -> None:
        self.kept.append((stem, offset, data))

    def keep_damaged(self, path: Path) -> None:
        self.damaged[path.name] = path.read_bytes()


@pytest.fixture
def torn() -> Torn:
    return Torn()


@pytest.fixture
def lines(report: Callable[..., bytes], batch: Callable[..., bytes]) -> list[bytes]:
    """Stored lines of reports and batches, received later one after the other, each with its hash."""
    found = []
    for number in range(6):
        received = f"2026-11-24T10:00:0{number}.000Z"
        if number % 2:
            body = report(id=format(number, "032x"))
            document = documents.decode_report(body)
            found.append(line_of_report(document, received=received, sha256=receipts.hash_of(body)))
        else:
            body = batch(2, first=2 * number)
            found.append(line_of_batch(documents.decode_batch(body), received=received, sha256=receipts.hash_of(body)))
    return found


@pytest.fixture
def frame() -> Callable[[bytes], bytes]:
    """A group as the server appends it."""
    return lambda lines: zstandard.ZstdCompressor(level=1, write_checksum=True).compress(lines)


@pytest.fixture
def opened(data: Path, lines: list[bytes], frame: Callable[[bytes], bytes]) -> Path:
    """An open file of six groups."""
    path = data / "segments" / "open" / (STEM + ".open")
    path.write_bytes(b"".join(map(frame, lines)))
    path.chmod(0o640)
    return path
