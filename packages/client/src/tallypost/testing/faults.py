"""Faults that happen where a test wants them, and a real disk that has them.

Takes   an error to raise, or what is to be done at a named fault point.
Gives   a disk that keeps its promises but for that.
Never   fails unasked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from ..disk import OsBlock, OsDisk, OsWritten

Made = TypeVar("Made", OsBlock | None, OsWritten | None)


class Faults:
    """Faults that happen where a test wants them, on a real disk or in memory.

    `fail` raises an error for each later change that needs room, `at` calls a function at a named fault point.
    """

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()
        self.trusted = True
        self._failure: OSError | None = None
        self._actions: dict[str, Callable[[], object]] = {}

    def fail(self, failure: OSError | None) -> None:
        """Raise `failure` from now on for what makes or fills a file or a folder; None ends that.

        Files are still moved and removed, as on a full disk.
        """
        self._failure = failure

    def at(self, point: str, action: Callable[[], object]) -> None:
        """Call `action` whenever the fault point is reached: raise there, or end the process."""
        self._actions[point] = action

    def reach(self, point: str) -> None:
        """A fault point."""
        self.points[point] += 1
        action = self._actions.get(point)
        if action is not None:
            action()

    def _may_fail(self) -> None:
        if self._failure is not None:
            raise self._failure


class FaultyDisk(Faults, OsDisk):
    """A real disk on which faults happen."""

    def is_trusted(self, folder: str) -> bool:
        """As the test says: `trusted`."""
        return self.trusted and super().is_trusted(folder)

    def open_written(self, path: str, content: bytes) -> OsWritten | None:
        """Make a file that is written to, or fail; writing to it may fail later."""
        self._may_fail()
        return self._with_faults(super().open_written(path, content), "write_at")

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

    def append(self, path: str, content: bytes) -> int:
        """Add to a file, or fail."""
        self._may_fail()
        return super().append(path, content)

    def create_block(self, path: str, content: bytes, size: int) -> OsBlock | None:
        """Make a count file, or fail; it may fail to grow."""
        self._may_fail()
        return self._with_faults(super().create_block(path, content, size), "grow")

    def open_block(self, path: str) -> OsBlock | None:
        """Take up a count file, which may fail to grow."""
        return self._with_faults(super().open_block(path), "grow")

    def _with_faults(self, made: Made, change: str) -> Made:
        """Have that change of what was made fail as the disk does."""
        if made is not None:
            make_it = getattr(made, change)

            def make_it_or_fail(*given: object) -> None:
                self._may_fail()
                make_it(*given)

            setattr(made, change, make_it_or_fail)
        return made
