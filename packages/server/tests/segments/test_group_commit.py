from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tallypost_server.errors import CommitFailed, Declined, NoSpace, NotTaking
from tallypost_server.metrics import Metrics
from tallypost_server.segments.group_commit import GroupCommit
from tallypost_server.testing import FakeClock

pytestmark = pytest.mark.anyio
Soon = Callable[[Callable[[], bool]], Any]


class GatedSegment:
    """A segment in memory whose appends wait at a gate and fail on demand."""

    def __init__(self) -> None:
        self.groups: list[bytes] = []
        self.begun: list[bytes] = []
        self.failures: list[BaseException] = []
        self.rolled = self.looked = 0
        self.gate = threading.Event()
        self.gate.set()

    def append(self, lines: bytes) -> None:
        self.begun.append(lines)
        self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.groups.append(lines)

    def roll_if_due(self) -> None:
        self.looked += 1

    def roll(self) -> None:
        self.rolled += 1


@pytest.fixture
def segment() -> GatedSegment:
    return GatedSegment()


@pytest.fixture
def commit(segment: GatedSegment, clock: FakeClock, metrics: Metrics) -> GroupCommit:
    return GroupCommit(segment, clock=clock, metrics=metrics, waiting_bytes_max=100)


def durable(commit: GroupCommit, *lines: bytes) -> asyncio.Future[None]:
    """What becomes of the lines of a turn. Who cancels it is told all the same, and raises then."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def told(failure: Declined | None) -> None:
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)

    commit.hand_over(list(lines), told)
    return future


async def ended(commit: GroupCommit) -> bool:
    return await asyncio.get_running_loop().run_in_executor(None, commit.stop, 5.0)


async def test_lines_during_a_sync_wait_for_the_next_group(
    commit: GroupCommit, segment: GatedSegment, soon: Soon
) -> None:
    """Lines that arrive while the disk is busy share one sync, and none is answered before it."""
    segment.gate.clear()
    commit.start()

    first = durable(commit, b"a\n")
    await soon(lambda: segment.begun == [b"a\n"])
    second, third = durable(commit, b"b\n"), durable(commit, b"c\n")
    await asyncio.sleep(0.01)

    assert [] == segment.groups
    assert not first.done()
    segment.gate.set()
    await asyncio.gather(first, second, third)
    assert [b"a\n", b"b\nc\n"] == segment.groups
    assert 0 == commit.waiting_bytes
    assert await ended(commit)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (CommitFailed(OSError()), CommitFailed),
        (NoSpace(free=0, reserve=1), NoSpace),
        (ValueError("unforeseen"), CommitFailed),
        (MemoryError(), CommitFailed),
    ],
)
async def test_lines_on_a_failing_disk_are_all_told_of_it_and_the_next_are_committed(
    commit: GroupCommit, segment: GatedSegment, soon: Soon, failure: Exception, told: type[Exception]
) -> None:
    """Nobody of a failed group gets a yes, and the next group is committed."""
    segment.failures = [failure]
    segment.gate.clear()
    commit.start()
    first = durable(commit, b"a\n")
    await soon(lambda: len(segment.begun) == 1)
    segment.gate.set()

    with pytest.raises(told):
        await first

    assert isinstance(commit.failure, told)
    await durable(commit, b"b\n")
    assert [b"b\n"] == segment.groups
    assert commit.failure is None
    assert await ended(commit)


async def test_lines_whose_sender_hangs_up_in_mid_commit_disturb_nobody(
    commit: GroupCommit, segment: GatedSegment, soon: Soon
) -> None:
    """A cancelled sender's line stays, the others are answered, and the committer goes on."""
    segment.gate.clear()
    commit.start()
    first = durable(commit, b"a\n")
    await soon(lambda: len(segment.begun) == 1)
    gone, other = durable(commit, b"b\n"), durable(commit, b"c\n")
    first.cancel()
    gone.cancel()

    segment.gate.set()
    await other

    await durable(commit, b"d\n")
    assert [b"a\n", b"b\nc\n", b"d\n"] == segment.groups
    assert 0 == commit.waiting_bytes
    assert await ended(commit)


async def test_stop_commits_what_waits_and_hands_the_segment_over(
    commit: GroupCommit, segment: GatedSegment, soon: Soon
) -> None:
    """Nothing that waits at the end is forgotten, and nothing more is taken."""
    segment.gate.clear()
    commit.start()
    first = durable(commit, b"a\n")
    await soon(lambda: len(segment.begun) == 1)
    second = durable(commit, b"b\n")
    stopping = asyncio.create_task(ended(commit))
    await asyncio.sleep(0.01)
    segment.gate.set()

    assert await stopping
    await asyncio.gather(first, second)
    assert [b"a\n", b"b\n"] == segment.groups
    assert 1 == segment.rolled
    with pytest.raises(NotTaking):
        await durable(commit, b"c\n")


async def test_stop_on_a_hanging_disk_gives_up_in_time(commit: GroupCommit, segment: GatedSegment, soon: Soon) -> None:
    """A disk that does not answer does not keep the process."""
    segment.gate.clear()
    commit.start()
    durable(commit, b"a\n")
    await soon(lambda: 1 == len(segment.begun))

    assert not await asyncio.get_running_loop().run_in_executor(None, commit.stop, 0.01)

    segment.gate.set()
    assert await ended(commit)


async def test_tick_lets_the_committer_look_at_the_segment(
    commit: GroupCommit, segment: GatedSegment, soon: Soon
) -> None:
    """An old segment is handed over although no line comes."""
    commit.start()

    commit.tick()

    await soon(lambda: segment.looked == 1)
    assert [] == segment.groups
    assert await ended(commit)


def test_answer_after_the_loop_has_ended_does_not_stop_the_committer(
    commit: GroupCommit, segment: GatedSegment
) -> None:
    """A loop that is gone has nobody waiting; the line is committed all the same."""
    segment.gate.clear()

    async def leave() -> None:
        commit.start()
        durable(commit, b"a\n")
        await asyncio.sleep(0)

    asyncio.run(leave())
    segment.gate.set()

    assert commit.stop(5.0)
    assert [b"a\n"] == segment.groups


async def test_lines_of_one_turn_are_one_group(commit: GroupCommit, segment: GatedSegment) -> None:
    """They are told of together, in one call."""
    commit.start()

    await durable(commit, *(b"%d\n" % number for number in range(5)))

    assert [b"0\n1\n2\n3\n4\n"] == segment.groups
    assert await ended(commit)


async def test_lines_after_the_stop_are_told_so(commit: GroupCommit, segment: GatedSegment) -> None:
    """A line that comes too late for the committer is not left without an answer."""
    commit.start()
    assert await ended(commit)

    with pytest.raises(NotTaking):
        await durable(commit, b"a\n")

    assert [] == segment.groups
    assert 0 == commit.waiting_bytes
