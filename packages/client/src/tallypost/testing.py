"""For tests and demonstrations: counts to assert on, another clock, disks that fail, a network of one's own.

Takes   what a test wants to happen.
Gives   `capture` and the pytest fixture ``tallypost_capture``, for makers; `FakeClock`, `FakeRandom`, `FaultyDisk`,
        `FakeDisk`, `FakeTransport`, for the library's own tests; and ``python -m tallypost.testing``.
Never   used by the library itself; never needs pytest, and has no assertions for it to rewrite (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import argparse
import datetime
import errno
import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from tallypost_schema import declaration as declarations
from tallypost_schema import own, receipts
from tallypost_schema.declaration import Declaration
from tallypost_schema.errors import DeclarationInvalid

from . import limits
from .clock import SHIFT_VARIABLE, SystemClock
from .disk import OsBlock, OsDisk, OsWritten
from .errors import NoAnswer, WrongUse
from .reports.look import look
from .reports.overview import days_of
from .state_directory import StateDirectory
from .telemetry import _declaration_path

if TYPE_CHECKING:
    from .seams import Clock
    from .telemetry import Telemetry
    from .uploads.transport import Answer

    tallypost_capture: Callable[[], Iterator[Callable[..., Counted]]]
    """The pytest fixture; it is made when it is asked for, by `__getattr__` below."""


class Undeclared(AssertionError):
    """Something was counted that the declaration does not name, so it would never leave."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        shown = ", ".join(name.replace("\n", " < ") for name in names)
        super().__init__(f"counted, but not declared: {shown}; name them in telemetry.toml, or count them no more")


class Counted(Mapping[str, int]):
    """What was counted since a ``with capture(…)`` began, by name; 0 for what was not. It stands still at its end."""

    def __init__(self, counts: Callable[[], dict[str, int]], declaration: Declaration | None) -> None:
        self._counts, self._declaration = counts, declaration
        self._before = counts()
        self._after: dict[str, int] | None = None

    def __getitem__(self, name: str) -> int:
        return self._since().get(name, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._since())

    def __len__(self) -> int:
        return len(self._since())

    def __contains__(self, name: object) -> bool:
        return name in self._since()

    def stack(self, name: str) -> int:
        """How often a stack counter was hit, on whatever way; each way has its own entry, name and frames."""
        return sum(n for key, n in self._since().items() if key.startswith(f"{name}\n"))

    def undeclared(self) -> list[str]:
        """The names that were counted and are not in the declaration."""
        return sorted(name for name in self._since() if not _is_declared(name, self._declaration))

    def stop(self) -> None:
        """Stand still: what is counted from now on is not seen here."""
        self._after = self._counts()

    def _since(self) -> dict[str, int]:
        counts = self._after if self._after is not None else self._counts()
        return {name: more for name, n in counts.items() if (more := n - self._before.get(name, 0)) > 0}

    def __repr__(self) -> str:
        return f"<Counted {self._since()}>"


@contextmanager
def capture(telemetry: Telemetry, *, declared_only: bool = False) -> Iterator[Counted]:
    """Have what an application counts go to a state directory in memory, and see it.

    It is a state directory of its own, in mode *local*, whatever a test runner, the environment or the user said; the
    application may ask for its mode and change it there. Nothing is posted, no file of the machine is touched, and at
    the end everything is as it was. Captures may be nested, and threads may count in them; each sees what is counted
    since its own begin. What other processes count is not seen.

    Args:
        telemetry: the application's own, such as its module's ``telemetry``.
        declared_only: fail at the end if something was counted that the declaration does not name.

    Raises:
        WrongUse: `declared_only`, and there is no declaration, or one with problems.
        Undeclared: at the end, as said above.
    """
    diversion = _begin_diversion(telemetry)
    try:
        if declared_only and diversion.declaration is None:
            raise WrongUse("declaration", telemetry._declaration, "a telemetry.toml that `tallypost check` passes")
        counted = Counted(diversion.counts, diversion.declaration)
    except BaseException:
        _end_diversion(telemetry)
        raise
    try:
        yield counted
    finally:
        # In this order: after the last look nothing more is counted there, so that no increment is in neither place.
        _end_diversion(telemetry)
        counted.stop()
    if declared_only and (names := counted.undeclared()):
        raise Undeclared(names)


