from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallypost import Telemetry
from tallypost.counts import count_file, slots
from tallypost.counts.count_reader import Counted, Damaged, read
from tallypost.disk import OsDisk

KEY = {
    "application": "example.org/mytool",
    "program": "mytool",
    "version": "1.2.3",
    "python": "3.12",
    "os": "linux",
    "arch": "x86_64",
    "day": "2026-11-20",
    "mode": "on 2026-11-01 1 user",
    "declaration": "none",
}
BEGIN = "2026-11-20T12:00:00Z"


def take(folder: Path) -> count_file.CountFile:
    """A count file of this process in a folder."""
    folder.mkdir(exist_ok=True)
    file = slots.take(str(folder), KEY, BEGIN, disk=OsDisk(), random_bytes=lambda count: b"\x07" * count)
    assert file is not None
    return file


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """The bytes of a count file with three names."""
    file = take(tmp_path / "counts")
    for name, n in (("cmd/export", 3), ("cmd/export:pdf", 2), ("open/seconds:<=0.1", 1)):
        cell = file.cell(name)
        assert cell is not None
        cell[0] = n
        cell.release()
    file.close()
    (path,) = (tmp_path / "counts").iterdir()
    return path.read_bytes()


def test_reader_finds_what_the_writer_wrote(content: bytes) -> None:
    """Metadata and values come back as they were given."""
    seen = read("x", content)

    assert isinstance(seen, Counted)
    assert {"cmd/export": 3, "cmd/export:pdf": 2, "open/seconds:<=0.1": 1} == seen.values
    assert ("07" * 16, "2026-11-20", BEGIN, "on 2026-11-01 1 user") == (seen.file, seen.day, seen.begin, seen.mode)
    assert ("mytool", "1.2.3", "3.12") == (seen.program.program, seen.program.version, seen.program.python)


def test_file_cut_anywhere_invents_nothing(content: bytes) -> None:
    """A file cut at any byte is damaged, or holds a part of what it held."""
    whole = read("x", content)
    assert isinstance(whole, Counted)

    end = int.from_bytes(content[count_file.END_AT : count_file.HEADER_BYTES], "little")
    for length in (*range(end + 8), len(content) - 1):
        seen = read("x", content[:length])

        assert isinstance(seen, Damaged) or seen.values.items() <= whole.values.items()


def test_file_with_any_bit_flipped_invents_no_name(content: bytes) -> None:
    """Each single flipped bit loses a record or the file, changes a value within its bounds, or does nothing."""
    whole = read("x", content)
    assert isinstance(whole, Counted)
    end = int.from_bytes(content[count_file.END_AT : count_file.HEADER_BYTES], "little")
    values = {at + byte for name, at in count_file.records_in(content) for byte in range(8)}

    for place in range(end):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            seen = read("x", bytes(flipped))

            if place in values:
                assert isinstance(seen, Counted)
                assert all(0 < value <= 2**53 - 1 for value in seen.values.values())
                assert set(seen.values) <= set(whole.values)
            else:
                assert isinstance(seen, Damaged) or seen.values.items() <= whole.values.items()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600))
def test_file_of_random_records_never_raises(content: bytes, noise: bytes) -> None:
    """Behind a good header anything may stand: the reader comes to an end and raises nothing."""
    end = (count_file.HEADER_BYTES + len(noise)).to_bytes(8, "little")

    seen = read("x", content[: count_file.END_AT] + end + noise)

    assert isinstance(seen, Counted)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_file_of_random_bytes_is_damaged(content: bytes) -> None:
    """Random bytes are no count file."""
    assert Damaged("x") == read("x", content)


def test_torn_record_is_stepped_over(content: bytes) -> None:
    """Behind a record that is not whole the next one is found."""
    torn = bytearray(content)
    torn[count_file.HEADER_BYTES] ^= 0xFF

    seen = read("x", bytes(torn))

    assert isinstance(seen, Counted)
    assert {"cmd/export:pdf": 2, "open/seconds:<=0.1": 1} == seen.values


def test_slot_that_is_held_is_left_alone(tmp_path: Path) -> None:
    """Two processes at once have two files."""
    first, second = take(tmp_path / "counts"), take(tmp_path / "counts")

    assert 2 == len(list((tmp_path / "counts").iterdir()))
    first.close()
    second.close()


def test_slot_with_a_damaged_header_is_not_taken(tmp_path: Path) -> None:
    """A file whose header is not whole is left as it is, and a new one is made."""
    take(tmp_path / "counts").close()
    (path,) = (tmp_path / "counts").iterdir()
    path.write_bytes(b"\0" * 4096)

    take(tmp_path / "counts").close()

    assert 2 == len(list((tmp_path / "counts").iterdir()))
    assert b"\0" * 4096 == path.read_bytes()


def test_file_removed_between_open_and_lock_is_not_taken(tmp_path: Path) -> None:
    """A lock on a file that was folded and removed meanwhile is given back: nobody would ever read it."""
    take(tmp_path / "counts").close()
    (path,) = (tmp_path / "counts").iterdir()

    disk = OsDisk()
    block = disk.open_block(str(path))
    assert block is not None
    block.remove(str(path))

    assert disk.open_block(str(path)) is None


def test_metadata_of_the_longest_labels_fits_the_header() -> None:
    """Bounds of labels and header agree: what a constructor takes can be written down."""
    longest = dict.fromkeys(("version", "python", "os", "arch", "mode"), "ü" * 64)
    rest = {"application": "a" * 100, "program": "p" * 100, "day": "2026-11-20", "declaration": "0" * 20}

    start = count_file.header({"file": "0" * 32, **longest, **rest, "begin": BEGIN})

    assert count_file.HEADER_BYTES == len(start)
    assert longest.items() <= (count_file.metadata_in(start) or {}).items()


def test_telemetry_of_two_kinds_share_no_file(application: Callable[..., Telemetry], directory: object) -> None:
    """Another version is another kind: its counts are kept apart."""
    first, second = application(), application()
    second.version = "1.2.4"

    first.counter("cmd/export").inc()
    first.close()
    second.counter("cmd/export").inc()
    second.close()

    assert {"1.2.3", "1.2.4"} == {
        program["version"] for day in first._daily().show()["days"] for program in day["programs"]
    }
