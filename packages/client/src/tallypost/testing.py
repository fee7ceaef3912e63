"""For tests and demonstrations: another clock, a disk that fails or ends the process, a network of one's own.

Takes   what a test wants to happen.
Gives   `FakeClock`, `FakeRandom`, `FaultyDisk`, `FakeTransport`, and ``python -m tallypost.testing``.
Never   used by the library itself.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from tallypost_schema import receipts

from .clock import SHIFT_VARIABLE, SystemClock
from .disk import OsBlock, OsDisk, OsWritten
from .errors import NoAnswer
from .uploads.transport import Answer


class FakeClock:
    """A clock that stands still until it is set."""

    def __init__(self, at: str = "2026-11-20T12:00:00Z") -> None:
        self._at = instant(at)
        self.now: Callable[[], float] = lambda: self._at
        self.slept: list[float] = []

    def set(self, at: str) -> None:
        """Have it be that instant."""
        self._at = instant(at)

    def sleep(self, seconds: float) -> None:
        """Go on by so many seconds, at once."""
        self.slept.append(seconds)
        self._at += seconds


class FakeRandom:
    """Chance without surprise: bytes that count up, fractions that repeat."""

    def __init__(self, fraction: float = 0.5) -> None:
        self._fraction, self._drawn = fraction, 0

    def bytes(self, count: int) -> bytes:
        """So many bytes, other ones each time."""
        self._drawn += 1
        return self._drawn.to_bytes(count, "big")

    def fraction(self) -> float:
        """The number that it was made with."""
        return self._fraction


class FaultyDisk(OsDisk):
    """A real disk on which faults happen where a test wants them.

    `fail` raises an error for each later change of the disk, `at` calls a function at a named fault point.
    """

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()
        self.trusted = True
        self._failure: OSError | None = None
        self._actions: dict[str, Callable[[], object]] = {}

    def fail(self, failure: OSError | None) -> None:
        """Raise `failure` for every change from now on; None ends that."""
        self._failure = failure

    def at(self, point: str, action: Callable[[], object]) -> None:
        """Call `action` whenever the fault point is reached: raise there, or end the process."""
        self._actions[point] = action

    def is_trusted(self, folder: str) -> bool:
        """As the test says: `trusted`."""
        return self.trusted and super().is_trusted(folder)

    def open_written(self, path: str, content: bytes) -> OsWritten | None:
        """Make a file that is written to, or fail."""
        self._may_fail()
        return super().open_written(path, content)

    def reach(self, point: str) -> None:
        """A fault point."""
        self.points[point] += 1
        action = self._actions.get(point)
        if action is not None:
            action()

    def make_folder(self, path: str) -> bool:
        """Make a folder, or fail."""
        self._may_fail()
        return super().make_folder(path)

    def create(self, path: str, content: bytes) -> bool:
        """Put a file there, or fail."""
        self._may_fail()
        return super().create(path, content)

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Replace a file, or fail."""
        self._may_fail()
        super().replace(path, content, durable=durable)

    def create_block(self, path: str, content: bytes, size: int) -> OsBlock | None:
        """Make a count file, or fail."""
        self._may_fail()
        return super().create_block(path, content, size)

    def _may_fail(self) -> None:
        if self._failure is not None:
            raise self._failure


class FakeTransport:
    """A server in memory: answers as told, with a receipt if nothing is told, and keeps what was posted."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, str | None, bytes]] = []
        self.asked: list[tuple[str, str | None]] = []
        self.answers: list[Answer | NoAnswer] = []
        self.config: Answer | NoAnswer = NoAnswer("no config here")

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Answer as told next, else with a receipt."""
        self.posted.append((url, encoding, body))
        if not self.answers:
            return Answer(200, receipts.encode_receipt(receipts.hash_of(_decoded(body, encoding))), {})
        answer = self.answers.pop(0)
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    def get(self, url: str, etag: str | None) -> Answer:
        """The config that was set."""
        self.asked.append((url, etag))
        if isinstance(self.config, NoAnswer):
            raise self.config
        return self.config


def instant(text: str) -> float:
    """A UTC time such as 2026-11-20T12:00:00Z, as seconds since 1970.

    Raises:
        ValueError: it is none.
    """
    at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (at if at.tzinfo is not None else at.replace(tzinfo=datetime.timezone.utc)).timestamp()


def _decoded(body: bytes, encoding: str | None) -> bytes:
    if encoding == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompress(body, max_output_size=8 << 20)
    if encoding == "gzip":
        import gzip

        return gzip.decompress(body)
    return body


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command or program, and all that it starts, under another clock."""
    parser = argparse.ArgumentParser(
        prog="python -m tallypost.testing",
        description="Run a command or program under another clock, which goes on from the instant given.",
        epilog="example:\n  python -m tallypost.testing --at 2026-11-20T12:00:00Z -- tallypost report",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--at", required=True, type=instant, metavar="TIME", help="a UTC time: 2026-11-20T12:00:00Z")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="tallypost …, python …, or another program")
    given = parser.parse_args(arguments)
    # The machine's own clock, not a shifted one: a shift within a shift is from the real time too.
    shift = given.at - SystemClock({}).now()
    environment = {**os.environ, SHIFT_VARIABLE: f"{shift:.3f}"}
    word, *rest = given.command
    ours = {"tallypost": [sys.executable, "-m", "tallypost"], "python": [sys.executable]}
    command = [*ours.get(word, [word]), *rest]
    if os.name == "posix":
        sys.stdout.flush()
        os.execvpe(command[0], command, environment)  # noqa: S606  # The command that the caller names.
    return subprocess.call(command, env=environment)  # noqa: S603  # As above.


if __name__ == "__main__":
    sys.exit(main())
