"""Workers: one process for each core, all on one socket, each with a segment of its own.

Takes   how many, and what one of them does.
Gives   an exit status, once all have ended.
Never   takes a document itself; never outlived by a worker: the kernel ends them with it.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from . import limits
from .notify import Manager

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Worker:
    """One of the workers, in one of its lives; `boot` stands in the names of its segments."""

    number: int
    boot: str
    owns: Callable[[str], bool]
    """Whether an open segment, by the boot in its name, was left behind and is this worker's to seal."""
    beat: Callable[[], None]
    """Tells whoever started it that its loop turns; to be called each `limits.tick_seconds`."""


def worker_of(run: str, number: int, life: int, beat: Callable[[], None]) -> Worker:
    """A worker in one of its lives, in the run of that name.

    It owns what its earlier lives have left, however many of them died before they had sealed it; the first one owns
    what other runs have left too.
    """
    mine, boot = f"{run}{number:02x}", f"{run}{number:02x}{life:04x}"

    def owns(other: str) -> bool:
        return other != boot and (other.startswith(mine) or (number == 0 and not other.startswith(run)))

    return Worker(number, boot, owns, beat)


class Beats:
    """How long each worker has been silent: a byte for each in shared memory, changed as long as its loop turns.

    No file: a disk that is full or hangs is no reason to end a worker. And no time: silence is counted in looks, so
    that a machine which stood still, the one who looks included, has nobody ended.
    """

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count)
        self._seen = [0] * count
        self._looks = [0] * count

    def beat(self, number: int) -> None:
        """In the worker: its loop turns."""
        self._memory[number] = (self._memory[number] + 1) % 256

    def begin(self, number: int) -> None:
        """A worker begins a life; it has not been silent yet."""
        self._looks[number] = 0

    def look(self, number: int) -> int:
        """Look whether a worker has changed its byte; how many looks in a row it has not."""
        seen = self._memory[number]
        self._looks[number] = self._looks[number] + 1 if seen == self._seen[number] else 0
        self._seen[number] = seen
        return self._looks[number]


class Tended(Protocol):
    """A process of another kind, which is looked after beside the workers."""

    def tend(self) -> None:
        """Start it if it is not there and due."""
        ...

    def end(self) -> None:
        """Tell it to end."""
        ...

    def wait(self) -> None:
        """Return once it has ended, by force if it takes too long."""
        ...


class Supervisor:
    """Starts workers, starts them again when they die or hang, and ends them. One process, one thread."""

    def __init__(
        self,
        count: int,
        work: Callable[[Worker], int],
        *,
        run: str,
        manager: Manager,
        close: Callable[[], None],
        archivist: Tended | None = None,
        fork: Callable[[], int] = os.fork,
        silent_seconds_max: float = limits.worker_silent_seconds_max,
    ) -> None:
        """`work` is done in a process of its own, its result is that one's exit status.

        `run` names this run; `manager` hears that the workers are started, and that somebody looks after them. `close`
        gives up the socket: once the workers have, nobody shall wait in it for an answer.
        """
        self._count, self._work, self._run, self._manager = count, work, run, manager
        self._archivist = archivist
        self._close, self._fork = close, fork
        self._beats, self._silent_seconds_max = Beats(count), silent_seconds_max
        self._lives = [0] * count
        self._numbers: dict[int, int] = {}  # By process id.
        self._born: dict[int, float] = {}
        self._due: dict[int, float] = {}  # When a worker that died is started again, by number.
        self._signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}

    def serve(self) -> int:
        """Serve until SIGTERM or SIGINT; 0 if every worker ended by itself, and with 0."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)  # They are waited for, and never interrupt.
        for number in range(self._count):
            self._start(number)
        self._manager.tell("READY=1")
        while True:
            self._manager.tell_alive()
            if self._archivist is not None:
                self._archivist.tend()
            told = signal.sigtimedwait(self._signals, limits.tick_seconds)
            self._bury(stopping=False)
            if told is not None and told.si_signo != signal.SIGCHLD:
                return self._stop()
            if told is None:  # A tick has passed.
                self._end_silent()
            for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
                self._start(number)

    def _start(self, number: int) -> None:
        self._due.pop(number, None)
        self._lives[number] += 1
        self._beats.begin(number)
        beat = partial(self._beats.beat, number)
        worker, parent = worker_of(self._run, number, self._lives[number], beat), os.getpid()
        try:
            child = self._fork()
        except OSError as failure:  # No process or no memory left: those that there are go on serving.
            _log.error("worker %d cannot be started: %s", number, failure)
            self._due[number] = time.monotonic() + limits.worker_rest_seconds
            return
        if child == 0:
            status = 1
            try:
                die_with(parent)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
                status = self._work(worker)
            except BaseException:  # noqa: BLE001  Whatever it was, this process ends here and says why.
                _log.exception("worker %d did not foresee this", number)
            finally:
                sys.stderr.flush()
                os._exit(status)  # What the parent has on its stack is not the child's to unwind.
        self._numbers[child], self._born[child] = number, time.monotonic()

    def _end_silent(self) -> None:
        """End who hangs; `_bury` finds them, and they are started again."""
        for child, number in self._numbers.items():
            # Once: it may take the kernel a while.
            if self._beats.look(number) == int(self._silent_seconds_max / limits.tick_seconds):
                _log.error("worker %d has not turned its loop for %g s and is killed", number, self._silent_seconds_max)
                os.kill(child, signal.SIGKILL)

    def _bury(self, *, stopping: bool) -> list[int]:
        """The exit statuses of the workers that have ended since."""
        statuses = []
        for known in list(self._numbers):  # One by one: a child of another kind is not ours to bury.
            child, status = os.waitpid(known, os.WNOHANG)
            if child == 0:
                continue
            number, lived = self._numbers.pop(child), time.monotonic() - self._born.pop(child)
            statuses.append(os.waitstatus_to_exitcode(status))
            if not stopping:
                # One that dies at once would die again: others serve meanwhile.
                wait = 0.0 if lived > limits.worker_life_seconds_min else limits.worker_rest_seconds
                self._due[number] = time.monotonic() + wait
                _log.error("worker %d ended with %d and is started again", number, statuses[-1])
        return statuses

    def _stop(self) -> int:
        self._manager.tell("STOPPING=1")
        self._close()
        if self._archivist is not None:
            self._archivist.end()
        for child in self._numbers:
            os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + limits.workers_stop_seconds_max
        statuses: list[int] = []
        while self._numbers and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, limits.tick_seconds)
            statuses += self._bury(stopping=True)
        for child in self._numbers:  # What it has acknowledged is on disk; the next start seals it.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            statuses.append(1)
        if self._archivist is not None:
            self._archivist.wait()
        # One that was told before it could hear it had not begun.
        return int(any(status not in (0, -signal.SIGTERM) for status in statuses))


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent is gone, however that ended (Linux: prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # It was gone before that.