class _Diversion:
    """Where one application counts while it is captured, however many captures there are."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.captures = 0
        self._disk = FakeDisk(clock=telemetry._clock)
        self._directory = StateDirectory(os.path.join(os.sep, "captured"), telemetry.application)
        self.declaration: Declaration | None = None
        content = telemetry._declaration_text()
        if content is not None and telemetry._declaration is not None:
            self._disk.write(_declaration_path(telemetry._declaration), content)
            try:
                self.declaration = declarations.parse(content.decode())
            except (UnicodeDecodeError, DeclarationInvalid):
                self.declaration = None
        # With "on" a saved answer decides, and there is none yet: that is *local*.
        self._parts: dict[str, Any] = {
            "_disk": self._disk,
            "_directory": self._directory,
            "_environ": {"TALLYPOST": "on"},
            "_default": "local",
            "_endpoint": None,
            "_uploader": "manual",
            "_is_set_up": False,
        }

    def exchange(self, telemetry: Telemetry) -> None:
        """Give the application the captured parts for its own, or the other way round."""

        def change() -> None:
            now = vars(telemetry)
            assert self._parts.keys() <= now.keys(), "each is an attribute of Telemetry"
            mine, self._parts = self._parts, {name: now[name] for name in self._parts}
            now.update(mine)

        telemetry._recorder.between_files(change)

    def counts(self) -> dict[str, int]:
        """All that was counted, of whatever day."""
        total: dict[str, int] = {}
        for day in days_of(look(self._directory, disk=self._disk))["days"]:
            for program in day["programs"]:
                for name, n in (*program["counters"].items(), *program["stacks"].items()):
                    total[name] = total.get(name, 0) + n
        return total


# By the identity of an application's `Telemetry`, while it is captured. The lock protects the table and its counts.
_diversions: dict[int, _Diversion] = {}
_diversions_lock = threading.Lock()


def _begin_diversion(telemetry: Telemetry) -> _Diversion:
    with _diversions_lock:
        diversion = _diversions.get(id(telemetry))
        if diversion is None:
            diversion = _Diversion(telemetry)
            diversion.exchange(telemetry)
            _diversions[id(telemetry)] = diversion
        diversion.captures += 1
        return diversion


def _end_diversion(telemetry: Telemetry) -> None:
    # The last one to end restores, in whatever order captures in several threads end.
    with _diversions_lock:
        diversion = _diversions[id(telemetry)]
        diversion.captures -= 1
        if diversion.captures == 0:
            del _diversions[id(telemetry)]
            diversion.exchange(telemetry)


def _is_declared(name: str, declaration: Declaration | None) -> bool:
    """Whether it may leave under its own name, or as the declared bucket ``:other``."""
    if name.startswith(own.PREFIX):
        return True
    if declaration is None:
        return False
    if "\n" in name:
        return declaration.names_stack(name)
    plain, colon, _ = name.partition(":")
    return declaration.names_counter(name) or (bool(colon) and declaration.names_counter(f"{plain}:other"))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The pytest fixture: pytest is imported by those who ask for it, and is no dependency."""
        if name != "tallypost_capture":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import pytest

        @pytest.fixture
        def tallypost_capture() -> Iterator[Callable[..., Counted]]:
            """A function that captures what an application counts, to the end of the test."""
            with ExitStack() as captures:
                yield lambda telemetry, **words: captures.enter_context(capture(telemetry, **words))

        globals()[name] = tallypost_capture
        return tallypost_capture

    def __dir__() -> list[str]:
        """With the fixture where pytest looks for it, as in ``pytest_plugins = ["tallypost.testing"]``."""
        return sorted({*globals(), *(["tallypost_capture"] if "pytest" in sys.modules else [])})


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


