"""Workers: one process for each core, all on one socket, each with a segment of its own.

Takes   how many, and what one of them does.
Gives   an exit status, once all have ended.
Never   takes a document itself; never outlived by a worker: the kernel ends them with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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


def worker_of(run: str, number: int, life: int) -> Worker:
    """A worker in one of its lives, in the run of that name.

    It owns what its earlier lives have left, however many of them died before they had sealed it; the first one owns
    what other runs have left too.
    """
    mine, boot = f"{run}{number:02x}", f"{run}{number:02x}{life:04x}"

    def owns(other: str) -> bool:
        return other != boot and (other.startswith(mine) or (number == 0 and not other.startswith(run)))

    return Worker(number, boot, owns)


class Tended(Protocol):
    """A process of another kind, which is looked after beside the workers."""

    def tend(self) -> None:
        """Start it if it is not there and due."""
        ...

    def end(self) -> None:
        """Tell it to end."""
        ...

    def wait(self, seconds: float) -> None:
        """Return once it has ended, by force after so many seconds."""
        ...


class Supervisor:
    """Starts workers, starts them again when they die, and ends them. One process, one thread."""

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
    ) -> None:
        """`work` is done in a process of its own, its result is that one's exit status.

        `run` names this run; `manager` hears that the workers are started, and that somebody looks after them. `close`
        gives up the socket: once the workers have, nobody shall wait in it for an answer.
        """
        self._count, self._work, self._run, self._manager = count, work, run, manager
        self._archivist = archivist
        self._close, self._fork = close, fork
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
            for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
                self._start(number)

    def _start(self, number: int) -> None:
        self._due.pop(number, None)
        self._lives[number] += 1
        worker, parent = worker_of(self._run, number, self._lives[number]), os.getpid()
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
            self._archivist.wait(max(0.0, deadline - time.monotonic()))
        # One that was told before it could hear it had not begun.
        return int(any(status not in (0, -signal.SIGTERM) for status in statuses))


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent is gone, however that ended (Linux: prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # It was gone before that.
