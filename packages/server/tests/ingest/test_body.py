from __future__ import annotations

import gzip
import struct
import tracemalloc

import pytest
import zstandard

from tallypost_schema import limits as shared
from tallypost_server.errors import Refused
from tallypost_server.ingest.body import Coding, Decoder

TEXT = b'{"a": "' + b"text " * 400 + b'"}'
SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"12345"


def zstd(text: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(text)  # type: ignore[arg-type]


def streamed(text: bytes, **options: object) -> bytes:
    """A frame that does not tell its size."""
    writer = zstandard.ZstdCompressor(**options).compressobj()  # type: ignore[arg-type]
    return writer.compress(text) + writer.flush()


def windowed(log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=log)
    return streamed(TEXT, compression_params=parameters)


def single_segment(size: int) -> bytes:
    """A frame whose window is its content, so many zeros (RFC 8878, 3.1.1)."""
    blocks = [131_072] * (size // 131_072)
    encoded = [
        struct.pack("<I", block << 3 | 1 << 1 | (at == len(blocks)))[:3] + b"\0" for at, block in enumerate(blocks, 1)
    ]
    return struct.pack("<IBI", 0xFD2FB528, 0xA0, size) + b"".join(encoded)


def short_in_a_window(log: int) -> bytes:
    """A frame of 300 bytes that tells its size, and a window beyond it."""
    return (
        struct.pack("<IBBH", 0xFD2FB528, 0x40, (log - 10) << 3, 300 - 256)
        + struct.pack("<I", 300 << 3 | 1)[:3]
        + b" " * 300
    )


def halves(text: bytes, count: int) -> list[bytes]:
    size = -(-len(text) // count)
    return [text[place : place + size] for place in range(0, len(text), size)]


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (TEXT, "identity"),
        (zstd(TEXT), "zstd"),
        (zstd(TEXT, level=19, write_checksum=True), "zstd"),
        (streamed(TEXT), "zstd"),
        (b"".join(map(zstd, halves(TEXT, 2))), "zstd"),
        (b"".join(map(streamed, halves(TEXT, 64))), "zstd"),
        (SKIPPABLE + zstd(TEXT) + SKIPPABLE, "zstd"),
        (zstd(b"") + zstd(TEXT) + zstd(b""), "zstd"),
        (windowed(23), "zstd"),
        (gzip.compress(TEXT, mtime=0), "gzip"),
        (b"".join(map(gzip.compress, halves(TEXT, 64))), "gzip"),
    ],
)
def test_decode_of_a_whole_body_is_the_document(body: bytes, coding: Coding) -> None:
    """Every whole encoding within the limits is one document."""
    assert TEXT == Decoder().decode(body, coding)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        *[(zstd(TEXT)[:keep], "zstd") for keep in (1, 3, 5, 9, 20, -1)],
        *[(streamed(TEXT)[:keep], "zstd") for keep in (1, 3, 5, 6, 20, -1)],
        (zstd(TEXT) + b"x", "zstd"),
        (zstd(TEXT) + zstd(TEXT)[:-1], "zstd"),
        (zstd(TEXT) + SKIPPABLE[:-1], "zstd"),
        (SKIPPABLE[:6], "zstd"),
        (TEXT, "zstd"),
        (gzip.compress(TEXT, mtime=0), "zstd"),
        (zstd(TEXT, write_checksum=True)[:-1] + b"\0", "zstd"),
        *[(gzip.compress(TEXT, mtime=0)[:keep], "gzip") for keep in (1, 9, 11, 30, -8, -1)],
        (gzip.compress(TEXT, mtime=0) + b"x", "gzip"),
        (gzip.compress(TEXT, mtime=0)[:-8] + b"12345678", "gzip"),
        (TEXT, "gzip"),
        (zstd(TEXT), "gzip"),
    ],
)
def test_decode_of_a_damaged_body_is_malformed(body: bytes, coding: Coding) -> None:
    """Truncated, trailing, damaged or other bytes are no document."""
    with pytest.raises(Refused) as caught:
        Decoder().decode(body, coding)

    assert ("malformed", 400, False) == (caught.value.code, caught.value.status, caught.value.retry)


LARGE = b"a" * (shared.decoded_bytes_max + 1)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (zstd(LARGE), "zstd"),
        (streamed(LARGE), "zstd"),
        (zstd(LARGE[: len(LARGE) // 2]) + zstd(LARGE[: len(LARGE) // 2 + 1]), "zstd"),
        (b"".join(map(zstd, halves(TEXT, 65))), "zstd"),
        (SKIPPABLE * 64 + zstd(TEXT), "zstd"),
        (windowed(24), "zstd"),
        (short_in_a_window(24), "zstd"),
        (gzip.compress(LARGE, mtime=0), "gzip"),
        (b"".join(map(gzip.compress, halves(TEXT, 65))), "gzip"),
        (gzip.compress(LARGE[: len(LARGE) // 2], mtime=0) * 3, "gzip"),
    ],
)
def test_decode_over_a_limit_is_too_large(body: bytes, coding: Coding) -> None:
    """Over a size, a number of frames or a window."""
    with pytest.raises(Refused) as caught:
        Decoder().decode(body, coding)

    assert ("too_large", 413) == (caught.value.code, caught.value.status)


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_decode_at_the_limit_is_the_document(coding: Coding) -> None:
    """The limit itself is allowed."""
    text = LARGE[1:]
    body = streamed(text) if coding == "zstd" else gzip.compress(text)

    assert text == Decoder().decode(body, coding)


def test_frames_that_are_made_here_are_frames() -> None:
    """Within the limits they are decoded."""
    assert b"\0" * (1 << 20) == Decoder().decode(single_segment(1 << 20), "zstd")
    assert b" " * 300 == Decoder().decode(short_in_a_window(23), "zstd")


@pytest.mark.parametrize("told", [True, False])
def test_decode_of_a_bomb_holds_little_memory(told: bool) -> None:
    """A body that stands for a gigabyte costs some limits' worth of memory, whether it says its size or not."""
    writer = zstandard.ZstdCompressor(write_content_size=told).compressobj(**({"size": 1 << 30} if told else {}))
    bomb = b"".join(writer.compress(b"\0" * (1 << 20)) for _ in range(1024)) + writer.flush()
    assert_little_memory(bomb)


def test_decode_of_a_bomb_that_is_its_own_window_holds_little_memory() -> None:
    """A frame that claims to be needed in one piece is given no room for it."""
    assert_little_memory(single_segment(64 << 20))


def assert_little_memory(bomb: bytes) -> None:
    """It is refused, for some limits' worth of memory."""
    tracemalloc.start()

    with pytest.raises(Refused, match="too_large"):
        Decoder().decode(bomb, "zstd")

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(bomb) <= shared.wire_bytes_max
    assert peak < 5 * shared.decoded_bytes_max
