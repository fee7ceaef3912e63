from __future__ import annotations

import datetime
import json
from collections.abc import Callable

import msgspec
import pytest
import zstandard

from tallypost_schema import documents
from tallypost_server import limits
from tallypost_server.errors import SegmentDamaged
from tallypost_server.segments import format as segment_format
from tallypost_server.segments.format import Torn, Whole, frames, sealed_lines

LINES = [b'{"v":1,"received":"%d"}\n' % number for number in range(5)]


def frame(lines: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(lines)


def whole(data: bytes) -> list[bytes]:
    return [found.lines for found in frames([data]) if isinstance(found, Whole)]


def torn(data: bytes) -> list[Torn]:
    return [found for found in frames([data]) if isinstance(found, Torn)]


def test_frames_of_a_sound_file_are_all_whole() -> None:
    """Every frame is found where it ends, without damage."""
    data = b"".join(map(frame, LINES))

    assert LINES == whole(data)
    assert [] == torn(data)


def test_frames_of_many_kinds_of_blocks_are_whole() -> None:
    """Raw, run-length and compressed blocks, with and without a size in the head, end where the library says."""
    line = LINES[0][:-2]
    for body in (line + b'"' + b"a" * 400_000 + b'"}\n', line + b'"' + bytes(range(65, 91)) * 9000 + b'"}\n'):
        for size_told in (True, False):
            writer = zstandard.ZstdCompressor(write_checksum=size_told, write_content_size=size_told)
            stream = writer.compressobj(size=len(body)) if size_told else writer.compressobj()
            data = stream.compress(body) + stream.flush()
            end = segment_format._frame_end(data + b"more")

            assert len(data) == end


@pytest.mark.parametrize("keep", range(1, 40))
def test_frames_with_a_torn_end_keep_what_is_before(keep: int) -> None:
    """A file that was cut anywhere within its last frame keeps the others."""
    last = frame(LINES[1])
    data = frame(LINES[0]) + last[: min(keep, len(last) - 1)]

    assert LINES[:1] == whole(data)
    assert [Torn(len(frame(LINES[0])), last[: min(keep, len(last) - 1)])] == torn(data)


@pytest.mark.parametrize("place", range(len(frame(LINES[1]))))
def test_frames_after_a_damaged_byte_are_kept(place: int) -> None:
    """Whatever byte of a frame is wrong, the frames around it are read, and the damage is told once."""
    damaged = bytearray(frame(LINES[1]))
    damaged[place] ^= 0xFF
    data = frame(LINES[0]) + bytes(damaged) + frame(LINES[2])

    assert [LINES[0], LINES[2]] == whole(data)
    assert [Torn(len(frame(LINES[0])), bytes(damaged))] == torn(data)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_frames_are_the_same_in_whatever_pieces_they_come(size: int) -> None:
    """Where a piece ends has no meaning: a frame, its head and its first bytes may lie on both sides."""
    damaged = frame(LINES[0]) + b"torn \x28\xb5\x2f" + frame(LINES[1])[:-5] + frame(LINES[2]) + b"\x28\xb5"

    pieces = [damaged[begin : begin + size] for begin in range(0, len(damaged), size)]

    assert list(frames([damaged])) == list(frames(pieces))
    assert [LINES[0], LINES[2]] == whole(damaged)


def test_frames_of_a_long_damaged_stretch_come_in_parts_that_join() -> None:
    """However large the damage is, little of it is held, and all of it is told."""
    # It begins like a frame that goes on for long, and then does not end like one.
    head = b"\x28\xb5\x2f\xfd\x04\x58"
    block = ((100 << 10) << 3).to_bytes(3, "little") + bytes(100 << 10)
    damage = head + block * 150 + b"\xff" * 3_000_000
    data = frame(LINES[0]) + damage + frame(LINES[1])
    pieces = (data[begin : begin + 65536] for begin in range(0, len(data), 65536))

    found = list(frames(pieces))

    parts = [part for part in found if isinstance(part, Torn)]
    assert LINES[:2] == [part.lines for part in found if isinstance(part, Whole)]
    assert damage == b"".join(part.data for part in parts)
    assert len(parts) > 1
    assert max(len(part.data) for part in parts) == limits.torn_bytes_max


@pytest.mark.parametrize("claim", [b"\x28\xb5\x2f\xfd\xe4" + b"\xff" * 40, b"\x28\xb5\x2f\xfd\x00\x58\xfe\xff\x0f"])
def test_frames_that_claim_to_be_huge_are_none(claim: bytes) -> None:
    """What a damaged head says of itself is not believed, and costs no memory."""
    assert LINES[:1] == whole(claim + frame(LINES[0]))


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_sealed_lines_are_all_lines_of_all_frames(size: int) -> None:
    """One frame as we write it, or several as other tools do."""
    data = frame(b"".join(LINES[:3])) + frame(LINES[3][:7]) + frame(LINES[3][7:] + LINES[4])
    pieces = [data[begin : begin + size] for begin in range(0, len(data), size)]

    assert [line.rstrip(b"\n") for line in LINES] == list(sealed_lines(pieces))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-4] + b"0000", "checksum"),
        (lambda data: data[:-4], "ends within a frame"),
        (lambda data: data + b"more", "damaged"),
        (lambda data: b"", "ends within a frame"),
        (lambda data: data + frame(b"half"), "ends within a line"),
    ],
)
def test_sealed_lines_before_the_damage_are_read(damage: Callable[[bytes], bytes], reason: str) -> None:
    """Damage is told after the last line that can be read, and never taken for an end."""
    data = damage(frame(b"".join(LINES)))
    found: list[bytes] = []

    with pytest.raises(SegmentDamaged, match=reason):
        found.extend(sealed_lines([data]))

    assert (len(LINES) if data else 0) == len(found)