class Faults:
    """Faults that happen where a test wants them, on a real disk or in memory.

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
        """Make a file that is written to, or fail."""
        self._may_fail()
        return super().open_written(path, content)

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


class FakeDisk(Faults):
    """A file system in memory: files, folders, locks, and mapped blocks that all who open a file share.

    Args:
        rules: whose rules hold. ``"windows"``: a file that is open or mapped can be neither removed nor replaced, a
            locked range cannot be read, and no folder is another user's. ``"macos"`` and ``"windows"``: without
            ``posix_fallocate``, so that a reservation that fails leaves a part of it behind.
        clock: tells when files are written.
        lock_at: the byte that a lock covers; that of the real disk lies far behind all content.
    """

    def __init__(
        self,
        rules: Literal["linux", "macos", "windows"] = "linux",
        *,
        clock: Clock | None = None,
        lock_at: int = 1 << 40,
    ) -> None:
        super().__init__()
        self.rules = rules
        self.of_another_user: set[str] = set()
        self._is_windows, self._reserves = rules == "windows", rules == "linux"
        self._now = (clock if clock is not None else SystemClock({})).now
        self._lock_at = lock_at
        self._folders: dict[str, None] = {os.path.abspath(os.sep): None}
        self._files: dict[str, _File] = {}
        self._unfinished = itertools.count(1)

    def write(self, path: str, content: bytes) -> None:
        """Put a file there for a test, with its folders: without faults, as any other program might."""
        path = os.path.abspath(path)
        folder = os.path.dirname(path)
        while folder not in self._folders:
            self._folders[folder] = None
            folder = os.path.dirname(folder)
        self._files[path] = _File(content, self._now())

    def read(self, path: str) -> bytes:
        """The whole file."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is None:
            raise self._missing(path)
        if self._is_windows and file.lock.locked() and self._lock_at < file.size:
            raise _error(errno.EACCES, path)
        return bytes(file.content[: file.size])

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        return [name for name in self._all_names(os.path.abspath(folder)) if not name.endswith(_UNFINISHED)]

    def exists(self, path: str) -> bool:
        """Whether something has that path."""
        path = os.path.abspath(path)
        return path in self._files or path in self._folders

    def make_folder(self, path: str) -> bool:
        """Make a folder, and its parents."""
        self._may_fail()
        path = os.path.abspath(path)
        if path in self._folders:
            return False
        if path in self._files:
            raise _error(errno.EEXIST, path)
        above = os.path.dirname(path)
        if above not in self._folders:
            if above in self._files:
                raise _error(errno.ENOENT if self._is_windows else errno.ENOTDIR, path)
            self.make_folder(above)
        self._folders[path] = None
        return True

    def is_ours(self, path: str) -> bool:
        """Whether a test did not say that it is `of_another_user`."""
        path = os.path.abspath(path)
        if not self.exists(path):
            raise self._missing(path)
        return self._is_windows or path not in self.of_another_user

    def create(self, path: str, content: bytes) -> bool:
        """Put a whole file there if there is none."""
        path = os.path.abspath(path)
        unfinished = self._write_unfinished(path, content)
        self.reach("before_link")
        file = self._files.pop(unfinished)
        if path in self._folders or self._files.setdefault(path, file) is not file:
            return False
        self.reach("after_link")
        return True

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Put a whole file there, in place of what there is."""
        path = os.path.abspath(path)
        unfinished = self._write_unfinished(path, content)
        self.reach("before_rename")
        self._rename(unfinished, path)

    def move(self, source: str, target: str) -> None:
        """Give a file another path."""
        source, target = os.path.abspath(source), os.path.abspath(target)
        file = self._files.get(source)
        if file is None:
            raise self._missing(source)
        self._require_removable(source, file)
        self._require_folder_of(target)
        self._rename(source, target)

    def remove(self, path: str) -> None:
        """Remove a file."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is not None:
            self._require_removable(path, file)
            self._files.pop(path, None)
        elif not isinstance(missing := self._missing(path), FileNotFoundError):
            raise missing

    def sweep(self, folder: str, before: float) -> None:
        """Remove unfinished files."""
        folder = os.path.abspath(folder)
        for name in self._all_names(folder):
            path = os.path.join(folder, name)
            file = self._files.get(path)
            if name.endswith(_UNFINISHED) and file is not None and file.modified < before:
                self.remove(path)

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all in it; where a file cannot be removed, what comes after it stays."""
        path = os.path.abspath(path)
        if path not in self._folders:
            raise _error(errno.ENOTDIR, path) if path in self._files else self._missing(path)
        below = os.path.join(path, "")
        for each in sorted(self._files):
            if each.startswith(below):
                self.remove(each)
        for each in list(self._folders):
            if each == path or each.startswith(below):
                del self._folders[each]

    def try_lock(self, path: str) -> FakeLock | None:
        """Lock a file, made if need be, without waiting."""
        path = os.path.abspath(path)
        self._require_folder_of(path)
        if path in self._folders:
            raise self._missing(path)
        file = self._files.setdefault(path, _File(b"", self._now()))
        return FakeLock(file) if file.lock.acquire(blocking=False) else None

    def open_block(self, path: str) -> FakeBlock | None:
        """Lock and map a file that is there, without waiting."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is None:
            if isinstance(missing := self._missing(path), FileNotFoundError):
                return None
            raise missing
        if not file.lock.acquire(blocking=False):
            return None
        if self._files.get(path) is file and file.size > 0:
            return FakeBlock(file, disk=self)
        file.lock.release()
        return None

    def create_block(self, path: str, content: bytes, size: int) -> FakeBlock | None:
        """Make, lock and map a file of `size` bytes that begins with `content`."""
        self._may_fail()
        path = os.path.abspath(path)
        self._require_folder_of(path)
        file = _File(content.ljust(size, b"\0"), self._now())
        file.lock.acquire()
        if path in self._folders or self._files.setdefault(path, file) is not file:
            return None
        return FakeBlock(file, disk=self)

    def is_trusted(self, folder: str) -> bool:
        """As the test says: `trusted`."""
        return self.trusted

    def open_written(self, path: str, content: bytes) -> FakeWritten | None:
        """Make a file that is written to without a lock."""
        self._may_fail()
        path = os.path.abspath(path)
        self._require_folder_of(path)
        file = _File(content, self._now())
        if path in self._folders or self._files.setdefault(path, file) is not file:
            return None
        return FakeWritten(file, disk=self)

    def modified(self, path: str) -> float:
        """When a file was last written to."""
        path = os.path.abspath(path)
        file = self._files.get(path)
        if file is None:
            raise self._missing(path)
        return file.modified

    def _all_names(self, folder: str) -> list[str]:
        return sorted(
            os.path.basename(path)
            for path in (*list(self._files), *list(self._folders))
            if os.path.dirname(path) == folder != path
        )

    def _write_unfinished(self, path: str, content: bytes) -> str:
        self._may_fail()
        self._require_folder_of(path)
        unfinished = f"{path}.{next(self._unfinished)}{_UNFINISHED}"
        self._files[unfinished] = _File(content, self._now())
        return unfinished

    def _rename(self, source: str, target: str) -> None:
        if target in self._folders:
            raise self._missing(target)
        there = self._files.get(target)
        if there is not None:
            self._require_removable(target, there)
        self._files[target] = self._files.pop(source)

    def _require_folder_of(self, path: str) -> None:
        if os.path.dirname(path) not in self._folders:
            raise self._missing(path)

    def _require_removable(self, path: str, file: _File) -> None:
        if self._is_windows and file.is_held():
            raise _error(errno.EACCES, path)

    def _missing(self, path: str) -> OSError:
        """What is raised for a path that leads to no file."""
        if path in self._folders:
            return _error(errno.EACCES if self._is_windows else errno.EISDIR, path)
        above = os.path.dirname(path)
        while above not in self._folders and above not in self._files:
            above = os.path.dirname(above)
        return _error(errno.ENOTDIR if above in self._files and not self._is_windows else errno.ENOENT, path)


