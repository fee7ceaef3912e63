"""The count file as its owner writes it: names with a cell of eight bytes each, mapped and shared with the kernel.

Takes   a locked, mapped block and, where it is new, the metadata of the process.
Gives   cells: memoryviews of one unsigned number, in which an increment survives the process.
Never   decides which file to take (``slots.py``); never reads another process's file (``count_reader.py``).

The format stands in ``docs/formats/count-file.md``.
"""

from __future__ import annotations

from zlib import crc32

from .. import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..seams import Block, Written

MAGIC = b"TALLYPC\x01"  # The last byte is the version of the format.
HEADER_BYTES = 2048
END_AT = HEADER_BYTES - 8
METADATA_AT = 16
METADATA_BYTES_MAX = END_AT - METADATA_AT
RECORD_BYTES = 16  # CRC and length of the name, value; then the name, padded to eight bytes.


def header(metadata: dict[str, str]) -> bytes:
    """The first bytes of a new file: magic, checksum and length of the metadata, the metadata, the end of records."""
    text = "".join(f"{key}={value}\n" for key, value in metadata.items()).encode()
    assert len(text) <= METADATA_BYTES_MAX, "labels are bounded where they are declared"
    start = MAGIC + crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text
    return start.ljust(END_AT, b"\0") + HEADER_BYTES.to_bytes(8, "little")


def metadata_in(content: bytes | memoryview) -> dict[str, str] | None:
    """The metadata of a file by its first `HEADER_BYTES`, or None if they are no undamaged header."""
    start = bytes(content[:HEADER_BYTES])
    length = int.from_bytes(start[12:16], "little")
    text = start[METADATA_AT : METADATA_AT + length]
    if (
        len(start) < HEADER_BYTES
        or start[:8] != MAGIC
        or length > METADATA_BYTES_MAX
        or crc32(text) != int.from_bytes(start[8:12], "little")
    ):
        return None
    try:
        lines = text.decode().split("\n")[:-1]
    except UnicodeDecodeError:
        return None
    return dict(line.partition("=")[::2] for line in lines)


def records_in(content: bytes | memoryview) -> list[tuple[str, int]]:
    """Each whole record's name and the place of its value. A torn record is stepped over, eight bytes at a time."""
    end = min(int.from_bytes(content[END_AT:HEADER_BYTES], "little"), len(content))
    records = []
    at = HEADER_BYTES
    while at + RECORD_BYTES < end:
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        name = bytes(content[at + RECORD_BYTES : at + RECORD_BYTES + length])
        if 0 < length == len(name) and crc32(name) == int.from_bytes(content[at : at + 4], "little"):
            try:
                records.append((name.decode(), at + 8))
            except UnicodeDecodeError:
                pass  # The checksum of something that is no name: stepped over like any damage.
            else:
                at += RECORD_BYTES + _padded(length)
                continue
        at += 8
    return records


class CountFile:
    """One process's count file of one UTC day. Not for several threads at once: `Recorder` holds its lock."""

    hands_out = True

    def __init__(self, block: Block) -> None:
        self._block = block
        self._numbers = block.view.cast("Q")
        self._places = {name: at // 8 for name, at in records_in(block.view)}
        self._end = max(HEADER_BYTES, min(self._numbers[END_AT // 8], len(block.view)))

    def cell(self, name: str) -> memoryview | None:
        """The cell of `name`, made if need be; None if the file is full.

        Raises:
            OSError: the file could not grow.
        """
        place = self._places.get(name)
        if place is None:
            if len(self._places) >= limits.names_per_file_max:
                return None
            place = self._publish(name.encode())
            if place is None:
                return None
            self._places[name] = place
        return self._numbers[place : place + 1]

    def _publish(self, name: bytes) -> int | None:
        at, size = self._end, len(self._block.view)
        end = at + RECORD_BYTES + _padded(len(name))
        if end > size:
            size = max(size * 2, size + _padded(len(name)) * 2)
            if size > limits.count_file_bytes_max:
                return None
            numbers = self._numbers
            self._block.grow(size)
            self._numbers = self._block.view.cast("Q")
            numbers.release()
        view = self._block.view
        # The name first, then checksum and length in one store: a reader sees a whole record or none.
        view[at + RECORD_BYTES : at + RECORD_BYTES + len(name)] = name
        self._numbers[at // 8] = crc32(name) | len(name) << 32
        self._numbers[END_AT // 8] = self._end = end
        return (at + 8) // 8

    def added(self, name: str) -> None:
        """Nothing is left to do: what is in the mapping is with the kernel."""

    def is_there(self) -> bool:
        """Nobody removes it while this process has its lock."""
        return True

    def close(self) -> None:
        """Give the file up: its lock, unless a parent process shares it, and this process's mapping."""
        self._numbers.release()
        self._block.close()


class WrittenFile:
    """The same file, written to piece by piece, where mapping or locks cannot be trusted. It belongs to one process.

    Its cells are not handed out: each increment is written by the recorder, at the price of a call of the system.
    """

    hands_out = False

    def __init__(self, written: Written, start: bytes) -> None:
        self._written = written
        self._content = bytearray(start)
        self._places: dict[str, int] = {}

    def cell(self, name: str) -> memoryview | None:
        """The cell of `name`, made if need be; None if the file is full. Call `added` when it was added to.

        Raises:
            OSError: the file could not be written to.
        """
        place = self._places.get(name)
        if place is None:
            encoded = name.encode()
            at = len(self._content)
            end = at + RECORD_BYTES + _padded(len(encoded))
            if len(self._places) >= limits.names_per_file_max or end > limits.count_file_bytes_max:
                return None
            record = crc32(encoded).to_bytes(4, "little") + len(encoded).to_bytes(4, "little") + bytes(8) + encoded
            record = record.ljust(end - at, b"\0")
            self._written.write_at(at, record)
            self._written.write_at(END_AT, end.to_bytes(8, "little"))
            self._content += record
            place = self._places[name] = at + 8
        return memoryview(self._content)[place : place + 8].cast("Q")

    def added(self, name: str) -> None:
        """Write the cell of `name`.

        Raises:
            OSError: it could not be written; the next time that it is, it has this too.
        """
        place = self._places[name]
        self._written.write_at(place, bytes(self._content[place : place + 8]))

    def is_there(self) -> bool:
        """Whether it is: after a clock was set forward and back its owner may have seemed to have ended."""
        return self._written.is_there()

    def close(self) -> None:
        """Give the file up."""
        self._written.close()


def _padded(length: int) -> int:
    return -(-length // 8) * 8
