"""The format of segments: lines, names, manifests, and the frames of which an open one consists.

Takes   documents, names, pieces of a file's bytes.
Gives   lines, names, manifests; of an open file its whole frames and its damage, of a sealed one its lines.
Never   touches a disk; never holds more of a file than one frame, or one line.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import zstandard
from msgspec import Struct

from tallypost_schema.documents import Batch, Report, encode

from .. import limits
from ..errors import SegmentDamaged

SEALED_ENDING = ".jsonl.zst"
OPEN_ENDING = ".open"
MANIFEST_ENDING = ".manifest.json"
# Half-made files lie in the open folder under this ending; after a crash they mean nothing and are removed.
HALF_MADE_ENDING = ".making"

_STEM = re.compile(r"documents-(\d{8}T\d{6}Z)-([0-9a-z]+)-([0-9a-f]+)-(\d+)", re.ASCII)
_MAGIC = b"\x28\xb5\x2f\xfd"
# Every line begins so; what a damaged stretch holds by chance does not.
_LINE_START = b'{"v":1,"received":"'
# A block tells more than this only by accident, and then what looks like a frame is none (RFC 8878, 3.1.1.2.4).
_BLOCK_BYTES_MAX = 128 << 10
# A whole block of the frame comes out for about each of these, so that damage costs no more than the block it is in.
_SEALED_PIECE_BYTES = 256
_CHECKSUM_BYTES = 4


class Line(Struct, frozen=True):
    """One stored document, as bytes, and what the server knows of it."""

    v: Literal[1]
    received: str
    kind: Literal["report", "events"]
    app: str
    stream: str
    first: int | None
    last: int | None
    lost: int | None
    terminal: int | None
    sha256: str
    doc: msgspec.Raw


class _Received(Struct, frozen=True):
    """Of a line only when it was received."""

    received: str


class Manifest(Struct, frozen=True):
    """What stands beside a sealed segment; `bytes` and `sha256` are those of the file as it lies."""

    v: Literal[1]
    segment: str
    rows: int
    bytes: int
    sha256: str
    lines_bytes: int
    first: str
    last: str
    node: str


class _Named(Struct, frozen=True):
    """Of a line only whose it is."""

    stream: str


# How each line begins, up to when it was received, and ends.
_BEGIN_BYTES = len('{"v":1,"received":"2026-11-24T10:00:00.123Z"')
_BEGIN_AND_END = re.compile(rb'\{"v":1,"received":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"\}')

_encoder = msgspec.json.Encoder()
_line_decoder = msgspec.json.Decoder(Line)
_received_decoder = msgspec.json.Decoder(_Received)
_named_decoder = msgspec.json.Decoder(_Named)
_manifest_decoder = msgspec.json.Decoder(Manifest)


def line_of_report(report: Report, *, received: str, sha256: str, encoded: bytes | None = None) -> bytes:
    """The line that stores a report, line feed included; `encoded` is its encoding, if that is there already."""
    # What `_encoder` would make of a `Line`, at a third of the price: nothing in it needs an escape.
    head = (
        f'{{"v":1,"received":"{received}","kind":"report","app":"{report.app}","stream":"{report.id}","first":null,'
        f'"last":null,"lost":null,"terminal":null,"sha256":"{sha256}","doc":'
    )
    return b"".join((head.encode("ascii"), encoded or encode(report), b"}\n"))


def line_of_batch(batch: Batch, *, received: str, sha256: str, encoded: bytes | None = None) -> bytes:
    """The line that stores a batch, line feed included; `encoded` as for a report."""
    line = Line(
        1,
        received,
        "events",
        batch.app,
        batch.session,
        batch.first,
        batch.last,
        batch.lost,
        batch.terminal,
        sha256,
        msgspec.Raw(encoded or encode(batch)),
    )
    return _encoder.encode(line) + b"\n"


def decode_line(line: bytes) -> Line:
    """What a line says; its document is left as bytes."""
    return _line_decoder.decode(line)


def received_in(lines: bytes) -> tuple[int, set[str]]:
    """How many lines there are, and when they were received. Of lines as they are spelled here the rest is not read.

    Raises:
        msgspec.MsgspecError: one of them is none.
    """
    *whole, rest = lines.split(b"\n")
    # Those of one turn of the server are alike.
    found = [_BEGIN_AND_END.fullmatch(each) for each in {line[:_BEGIN_BYTES] + line[-1:] for line in whole}]
    if not rest and None not in found:
        return len(whole), {each[1].decode("ascii") for each in found if each is not None}
    moments = [line.received for line in _received_decoder.decode_lines(lines)]
    if rest or len(moments) != len(whole):
        raise msgspec.DecodeError("not one document a line")
    return len(moments), set(moments)


def stream_in(line: bytes) -> str:
    """The stream that a line is of."""
    return _named_decoder.decode(line).stream


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest's bytes."""
    return _encoder.encode(manifest) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """The manifest that `data` is.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _manifest_decoder.decode(data)


def stem_of(opened: datetime.datetime, node: str, boot: str, sequence: int) -> str:
    """The name of a segment without its ending: when it was opened, by whom, in which run, as which."""
    return f"documents-{opened:%Y%m%dT%H%M%SZ}-{node}-{boot}-{sequence:06d}"


def is_stem(text: str) -> bool:
    """Whether `text` is the name of a segment without its ending."""
    return _STEM.fullmatch(text) is not None


def node_in(stem: str) -> str:
    """The node that a segment's name tells."""
    found = _STEM.fullmatch(stem)
    return found[2] if found else ""


def boot_in(stem: str) -> str:
    """The run of a process that a segment's name tells."""
    found = _STEM.fullmatch(stem)
    return found[3] if found else ""