class FakeLock:
    """A lock on a file in memory."""

    def __init__(self, file: _File) -> None:
        self._file = file

    def release(self) -> None:
        """Give it up."""
        self._file.lock.release()


class FakeBlock:
    """A locked file in memory, as its holder sees it mapped."""

    def __init__(self, file: _File, *, disk: FakeDisk) -> None:
        self._file, self._disk = file, disk
        self.view = file.mapped(file.size)

    def grow(self, size: int) -> None:
        """Reserve and map `size` bytes; cells that were handed out before still reach the file."""
        try:
            self._disk._may_fail()
        except OSError:
            if not self._disk._reserves:
                self._file.size += (size - self._file.size) // 2
            raise
        if size > limits.count_file_bytes_max:
            raise _error(errno.EFBIG, "a block in memory")
        self.view = self._file.mapped(size)

    def remove(self, path: str) -> bool:
        """Remove the file, if the path still leads to it, and close."""
        path = os.path.abspath(path)
        ours = self._disk._files.get(path) is self._file
        if self._disk.rules == "windows":
            self.close()
        if ours:
            try:
                self._disk._require_removable(path, self._file)
            except PermissionError:
                return False
            del self._disk._files[path]
        if self._disk.rules != "windows":
            self.close()
        return ours

    def close(self) -> None:
        """Unmap, and give up the lock."""
        self.view.release()
        self._file.lock.release()


