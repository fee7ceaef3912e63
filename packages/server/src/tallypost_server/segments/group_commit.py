"""Group commit: all lines that wait become durable at the price of one sync.

Takes   the whole lines of a turn of the event loop, from ``ingest.intake``, with whom to tell.
Gives   a call for the lines of each turn, in the event loop: *on disk*, or why nobody may say so.
Never   names, rolls or seals a segment itself (``roll.py``); never parses a line.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from ..clock import Clock
from ..errors import CommitFailed, Declined, NotTaking, place_of
from ..metrics import Metrics

_log = logging.getLogger(__name__)

# Called with None once the lines are on disk, else with NoSpace, CommitFailed or NotTaking: then they may be on disk,
# but nobody says so.
Told: TypeAlias = Callable[[Declined | None], None]


class Turn(NamedTuple):
    """The lines that came in one turn of the event loop, how many bytes they are, and whom to tell."""

    lines: list[bytes]
    size: int
    told: Told


Group: TypeAlias = list[Turn]


class Segment(Protocol):
    """Where groups go: ``roll.OpenSegment``. Called in the committer's thread only."""

    def append(self, lines: bytes) -> None:
        """Return once `lines` are on disk; raises Declined if they are not."""
        ...

    def roll_if_due(self) -> None:
        """Hand the file over if it is full or old."""
        ...

    def roll(self) -> None:
        """Hand the file over, if there is one."""
        ...


class GroupCommit:
    """Gathers lines while a sync is under way, then commits them together.

    No timer: an idle disk is used at once, a busy one is given larger groups. The committer is a thread of
    its own, since a hop through an executor costs more than a small group.
    """

    def __init__(self, segment: Segment, *, clock: Clock, metrics: Metrics, waiting_bytes_max: int) -> None:
        self._segment, self._clock, self._metrics = segment, clock, metrics
        self.waiting_bytes_max = waiting_bytes_max
        self._waiting_bytes = 0  # What waits and what is being committed. Touched in the event loop only.
        # Turns; _LOOK only lets the committer look at the segment; None is the last. A queue of the interpreter's own,
        # since a condition's Python code on both sides costs more than a small group.
        self._waiting: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # Protects `_stopping`: nothing is put behind the last one.
        self._stopping = False
        self.failure: Declined | None = None  # Of the last group; None: it is on disk, or there was none.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of lines are not answered yet."""
        return self._waiting_bytes

    @property
    def alive(self) -> bool:
        """Whether somebody commits."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to commit, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def hand_over(self, lines: list[bytes], told: Told) -> None:
        """Have `lines` committed, and `told` called once when they are on disk or will not be. In the event loop.

        Whoever hands over keeps within `waiting_bytes_max`. Once for all that came in a turn: waking the committer for
        each line would make it and the loop fight for the interpreter, for groups of one.
        """
        turn = Turn(lines, sum(map(len, lines)), told)
        self._waiting_bytes += turn.size
        with self._lock:
            if self._thread.is_alive() and not self._stopping:
                self._waiting.put(turn)
                return
        self._answer([turn], NotTaking("stopping", "the server takes nothing more; send again later"))

    def tick(self) -> None:
        """Let the committer look whether the segment is old enough to be handed over."""
        self._waiting.put(_LOOK)

    def stop(self, seconds: float) -> bool:
        """Commit what waits, hand the segment over, end. False if that took longer than `seconds`.

        Blocks: never call it in the event loop, which answers what is committed meanwhile.
        """
        with self._lock:
            self._stopping = True
            self._waiting.put(None)
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        ended = False
        while not ended:
            group, ended = self._take()
            try:
                if group:
                    self.failure = self._commit(group)
                    self._tell(group, self.failure)
                # After the answers: handing over costs those who wait nothing.
                self._segment.roll() if ended else self._segment.roll_if_due()
            except Exception as failure:  # noqa: BLE001  The committer outlives whatever one roll did.
                self._metrics.unexpected.add()
                _log.error("the committer did not foresee %s", place_of(failure))

    def _take(self) -> tuple[Group, bool]:
        """All that waits, once something does, as one group; and whether it was the last."""
        group: Group = []
        while True:
            handed = self._waiting.get()
            if handed is None:
                return group, True
            if handed.lines:
                group.append(handed)
            if self._waiting.empty():
                return group, False

    def _commit(self, group: Group) -> Declined | None:
        begun = self._clock.monotonic()
        lines = b"".join([line for turn in group for line in turn.lines])
        try:
            self._segment.append(lines)
        except Declined as failure:
            self._metrics.commit_failures.add(failure.code)
            _log.error("a group of %d lines is not on disk: %s", _count(group), failure.__cause__ or failure)
            return failure
        except Exception as failure:  # noqa: BLE001  Nobody foresaw it, and those who wait must hear something.
            self._metrics.unexpected.add()
            _log.error("a group of %d lines is not on disk: %s", _count(group), place_of(failure))
            return CommitFailed(failure)
        self._metrics.groups.add()
        self._metrics.committed_bytes.add(by=len(lines))
        self._metrics.commit_seconds.observe(self._clock.monotonic() - begun)
        return None

    def _tell(self, group: Group, failure: Declined | None) -> None:
        """Hand the whole group's outcome to the event loop at the price of one wake-up."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._answer, group, failure)
        except RuntimeError:  # The loop is closed: nobody waits any more. The lines stay.
            _log.warning("nobody waits any more for a group of %d lines", _count(group))

    def _answer(self, group: Group, failure: Declined | None) -> None:
        for turn in group:
            self._waiting_bytes -= turn.size
            try:
                turn.told(failure)
            except Exception as unforeseen:  # noqa: BLE001  Whoever it was, the others of the group hear their word.
                self._metrics.unexpected.add()
                _log.error("telling a turn of a group did not foresee %s", place_of(unforeseen))


# What `tick` puts among the turns: nothing is to be committed.
_LOOK = Turn([], 0, lambda _: None)


def _count(group: Group) -> int:
    """How many lines there are in it."""
    return sum(len(turn.lines) for turn in group)
