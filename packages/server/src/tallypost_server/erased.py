"""Marks of erased streams: what comes of one is taken and dropped, for longer than anybody may send it.

Takes   the folder ``erased/``, looked at again every few seconds, and anew whenever a segment is sealed.
Gives   whether a stream is marked; whether bytes, packed or not, name a stream.
Never   the name of a stream in a mark: its hash is the mark's name.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from tallypost_schema.limits import decoded_bytes_max

from .clock import moment_of, stamp
from .disk import Disk

_HALF_MADE_ENDING = ".making"
_NAMES = re.compile(rb'"([0-9a-f]{32})"')
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"
# Of damaged bytes comes out what lies before the damage, to about so many bytes.
_PIECE_BYTES = 256


class Erased:
    """The marks. `scan` may run in another thread than `has`: what is found is replaced whole."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._folder, self._disk = folder, disk
        self._names: frozenset[str] = frozenset()

    @property
    def any(self) -> bool:
        """Whether a stream is marked."""
        return bool(self._names)

    def scan(self) -> None:
        """Take the marks that are there."""
        self._names = frozenset(self._disk.names(self._folder))

    def has(self, stream: str) -> bool:
        """Whether a stream was marked at the last scan."""
        return bool(self._names) and _name_of(stream) in self._names

    def is_named_in(self, data: bytes) -> bool:
        """Whether bytes, or what is packed in them, name a stream that was marked at the last scan."""
        if not self._names:
            return False
        texts = (_up_to(pieces, decoded_bytes_max) for pieces in _texts(data))
        return any(self.has(name.decode("ascii")) for text in texts for name in _NAMES.findall(text))

    def mark(self, stream: str, at: datetime.datetime) -> None:
        """Return once a stream is marked, durably; one that was marked before is marked anew."""
        self._disk.make_folder(self._folder)
        made = self._folder / (_name_of(stream) + _HALF_MADE_ENDING)
        self._disk.unlink(made)
        file = self._disk.create(made)
        try:
            file.write(stamp(at).encode("ascii") + b"\n")
            file.sync()
        finally:
            file.close()
        self._disk.rename(made, self._folder / _name_of(stream))
        self._disk.sync_folder(self._folder)
        self.scan()

    def prune(self, before: datetime.datetime) -> None:
        """Take the marks away that were set before a moment: what they are for comes no more."""
        for name in self._disk.names(self._folder):
            with contextlib.suppress(FileNotFoundError, ValueError):
                if moment_of(self._disk.read(self._folder / name).decode("ascii", "replace").strip()) < before:
                    self._disk.unlink(self._folder / name)


def names_stream(data: bytes, stream: str) -> bool:
    """Whether bytes, or what is packed in them, hold the name of a stream."""
    return any(holds(pieces, stream) for pieces in _texts(data))


def holds(pieces: Iterable[bytes], stream: str) -> bool:
    """Whether the name of a stream is in a text, wherever it is cut into pieces."""
    name, tail = stream.encode("ascii"), b""
    for piece in pieces:
        text = tail + piece
        if name in text:
            return True
        tail = text[-len(name) :]
    return False


def _name_of(stream: str) -> str:
    return hashlib.sha256(stream.encode("utf-8", "replace")).hexdigest()


def _texts(data: bytes) -> Iterator[Iterator[bytes]]:
    """The bytes themselves, and what can be unpacked of them from wherever something packed may begin."""
    yield iter([data])
    for magic, unpack in ((_ZSTD, _unzstd), (_GZIP, _ungzip)):
        at = data.find(magic)
        while at >= 0:
            yield unpack(data[at:])
            at = data.find(magic, at + 1)


def _unzstd(data: bytes) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor().decompressobj()
    with contextlib.suppress(zstandard.ZstdError, MemoryError):
        for begin in range(0, len(data), _PIECE_BYTES):
            if frame.eof:
                return
            yield frame.decompress(data[begin : begin + _PIECE_BYTES])


def _ungzip(data: bytes) -> Iterator[bytes]:
    member = zlib.decompressobj(31)
    with contextlib.suppress(zlib.error, MemoryError):
        for begin in range(0, len(data), _PIECE_BYTES):
            if member.eof:
                return
            yield member.decompress(data[begin : begin + _PIECE_BYTES])


def _up_to(pieces: Iterator[bytes], size: int) -> bytes:
    text = bytearray()
    for piece in pieces:
        text += piece
        if len(text) >= size:
            break
    return bytes(text)