class FakeWritten:
    """A file in memory that is written to piece by piece."""

    def __init__(self, file: _File, *, disk: FakeDisk) -> None:
        self._file, self._disk = file, disk
        file.writers += 1

    def write_at(self, place: int, content: bytes) -> None:
        """Put `content` at a place, or fail."""
        self._disk._may_fail()
        self._file.content[place : place + len(content)] = content.rjust(
            len(content) + max(0, place - self._file.size), b"\0"
        )
        self._file.size, self._file.modified = len(self._file.content), self._disk._now()

    def close(self) -> None:
        """Close it."""
        self._file.writers -= 1


class _File:
    """A file in memory; its bytes keep their place, so that each who mapped it sees what another writes."""

    __slots__ = ("content", "lock", "modified", "size", "writers")

    def __init__(self, content: bytes, modified: float) -> None:
        self.content, self.size, self.modified = bytearray(content), len(content), modified
        # Held by the one `FakeLock` or `FakeBlock` that has it. A forked child inherits it held, as with flock.
        self.lock = threading.Lock()
        self.writers = 0

    def mapped(self, size: int) -> memoryview:
        """A view of the first `size` bytes."""
        # What is viewed cannot change its place: it gets its largest size before the first view of it.
        if len(self.content) < limits.count_file_bytes_max:
            self.content += bytes(limits.count_file_bytes_max - len(self.content))
        self.size = size
        return memoryview(self.content)[:size]

    def is_held(self) -> bool:
        """Whether somebody has it open, or still has a view of it."""
        if self.lock.locked() or self.writers:
            return True
        try:
            self.content.append(0)
        except BufferError:
            return True
        del self.content[-1]
        return False


_UNFINISHED = ".tmp"


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


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
            # Loaded here, since it brings the network's library, which no test of a count needs.
            from .uploads.transport import Answer

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