def opened_in(stem: str) -> datetime.datetime:
    """When a segment was opened, to the second."""
    found = _STEM.fullmatch(stem)
    text = found[1] if found else "19700101T000000Z"
    return datetime.datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)


class Whole(NamedTuple):
    """The lines of one frame that is whole, and where it begins."""

    lines: bytes
    offset: int


class Torn(NamedTuple):
    """A stretch of an open file that is no whole frame; a long one comes in several."""

    offset: int
    data: bytes


Frame: TypeAlias = Whole | Torn


class _Window:
    """The part of a file that is looked at: as little as tells what it is."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.data = bytearray()
        self.offset = 0  # Where in the file `data` begins.

    def more(self) -> bool:
        """Whether there was another piece; it is in `data` now."""
        piece = next(self._pieces, b"")
        self.data += piece
        return bool(piece)

    def take(self, size: int) -> bytes:
        """The first bytes; they are looked at no more."""
        taken = bytes(self.data[:size])
        del self.data[:size]
        self.offset += len(taken)
        return taken


def frames(pieces: Iterable[bytes]) -> Iterator[Frame]:
    """What an open file consists of, in order.

    After a torn frame it goes on at the next whole one: an acknowledged frame may follow, since a failed
    write that could not be cut back is followed only by a new file, but a disk may lose a sector anywhere.
    """
    decompressor = zstandard.ZstdDecompressor()
    window, torn = _Window(pieces), bytearray()
    while window.data or window.more():
        end = _frame_end(window.data)
        while end is not None and end > len(window.data):
            end = _frame_end(window.data) if window.more() else None
        lines = None if end is None else _lines_of(decompressor, bytes(window.data[:end]))
        if end is None or lines is None:
            following = window.data.find(_MAGIC, 1)
            # The first bytes of a frame may be the last ones that are here.
            skipped = following if following > 0 else max(1, len(window.data) - len(_MAGIC) + 1)
            torn += window.take(min(skipped, limits.torn_bytes_max - len(torn)))
            if len(torn) == limits.torn_bytes_max:
                yield Torn(window.offset - len(torn), bytes(torn))
                torn.clear()
            continue
        if torn:
            yield Torn(window.offset - len(torn), bytes(torn))
            torn.clear()
        yield Whole(lines, window.offset)
        window.take(end)
    if torn:
        yield Torn(window.offset - len(torn), bytes(torn))


def _lines_of(decompressor: zstandard.ZstdDecompressor, frame: bytes) -> bytes | None:
    try:
        told = zstandard.get_frame_parameters(frame)
        if told.content_size > limits.frame_lines_bytes_max or not told.has_checksum:
            return None
        lines = decompressor.decompress(frame)  # Checks the frame's checksum.
    except (zstandard.ZstdError, MemoryError):
        return None
    return lines if lines.startswith(_LINE_START) and lines.endswith(b"\n") else None


def _frame_end(data: bytes | bytearray) -> int | None:
    """Where the frame that `data` begins with ends (RFC 8878, 3.1.1); None if it is no frame, or too large for one.

    A number beyond `data` says that so much more is needed to tell. The library tells the end of a frame only
    together with a copy of all that follows, which would make reading a file of many small frames quadratic.
    """
    if data[:4] != _MAGIC[: len(data)]:
        return None
    if len(data) < 5:
        return 5
    descriptor = data[4]
    single_segment = descriptor >> 5 & 1
    content_size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    at = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size_bytes
    while at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        size, kind = block >> 3, block >> 1 & 3
        if size > _BLOCK_BYTES_MAX or kind == 3 or at > limits.frame_bytes_max:
            return None
        at += 3 + (1 if kind == 1 else size)
        if block & 1:
            return at + (_CHECKSUM_BYTES if descriptor >> 2 & 1 else 0)
    return at + 3


def sealed_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Every line of a sealed segment without its line feed, as far as it can be read.

    The frame's checksum stands at its end, so what came before is proven only once this has ended well.

    Raises:
        SegmentDamaged: after the last line that can be read.
    """
    return _lines_in(_small(pieces))


def _lines_in(pieces: Iterable[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    frame, rest, offset = decompressor.decompressobj(), b"", 0
    begun = False
    for piece in pieces:
        data = piece
        while data:
            begun = True
            try:
                text = frame.decompress(data)
            except zstandard.ZstdError as failure:
                raise SegmentDamaged(offset, str(failure)) from failure
            data = frame.unused_data if frame.eof else b""
            if frame.eof:  # Nothing of ours, but what tools write may have several.
                frame, begun = decompressor.decompressobj(), False
            *lines, rest = (rest + text).split(b"\n") if b"\n" in text else (rest + text,)
            yield from lines
            if len(rest) > limits.line_bytes_max:
                raise SegmentDamaged(offset, f"a line is longer than {limits.line_bytes_max} bytes")
        offset += len(piece)
    if begun or not offset:
        raise SegmentDamaged(offset, "it ends within a frame")
    if rest:
        raise SegmentDamaged(offset, "it ends within a line")


def whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Every line of a sealed segment without its line feed, quicker than `sealed_lines`, and nothing of a damaged one.

    Raises:
        SegmentDamaged: somewhere it is; what came before is not proven.
    """
    return _lines_in(pieces)


def _small(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces so small that little comes out of each, and the checksum at the end alone.

    What a piece gives is lost when the library finds damage in it.
    """
    held = b""
    for piece in pieces:
        data = held + piece
        held = data[-_CHECKSUM_BYTES:]
        for begin in range(0, len(data) - len(held), _SEALED_PIECE_BYTES):
            yield data[begin : min(begin + _SEALED_PIECE_BYTES, len(data) - len(held))]
    if held:
        yield held
