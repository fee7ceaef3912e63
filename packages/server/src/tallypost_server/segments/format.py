"""The format of segments: lines, names, manifests, and the frames of which an open one consists.

Takes   documents, names, bytes.
Gives   lines, names, manifests, and from an open file's bytes its whole frames and its damage.
Never   touches a disk.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import zstandard
from msgspec import Struct

from tallypost_schema.documents import Batch, Report, encode

SEALED_ENDING = ".jsonl.zst"
OPEN_ENDING = ".open"
MANIFEST_ENDING = ".manifest.json"
# Half-made files lie in the open folder under this ending; after a crash they mean nothing and are removed.
HALF_MADE_ENDING = ".making"

_STEM = re.compile(r"documents-(\d{8}T\d{6}Z)-([0-9a-z]+)-([0-9a-f]+)-(\d+)", re.ASCII)
_MAGIC = b"\x28\xb5\x2f\xfd"
# Every line begins so; what a damaged stretch holds by chance does not.
_LINE_START = b'{"v":1,"received":"'


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


class Received(Struct, frozen=True):
    """Of a line only when it was received: all that sealing looks at."""

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


_encoder = msgspec.json.Encoder()
_line_decoder = msgspec.json.Decoder(Line)
_manifest_decoder = msgspec.json.Decoder(Manifest)


def line_of_report(report: Report, *, received: str, sha256: str, encoded: bytes | None = None) -> bytes:
    """The line that stores a report, line feed included; `encoded` is its encoding, if that is there already."""
    doc = msgspec.Raw(encoded or encode(report))
    line = Line(1, received, "report", report.app, report.id, None, None, None, None, sha256, doc)
    return _encoder.encode(line) + b"\n"


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
    """The lines of one frame that is whole."""

    lines: bytes


class Torn(NamedTuple):
    """A stretch of an open file that is no whole frame."""

    offset: int
    data: bytes


Frame: TypeAlias = Whole | Torn


def frames(data: bytes) -> Iterator[Frame]:
    """What an open file consists of, in order.

    After a torn frame it goes on at the next whole one: an acknowledged frame may follow, since a failed
    write that could not be cut back is followed only by a new file, but a disk may lose a sector anywhere.
    """
    decompressor = zstandard.ZstdDecompressor()
    offset, torn_from = 0, -1
    while offset < len(data):
        lines = None
        end = _frame_end(data, offset)
        if end is not None:
            lines = _lines_of(decompressor, data[offset:end])
        if end is None or lines is None:
            if torn_from < 0:
                torn_from = offset
            following = data.find(_MAGIC, offset + 1)
            offset = len(data) if following < 0 else following
            continue
        if torn_from >= 0:
            yield Torn(torn_from, data[torn_from:offset])
            torn_from = -1
        yield Whole(lines)
        offset = end
    if torn_from >= 0:
        yield Torn(torn_from, data[torn_from:])


def _lines_of(decompressor: zstandard.ZstdDecompressor, frame: bytes) -> bytes | None:
    try:
        lines = decompressor.decompress(frame)  # Checks the frame's checksum.
    except (zstandard.ZstdError, MemoryError):
        return None
    return lines if lines.startswith(_LINE_START) and lines.endswith(b"\n") else None


def _frame_end(data: bytes, offset: int) -> int | None:
    """Where the frame that begins at `offset` ends (RFC 8878, 3.1.1), or None if it is none or goes on too far.

    The library tells the end of a frame only together with a copy of all that follows, which would make
    reading a file of many small frames quadratic.
    """
    if data[offset : offset + 4] != _MAGIC or offset + 5 > len(data):
        return None
    descriptor = data[offset + 4]
    single_segment = descriptor >> 5 & 1
    content_size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    at = offset + 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size_bytes
    while at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            at += 4 if descriptor >> 2 & 1 else 0
            return at if at <= len(data) else None
    return None
