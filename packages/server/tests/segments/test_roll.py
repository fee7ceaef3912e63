from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost_server.errors import CommitFailed, NoSpace
from tallypost_server.segments.format import Whole, frames
from tallypost_server.segments.roll import OpenSegment
from tallypost_server.testing import FakeClock, FaultyDisk

A, B, C = (b'{"v":1,"received":"%s"}\n' % letter for letter in (b"a", b"b", b"c"))
FIRST = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"


@pytest.fixture
def handed_over() -> list[str]:
    return []


@pytest.fixture
def make(data: Path, disk: FaultyDisk, clock: FakeClock, handed_over: list[str]) -> Callable[..., OpenSegment]:
    def build(seal_bytes: int = 1000, seal_seconds: float = 60.0, reserve_bytes: int = 1) -> OpenSegment:
        return OpenSegment(
            data / "segments" / "open",
            disk=disk,
            clock=clock,
            node="0a0a0a0a",
            boot="0b0b0b0b",
            seal_bytes=seal_bytes,
            seal_seconds=seal_seconds,
            reserve_bytes=reserve_bytes,
            hand_over=handed_over.append,
        )

    return build


@pytest.fixture
def lie(data: Path) -> Callable[[], dict[str, list[bytes]]]:
    """What lies in the open folder: by name the lines of each whole frame."""

    def look() -> dict[str, list[bytes]]:
        return {
            path.name: [found.lines for found in frames([path.read_bytes()]) if isinstance(found, Whole)]
            for path in sorted((data / "segments" / "open").iterdir())
        }

    return look


def test_append_syncs_each_group_as_one_frame(
    make: Callable[..., OpenSegment], disk: FaultyDisk, lie: Callable[[], dict[str, list[bytes]]]
) -> None:
    """A group is durable when `append` returns, in one file."""
    segment = make()

    segment.append(A + B)
    segment.append(C)

    assert {FIRST + ".open": [A + B, C]} == lie()
    assert 2 == len(disk.synced)


def test_roll_of_a_full_segment_hands_it_over(
    make: Callable[..., OpenSegment], handed_over: list[str], lie: Callable[[], dict[str, list[bytes]]]
) -> None:
    """Once there are enough bytes of lines the next group gets a new file."""
    segment = make(seal_bytes=len(A) + 1)

    segment.append(A)
    segment.roll_if_due()
    assert [] == handed_over
    segment.append(B)
    segment.roll_if_due()
    segment.append(C)

    assert [FIRST] == handed_over
    assert [[A, B], [C]] == list(lie().values())


def test_roll_of_an_old_segment_hands_it_over(
    make: Callable[..., OpenSegment], handed_over: list[str], clock: FakeClock
) -> None:
    """A segment's age is counted from its first line."""
    segment = make(seal_seconds=60)
    clock.advance(1000)
    segment.append(A)
    clock.advance(59.9)
    segment.roll_if_due()
    assert [] == handed_over

    clock.advance(0.1)
    segment.roll_if_due()

    assert 1 == len(handed_over)


def test_roll_of_nothing_makes_no_file(
    make: Callable[..., OpenSegment],
    handed_over: list[str],
    clock: FakeClock,
    lie: Callable[[], dict[str, list[bytes]]],
) -> None:
    """Without a line there is no segment."""
    segment = make()

    clock.advance(1000)
    segment.roll_if_due()
    segment.roll()

    assert {} == lie()
    assert [] == handed_over


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_append_that_fails_cuts_back_and_goes_on_in_a_new_file(
    make: Callable[..., OpenSegment],
    disk: FaultyDisk,
    handed_over: list[str],
    data: Path,
    lie: Callable[[], dict[str, list[bytes]]],
    operation: str,
) -> None:
    """A group that the disk refused is in no file, and the file that refused is never synced again."""
    segment = make()
    segment.append(A)
    good = (data / "segments" / "open" / (FIRST + ".open")).read_bytes()
    disk.fail(operation)  # type: ignore[arg-type]

    with pytest.raises(CommitFailed) as caught:
        segment.append(B)
    segment.append(C)

    assert caught.value.retry
    assert good == (data / "segments" / "open" / (FIRST + ".open")).read_bytes()
    assert [FIRST] == handed_over
    assert [[A], [C]] == list(lie().values())


def test_append_that_can_not_be_cut_back_leaves_a_torn_frame_behind_the_good_ones(
    make: Callable[..., OpenSegment], disk: FaultyDisk, lie: Callable[[], dict[str, list[bytes]]]
) -> None:
    """When even cutting fails, readers still find all that was acknowledged."""
    segment = make()
    segment.append(A)
    disk.fail("write")
    disk.fail("cut")

    with pytest.raises(CommitFailed):
        segment.append(B)
    segment.append(C)

    assert [[A], [C]] == list(lie().values())


@pytest.mark.parametrize("operation", ["create", "sync_folder", "write", "sync"])
def test_append_on_a_full_disk_says_so_and_goes_on_by_itself(
    make: Callable[..., OpenSegment], disk: FaultyDisk, lie: Callable[[], dict[str, list[bytes]]], operation: str
) -> None:
    """Wherever the disk turns out to be full, the next group is taken once it is not."""
    segment = make()
    disk.fail(operation, errno.ENOSPC)  # type: ignore[arg-type]

    with pytest.raises(NoSpace):
        segment.append(A)
    segment.append(B)

    assert [B] == [lines for groups in lie().values() for lines in groups]


def test_append_below_the_reserve_is_refused_until_there_is_room(
    make: Callable[..., OpenSegment], disk: FaultyDisk, lie: Callable[[], dict[str, list[bytes]]]
) -> None:
    """The reserve stays free, and the same segment goes on afterwards."""
    segment = make(reserve_bytes=1000)
    segment.append(A)
    disk.free = 1000

    with pytest.raises(NoSpace) as caught:
        segment.append(B)
    disk.free = 1000 + len(C)
    segment.append(C)

    assert (1000, 1000) == (caught.value.free, caught.value.reserve)
    assert {FIRST + ".open": [A, C]} == lie()


def test_begin_syncs_the_folder_before_the_first_group(make: Callable[..., OpenSegment], disk: FaultyDisk) -> None:
    """A new file whose name is not durable acknowledges nothing."""
    segment = make()
    disk.fail("sync_folder")

    with pytest.raises(CommitFailed):
        segment.append(A)

    assert [] == disk.synced