def test_line_of_a_report_has_nulls_for_indexes(report: Callable[..., bytes]) -> None:
    """A report's line has the keys of the format, in their order."""
    document = documents.decode_report(report())

    line = segment_format.line_of_report(document, received="2026-11-24T10:00:00.000Z", sha256="0" * 64)

    told = json.loads(line)
    keys = ["v", "received", "kind", "app", "stream", "first", "last", "lost", "terminal", "sha256", "doc"]
    assert keys == list(told)
    assert ["report", "0f" * 16, None, None, None, None] == [told[key] for key in ("kind", *keys[4:9])]
    assert json.loads(report()) == told["doc"]


def test_line_of_a_report_is_what_the_encoder_would_make(report: Callable[..., bytes]) -> None:
    """It is put together by hand, byte for byte the same."""
    body = report(app="example.org/my_tool.x-y")
    document = documents.decode_report(body)

    line = segment_format.line_of_report(document, received="2026-11-24T10:00:00.000Z", sha256="0" * 64)

    assert msgspec.json.encode(segment_format.decode_line(line)) + b"\n" == line
    assert documents.encode(document) == bytes(segment_format.decode_line(line).doc)


def test_line_of_a_batch_tells_its_indexes(batch: Callable[..., bytes]) -> None:
    """A batch's line tells from which to which index it goes."""
    document = documents.decode_batch(batch(3, first=4, lost=2, terminal=8))

    told = json.loads(segment_format.line_of_batch(document, received="2026-11-24T10:00:00.000Z", sha256="0" * 64))

    assert ["events", "ab" * 16, 4, 8, 2, 8] == [
        told[key] for key in ("kind", "stream", "first", "last", "lost", "terminal")
    ]


def test_stem_tells_when_and_by_whom_it_was_opened() -> None:
    """A segment's name is read back into its parts."""
    opened = datetime.datetime(2026, 11, 24, 10, 0, 1, tzinfo=datetime.timezone.utc)

    stem = segment_format.stem_of(opened, "0a1b2c3d", "ffff0000", 7)

    assert "documents-20261124T100001Z-0a1b2c3d-ffff0000-000007" == stem
    assert segment_format.is_stem(stem)
    assert opened == segment_format.opened_in(stem)
    assert "0a1b2c3d" == segment_format.node_in(stem)


def test_frames_without_a_checksum_are_torn() -> None:
    """Nothing proves what is in them, and whoever seals lets the checksum stand for the lines."""
    unproven = zstandard.ZstdCompressor(write_checksum=False).compress(LINES[1])

    found = list(frames([frame(LINES[0]) + unproven]))

    assert [Whole, Torn] == [type(each) for each in found]
