"""Bounded decompression: from the bytes of a request to the bytes of a document.

Takes   a whole body, at most ``wire_bytes_max`` long, and its coding.
Gives   the document's bytes, at most ``decoded_bytes_max`` long.
Never   holds more than the limits and one piece beyond, whatever the bytes say about themselves.
"""

from __future__ import annotations

import zlib
from typing import Literal, TypeAlias

import zstandard

from tallypost_schema import limits as shared

from .. import limits
from ..errors import Refused

Coding: TypeAlias = Literal["identity", "zstd", "gzip"]

# A block of four bytes may stand for 128 KiB, so this much input makes 8 MiB at most.
_ZSTD_PIECE_BYTES = 256
# Of a frame's descriptor, its fifth byte (RFC 8878, 3.1.1.1).
_SINGLE_SEGMENT = 0x20


class Decoder:
    """Decodes bodies, one at a time: contexts are made once, since making one costs more than a small body."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=shared.zstd_window_bytes_max)

    def decode(self, body: bytes, coding: Coding) -> bytes:
        """The document's bytes.

        Raises:
            Refused: ``too_large``, or ``malformed`` if the encoding is truncated, damaged or followed by more.
        """
        if coding == "identity":
            return body
        if coding == "gzip":
            return _gunzip(body)
        # Nearly every body is one frame that tells its size, which is its window as well: one call, straight into a
        # buffer of that size.
        if len(body) > 4 and body[4] & _SINGLE_SEGMENT:
            try:
                if 0 < zstandard.frame_content_size(body) <= shared.decoded_bytes_max:
                    return self._zstd.decompress(body, allow_extra_data=False)
            except zstandard.ZstdError:
                pass  # Several frames, or damage. What it is comes out below.
        return self._unzstd(body)

    def _unzstd(self, body: bytes) -> bytes:
        pieces: list[bytes] = []
        total = offset = count = 0
        while offset < len(body):
            count += 1
            if count > shared.zstd_frames_max:
                raise Refused("too_large", f"more zstd frames than the {shared.zstd_frames_max} allowed; send one")
            skipped = _skippable_bytes(body, offset)
            if skipped is not None:
                offset += skipped
                continue
            size = _content_bytes(body, offset)
            if size is not None and total + size > shared.decoded_bytes_max:
                raise _too_large_decoded()
            frame = self._zstd.decompressobj()
            while not frame.eof:
                piece = body[offset : offset + _ZSTD_PIECE_BYTES]
                if not piece:
                    raise Refused("malformed", "the zstd body ends within a frame; send it whole")
                try:
                    pieces.append(frame.decompress(piece))
                except zstandard.ZstdError as error:
                    raise Refused("malformed", f"the zstd body is damaged: {error}") from error
                total += len(pieces[-1])
                if total > shared.decoded_bytes_max:
                    raise _too_large_decoded()
                offset += len(piece) - len(frame.unused_data)
        return b"".join(pieces)


def _content_bytes(body: bytes, offset: int) -> int | None:
    """How large a frame says its content is, or None if it does not say; refuses a window over the limit."""
    try:
        parameters = zstandard.get_frame_parameters(body[offset : offset + 18])
    except zstandard.ZstdError as error:
        raise Refused("malformed", "the body is not zstd, or other bytes follow its last frame") from error
    if parameters.window_size > shared.zstd_window_bytes_max:
        raise Refused(
            "too_large",
            f"the zstd window is {parameters.window_size} bytes, allowed are {shared.zstd_window_bytes_max}; "
            "compress with a smaller window (level 19 or below)",
        )
    return None if parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN else parameters.content_size


def _skippable_bytes(body: bytes, offset: int) -> int | None:
    """How long the skippable frame at `offset` is, or None if there is none."""
    head = body[offset : offset + 8]
    if len(head) < 8 or head[0] & 0xF0 != 0x50 or head[1:4] != b"\x2a\x4d\x18":
        return None
    size = 8 + int.from_bytes(head[4:], "little")
    if offset + size > len(body):
        raise Refused("malformed", "the zstd body ends within a frame; send it whole")
    return size


def _gunzip(body: bytes) -> bytes:
    pieces: list[bytes] = []
    total = count = 0
    rest = body
    while rest:
        count += 1
        if count > limits.gzip_members_max:
            raise Refused("too_large", f"more gzip members than the {limits.gzip_members_max} allowed; send one")
        member = zlib.decompressobj(wbits=31)
        try:
            piece = member.decompress(rest, shared.decoded_bytes_max - total + 1)
        except zlib.error as error:
            raise Refused("malformed", f"the gzip body is damaged, or other bytes follow it: {error}") from error
        total += len(piece)
        if total > shared.decoded_bytes_max:
            raise _too_large_decoded()
        if not member.eof:
            raise Refused("malformed", "the gzip body ends within a member; send it whole")
        pieces.append(piece)
        rest = member.unused_data
    return b"".join(pieces)


def _too_large_decoded() -> Refused:
    return Refused(
        "too_large", f"the document is over the {shared.decoded_bytes_max} bytes allowed after decompression"
    )
