from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_schema import documents
from tallypost_server.errors import UnknownStream
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.reader import SegmentReader

SESSION = "ab" * 16


@pytest.fixture
def lay(data: Path, batch: Callable[..., bytes]) -> Callable[..., None]:
    """Lays batches of one session into an open file, each as (first, count, keys), received in this order."""

    def write(*batches: tuple[int, int, dict[str, Any]]) -> None:
        frames = []
        for number, (first, count, keys) in enumerate(batches):
            document = documents.decode_batch(batch(count, first=first, **keys))
            line = line_of_batch(document, received=f"2026-11-24T10:00:{number:02d}.000Z", sha256="0" * 64)
            frames.append(zstandard.ZstdCompressor(write_checksum=True).compress(line))
        path = data / "segments" / "open" / "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001.open"
        path.write_bytes(b"".join(frames))
        path.chmod(0o640)

    return write


def short(entries: list[dict[str, Any]]) -> list[Any]:
    """Indexes of events, and the rest as it is."""
    return [entry["index"] if "name" in entry else entry for entry in entries]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([(0, 3, {})], [0, 1, 2]),
        ([(2, 1, {}), (0, 2, {})], [0, 1, 2]),
        ([(0, 2, {}), (1, 2, {})], [0, 1, 2]),
        ([(0, 1, {}), (3, 1, {})], [0, {"gap": [1, 2]}, 3]),
        ([(0, 1, {"lost": 2})], [{"lost": [0, 1]}, 2]),
        ([(0, 1, {"lost": 2}), (1, 1, {})], [{"lost": [0, 0]}, 1, 2]),
        ([(0, 0, {"lost": 3, "terminal": 5})], [{"lost": [0, 2]}, {"gap": [3, 5]}]),
        (
            [(2, 0, {"lost": 2}), (6, 0, {"lost": 1})],
            [{"gap": [0, 1]}, {"lost": [2, 3]}, {"gap": [4, 5]}, {"lost": [6, 6]}],
        ),
        ([(0, 0, {"lost": 4}), (2, 0, {"lost": 4})], [{"lost": [0, 3]}, {"lost": [4, 5]}]),
        ([(6, 0, {"terminal": 5})], [{"gap": [0, 5]}]),
        ([(0, 2, {"terminal": 3}), (0, 4, {"terminal": 9})], [0, 1, 2, 3]),
        ([(0, 1, {"terminal": 2**53 - 1})], [0, {"gap": [1, 2**53 - 1]}]),
        ([(0, 0, {"lost": 2**53 - 1})], [{"lost": [0, 2**53 - 2]}]),
    ],
)
def test_entries_are_in_order_each_once_with_gaps_and_lost_ranges(
    lay: Callable[..., None], segments: SegmentReader, batches: list[Any], expected: list[Any]
) -> None:
    """However batches came, overlap or lack something, `show` tells it in index order."""
    lay(*batches)

    assert expected == short(segments.entries(SESSION))


def test_entries_leave_out_events_that_say_nothing(lay: Callable[..., None], segments: SegmentReader) -> None:
    """An event {} is there, so it is no gap, but there is nothing to show of it."""
    event = {"name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {}}
    lay((0, 0, {"events": [{}, event, {}]}))

    assert [{"index": 1, **event}] == segments.entries(SESSION)


def test_entries_of_an_index_that_came_twice_are_those_received_first(
    lay: Callable[..., None], segments: SegmentReader
) -> None:
    """The first content of an index wins."""
    first, second = ({"name": name, "at": "2026-11-24T10:00:00.123Z", "fields": {}} for name in ("first", "second"))
    lay((0, 0, {"events": [first]}), (0, 0, {"events": [second]}))

    assert [{"index": 0, **first}] == segments.entries(SESSION)


def test_entries_of_a_report_are_its_document(
    data: Path, segments: SegmentReader, report: Callable[..., bytes]
) -> None:
    """A report is one entry, also when it came twice."""
    document = documents.decode_report(report())
    lines = [
        line_of_report(document, received=f"2026-11-24T10:00:0{number}.000Z", sha256="0" * 64) for number in range(2)
    ]
    path = data / "segments" / "open" / "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001.open"
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(b"".join(lines)))
    path.chmod(0o640)

    entries = segments.entries("0f" * 16)

    assert [0] == [entry["index"] for entry in entries]
    assert json.loads(report()) == json.loads(bytes(entries[0]["doc"]))


def test_entries_of_an_unknown_stream_raise(lay: Callable[..., None], segments: SegmentReader) -> None:
    """A stream that only occurs within another's text is not there."""
    lay((0, 1, {}))

    for stream in ("cd" * 16, '"', "\udc80", "ab"):
        with pytest.raises(UnknownStream):
            segments.entries(stream)


def test_counts_of_nothing_are_none(segments: SegmentReader) -> None:
    """An empty folder has no oldest line."""
    assert (0, 0, 0) == segments.counts()


def test_lines_of_a_damaged_segment_are_read_as_far_as_they_can(
    data: Path, segments: SegmentReader, lines: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """One damaged segment hides no other, and whoever reads is told."""
    good, bad = (data / "segments" / f"documents-20261124T10000{n}Z-0a0a0a0a-0b0b0b0b-000001.jsonl.zst" for n in (1, 0))
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(b"".join(lines[:2]))
    bad.write_bytes(whole[:-4])
    good.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(lines[2]))

    assert [line.rstrip(b"\n") for line in lines[:3]] == list(segments.lines())

    assert f"{bad.name} is damaged" in caplog.text
    bad.unlink()
    good.unlink()


def test_entries_beside_a_segment_with_any_bit_flipped_are_told_or_unknown(
    data: Path, segments: SegmentReader, lines: list[bytes], report: Callable[..., bytes]
) -> None:
    """Whatever comes out of a damaged segment, `show` shows what is a line, or nothing."""
    path = data / "segments" / "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001.jsonl.zst"
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(b"".join(lines))
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])

        try:
            entries = segments.entries(format(1, "032x"))
        except UnknownStream:
            continue

        assert [0] == [entry["index"] for entry in entries]
    path.unlink()
