"""The one place that wires: an application's telemetry, from its counters to its daily work.

Takes   what the application's makers say once.
Gives   counters and histograms; and, on demand, the day's work (``daily.py``), loaded only then.
Never   touches the disk while being made; never lets recording fail.
"""

from __future__ import annotations

import os
import sys

from tallypost_schema import names

from . import limits, losses
from .clock import SystemClock, day_of
from .counts.recorder import Recorder
from .errors import NoStateDirectory, WrongUse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal

    from .consent import Decision, Mode
    from .counts.counter import Counter
    from .counts.crash import CountedExceptions
    from .counts.histogram import Histogram
    from .counts.recorder import Cells
    from .counts.stack import StackCounter
    from .daily import Daily
    from .events.wiring import ProcessEvents
    from .seams import Clock, Disk


class Telemetry:
    """Counts what an application does, on the user's machine.

    Args:
        application: the registered name, such as ``example.org/mytool``; it names the state directory.
        version: the program's version.
        program: the executable; the application's last part if not given.
        endpoint: the server that reports are posted to, if the user says yes.
        declaration: the path of a ``telemetry.toml``, or ``"package:file"``. Without one nothing ever leaves.
        dir: the folder under which state directories lie, like ``TALLYPOST_DIR``.
        default: ``"local"``: count, for the user alone, until the user says otherwise. ``"off"``: do nothing.
        uploader: who does the daily work: ``"process"`` (detached), ``"thread"`` (long-lived servers), ``"manual"``.

    Raises:
        WrongUse: an argument is not allowed. Nothing else here raises, and nothing here touches the disk.
    """

    def __init__(
        self,
        application: str,
        version: str,
        *,
        program: str | None = None,
        endpoint: str | None = None,
        declaration: str | os.PathLike[str] | None = None,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002  # The promised name.
        default: Literal["local", "off"] = "local",
        uploader: Literal["process", "thread", "manual"] = "process",
        clock: Clock | None = None,
        disk: Disk | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        _require(names.is_application, "application", application, names.APPLICATION_RULE)
        program = program if program is not None else application.rpartition("/")[2]
        _require(names.is_program, "program", program, names.PROGRAM_RULE)
        _require(names.is_label, "version", version, "1 to 64 printable characters")
        _require(("local", "off").__contains__, "default", default, '"local" or "off"')
        _require(("process", "thread", "manual").__contains__, "uploader", uploader, '"process", "thread" or "manual"')
        if endpoint is not None:
            from .uploads.endpoint import is_endpoint

            _require(is_endpoint, "endpoint", endpoint, "an address such as https://telemetry.example.org")
        self.application, self.version, self.program = application, version, program
        from .state_directory import StateDirectory, base_directory

        self._endpoint, self._default, self._uploader = endpoint, default, uploader
        self._declaration = os.fspath(declaration) if declaration is not None else None
        self._environ = os.environ if environ is None else environ
        self._clock = clock if clock is not None else SystemClock(self._environ)
        if disk is None:
            from .disk import OsDisk

            disk = OsDisk()
        self._disk = disk
        base = os.fspath(dir) if dir is not None else base_directory(self._environ)
        self._directory = StateDirectory(base, application)
        self._recorder = Recorder(take=self._take, clock=self._clock)
        self._stacks: dict[tuple[str, int], StackCounter] = {}
        self._events: ProcessEvents | None = None
        self._first_events: list[ProcessEvents] = []
        self._early: list[tuple[Any, Any]] = []
        self._is_beginning = False
        self._is_set_up, self._first_day_ends = False, 0.0
        self._not_started: str | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork)

    # ---------------------------------------------------------------- recording

    def counter(self, name: str) -> Counter:
        """The counter of that name.

        Raises:
            WrongUse: the name is outside the grammar.
        """
        _require(names.is_name, "counter", name, names.NAME_RULE)
        return self._recorder.counter(name)

    def histogram(self, name: str, edges: tuple[float, ...]) -> Histogram:
        """A histogram: values are counted in the first bucket whose edge they do not exceed.

        Raises:
            WrongUse: the name is outside the grammar, or the edges are not rising positive numbers.
        """
        _require(names.is_name, "histogram", name, names.NAME_RULE)
        _require(_are_edges, "edges", edges, "rising positive numbers, such as (0.1, 1, 10)")
        edges = tuple(edges)
        buckets = names.histogram_buckets(edges)
        from time import perf_counter

        from .counts.histogram import Histogram

        counters = tuple(self._recorder.counter(f"{name}:{bucket}") for bucket in buckets)
        return Histogram(
            name, edges, counters, lose=lambda: self._recorder.lose(losses.DROPPED_VALUES), clock=perf_counter
        )

    def stack(self, name: str, depth: int = 8) -> StackCounter:
        """A counter keyed by where it is hit: by up to `depth` frames of the packages that the declaration names.

        Raises:
            WrongUse: the name is outside the grammar, or the depth is not from 1 to 32.
        """
        from .counts.stack import StackCounter

        _require(names.is_stack_name, "stack", name, names.STACK_RULE)
        _require(range(1, 33).__contains__, "depth", depth, "a whole number from 1 to 32")
        stack = self._stacks.get((name, depth))
        if stack is None:
            stack = StackCounter(name, depth, packages=lambda: self._packages(name), recorder=self._recorder)
            self._stacks[name, depth] = stack
        return stack

    def count_exceptions(self, name: str = "crash") -> CountedExceptions:
        """A ``with`` block, or a decorator, that counts the exceptions which leave it: ``name/KindOfException``.

        Raises:
            WrongUse: the name is outside the grammar.
        """
        from .counts.crash import CountedExceptions

        _require(names.is_name, "stack", name, names.NAME_RULE)
        return CountedExceptions(name, stack=self.stack)

    def install_crash_counter(self, name: str = "crash") -> None:
        """Count exceptions that nobody catches, in any thread, and then call the hooks that were there.

        Raises:
            WrongUse: the name is outside the grammar.
        """
        from .counts import crash

        _require(names.is_name, "stack", name, names.NAME_RULE)
        crash.install(name, stack=self.stack)

    def event(self, event: object, /, **fields: str | float | bool | None) -> None:
        """Log an event of the declaration, with its declared fields: ``event("export", format="pdf", pages=3)``.

        Or an instance of a dataclass: its class's ``event_name``, or its name in small words joined by ``-``, names the
        event, its fields are the event's. A field that is None is left out. It is written by a thread; an event that
        does not fit the declaration is dropped and counted.

        Raises:
            WrongUse: under a test runner alone, the event is not declared so.
        """
        try:
            if type(event) is not str:
                event, fields = _named(event, fields)
            events = self._events
            if events is None:
                events = self._begin_events()
        except Exception:  # noqa: BLE001  # No descriptor left to import with; a property of the application's raised.
            self._recorder.lose(losses.DROPPED_EVENTS)
            return
        if events is None:
            self._early.append((event, fields))
            self._put_early()
            return
        if events.checks:
            events.check(event, fields)  # type: ignore[arg-type]  # A dict of what `object` allows.
        events.put(event, fields)  # type: ignore[arg-type]  # As above.

    # ---------------------------------------------------------------- what the user decides and sees

    @property
    def mode(self) -> Mode:
        """What this process may do now: ``"on"``, ``"local"`` or ``"off"``."""
        try:
            decision = self._decide()
        except OSError:
            return "off"
        # Only a yes can depend on the declaration's consent version, and reading that takes a parser.
        return self._daily().decide().mode if decision.mode == "on" else decision.mode

    def set_mode(self, mode: Mode) -> None:
        """Save the user's answer, as asked by the application.

        Raises:
            WrongUse: the mode is not one of the three.
            OSError: the answer could not be saved.
        """
        self._daily().set_mode(mode, who="application")
        self._change_mode()

    def ask(self, question: str | None = None) -> Mode:
        """Ask the user, on a terminal, unless that was answered or decided before. Returns the mode in force.

        `question` is a sentence in the application's own words; what leaves, to whom, and how to see it is said below.
        Waits for the answer. Where standard input or standard error is no terminal nobody is asked.

        Raises:
            OSError: the answer could not be saved.
            KeyboardInterrupt: the user ended the program instead; nothing is saved.
        """
        from .ask import ask, is_terminal

        daily = self._daily()
        declared = daily.asks_for()
        if declared is not None and is_terminal(sys.stdin, sys.stderr):
            answer = ask(declared, question=question, endpoint=daily.endpoint(), keyboard=sys.stdin, screen=sys.stderr)
            if answer is not None:
                daily.set_mode(answer, who="user")
                self._change_mode()
        return daily.decide().mode

    def status(self) -> dict[str, Any]:
        """The mode, what decided it, where the files are, what waits, what was lost; as ``tallypost status --json``."""
        status = self._daily().status()
        if self._recorder.memory_reason is not None:
            status["memory"] = self._recorder.memory_reason
        uploader = self._not_started
        if uploader is None and self._uploader == "thread":
            from .uploads.thread import last_trouble

            uploader = last_trouble(self._directory.path)
        if uploader is not None:
            status["uploader"] = uploader
        if self._events is not None and self._events.writer.trouble is not None:
            status["events"] = self._events.writer.trouble
        return status

    def preview(self) -> list[bytes]:
        """The exact bytes of each document that would be posted next, after folding the days that are over."""
        return self._daily().preview().documents

    def upload(self) -> bool:
        """Fold the days that are over and post what may leave, now; True if nothing is left to send."""
        return self._daily().upload().nothing_left

    def forget(self) -> None:
        """Remove everything of this application from this machine, but keep an *off*."""
        self.close()
        self._is_set_up = False
        self._daily().forget()

    def close(self) -> None:
        """Give the count file and the session back. Never needed: a count is safe at once, an event in a moment."""
        if self._events is not None:
            self._events.writer.end_session()
        self._recorder.close()

    # ---------------------------------------------------------------- wiring

    def _daily(self) -> Daily:
        from .daily import Daily, LastRun

        declaration = self._declaration_text()
        key = _declaration_key(declaration)
        return Daily(
            self._directory,
            last_run=LastRun(self.application, self.program, self.version, self._endpoint or "", key),
            declaration=declaration,
            default=self._default,
            environ=self._environ,
            clock=self._clock,
            disk=self._disk,
        )

    def _take(self, now: float) -> Cells:
        """Open this process's count file for the day of `now`; in mode *off* cells that nobody will read."""
        from .counts.memory_cells import NoCells
        from .counts.slots import take

        decision = self._decide()
        if decision.mode == "off":
            return NoCells()
        self._set_up(now)
        key = {
            "application": self.application,
            **self._program(),
            "day": day_of(now),
            "mode": decision.line,
            "declaration": self._declaration_key,
        }
        from .clock import spelled

        file = take(self._directory.counts, key, spelled(now), disk=self._disk, random_bytes=os.urandom)
        if file is None:
            raise NoStateDirectory(self._directory.counts, "all its slots are held by other processes")
        for name in losses.OWN_COUNTERS:
            file.cell(name)  # So that a full file can still say what it lost.
        self._start_uploader(now)
        return file

    def _begin_events(self) -> ProcessEvents | None:
        """The events of this process; None in the middle of it, where a signal handler finds modules half loaded."""
        if self._is_beginning:
            return None
        self._is_beginning = True
        try:
            return self._made_events()
        finally:
            self._is_beginning = False
            self._put_early()

    def _put_early(self) -> None:
        """Put what was logged while the first event began the others, if that is over."""
        events = self._events
        while events is not None and self._early:
            events.put(*self._early.pop(0))

    def _made_events(self) -> ProcessEvents:
        from .consent import is_test_runner
        from .events.wiring import ProcessEvents

        events = ProcessEvents(
            self._directory,
            wanted=lambda: self._decide().mode != "off",
            terms=self._session_terms,
            declaration=self._declaration_text,
            cut=lambda session: self._daily().cut(session),
            lose=lambda n: self._recorder.lose(losses.DROPPED_EVENTS, n),
            checks=is_test_runner(self._environ, sys.modules.get("__main__")),
            clock=self._clock,
            disk=self._disk,
        )
        self._first_events.append(events)  # Of two threads at once one is the first, and holds for both.
        self._events = self._first_events[0]
        if self._events is events:
            events.end_with_the_process()
        return self._events

    def _session_terms(self, now: float) -> dict[str, str] | None:
        """What a session that begins now is begun under; None in mode *off*."""
        decision = self._decide()
        if decision.mode == "off":
            return None
        # Whoever removes what was logged may remove the folder with it.
        self._is_set_up = self._is_set_up and self._disk.exists(self._directory.events)
        self._set_up(now)
        self._start_uploader(now)
        return {"mode": decision.line, "declaration": self._declaration_key, "app": self.application, **self._program()}

    def _program(self) -> dict[str, str]:
        return {"program": self.program, "version": self.version, **_platform()}

    def _change_mode(self) -> None:
        self._recorder.change_file()
        if self._events is not None:
            self._events.change_session()

    def _decide(self) -> Decision:
        from .consent import SYSTEM_FILE, decide, is_test_runner

        return decide(
            default=self._default,
            system_file=self._said(SYSTEM_FILE),
            environ=self._environ,
            test_runner=is_test_runner(self._environ, sys.modules.get("__main__")),
            mode_file=self._said(self._directory.mode),
            consent_version=None,
        )

    def _said(self, path: str) -> str | None:
        # What cannot be read just now (no descriptors left) is no answer yet: the process counts in memory and asks
        # again, and what it counted meanwhile goes where that answer says.
        try:
            return self._disk.read(path).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _set_up(self, now: float) -> None:
        """Make the state directory if need be, and keep what the commands need to know of this run."""
        from .disk import text_of
        from .state_directory import README

        made = not self._disk.exists(self._directory.counts)
        if self._is_set_up and not made and self._has_declaration():
            return
        self._disk.make_folder(self._directory.path)
        if not self._disk.is_ours(self._directory.path):
            raise NoStateDirectory(self._directory.path, "it belongs to another user")
        for folder in self._directory.folders():
            self._disk.make_folder(folder)
        declaration = self._declaration_text()
        self._declaration_key = _declaration_key(declaration)
        if declaration is not None:
            path = self._directory.declaration(self._declaration_key)
            if not self._disk.exists(path):
                self._disk.create(path, declaration)
        last_run = (
            f"application={self.application}\nprogram={self.program}\nversion={self.version}\n"
            f"endpoint={self._endpoint or ''}\ndeclaration={self._declaration_key}\n"
        )
        if text_of(self._disk, self._directory.last_run) != last_run:
            self._disk.replace(self._directory.last_run, last_run.encode(), durable=False)
        if made:
            readme = README.format(application=self.application)
            self._disk.replace(self._directory.readme, readme.encode(), durable=False)
            self._disk.replace(self._directory.not_before, f"{now + 86400:.0f}\n".encode(), durable=False)
            self._first_day_ends = now + 86400
        self._is_set_up = True

    def _has_declaration(self) -> bool:
        # One that nothing lies under any more is swept, and a process may be idle for longer than that takes.
        key = self._declaration_key
        return key == "none" or self._disk.exists(self._directory.declaration(key))

    def _declaration_text(self) -> bytes | None:
        if self._declaration is None:
            return None
        try:
            return self._disk.read(_declaration_path(self._declaration))
        except (OSError, ImportError):
            return None

    def _packages(self, stack: str) -> frozenset[str]:
        """The packages whose frames a stack may tell: those that the declaration names for it."""
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib

        content = self._declaration_text()
        try:
            declared = tomllib.loads(content.decode())["stacks"][stack]["packages"] if content is not None else ()
            return frozenset(declared)
        except (KeyError, TypeError, ValueError):
            return frozenset()

    def _start_uploader(self, now: float) -> None:
        if now < self._first_day_ends:
            return  # The process that made the state directory starts nothing, until there may be something to post.
        from .uploads.start import start

        self._not_started = start(
            self._uploader, self._directory, now=now, disk=self._disk, environ=self._environ, work=self._work
        )

    def _work(self) -> None:
        # In the uploader's thread: loading this takes a while, and the first count must not wait for it.
        self._daily().upload_if_due()

    def _before_fork(self) -> None:
        # Python's lock of a module that another thread is loading stays locked in the child: who needs the module there
        # waits for ever. Not for as long as it takes, since whoever forks may hold a lock that the other one needs.
        pause = 0.001
        for _ in range(int(limits.fork_seconds_max / pause)):
            if not _is_loading():
                return
            self._clock.sleep(pause)

    def _after_fork(self) -> None:
        self._recorder.forget_parent()
        self._early, self._is_beginning = [], False
        if self._events is not None:
            self._events.forget_parent()

    def __repr__(self) -> str:
        return f"<Telemetry {self.application} {self.version}>"


def _is_loading() -> bool:
    """Whether a thread is loading a module of ours."""
    locks = getattr(sys.modules["_frozen_importlib"], "_module_locks", ())
    try:
        return any(names.is_within(name, ("tallypost", "tallypost_schema")) for name in tuple(locks))
    except RuntimeError:  # Without a GIL it may change while it is looked at: then somebody is loading something.
        return True


def _require(rule: Callable[[Any], bool], what: str, given: object, allowed: str) -> None:
    try:
        holds = rule(given)
    except (TypeError, AttributeError, ValueError):  # Of another type than the rule is about.
        holds = False
    if not holds:
        raise WrongUse(what, given, allowed)


def _named(event: object, fields: dict[str, Any]) -> tuple[object, dict[str, Any]]:
    """An event that is given as an instance of a dataclass, as a name and fields; anything else as it is."""
    kind = type(event)
    if not hasattr(kind, "__dataclass_fields__"):
        return event, fields
    import dataclasses  # Whose instance it is has loaded it.

    name = getattr(kind, "event_name", None)
    if name is None:
        name = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("-")
    own = {field.name: getattr(event, field.name) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # It is one.
    return name, {**own, **fields}


def _are_edges(edges: tuple[float, ...]) -> bool:
    rising = all(0 < edge < float("inf") for edge in edges) and list(edges) == sorted(edges)
    # Edges that are spelled alike would be one bucket.
    return rising and len(edges) > 0 and len(set(names.histogram_buckets(tuple(edges)))) == len(edges) + 1


def _platform() -> dict[str, str]:
    """What is told of the system: Python's version, the system's and the processor's kind."""
    if sys.platform == "win32":
        arch = os.environ.get("PROCESSOR_ARCHITECTURE", "unknown").lower()
    else:
        arch = os.uname().machine
    return {
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "os": {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform),
        "arch": arch,
    }


def _declaration_key(content: bytes | None) -> str:
    if content is None:
        return "none"
    from zlib import crc32

    return f"{crc32(content):08x}-{len(content)}"


def _declaration_path(declaration: str) -> str:
    """The path of ``package:file``, or the path given. A colon behind one letter is a Windows drive."""
    package, colon, file = declaration.partition(":")
    if not colon or len(package) == 1 or "/" in package or "\\" in package:
        return declaration
    module = sys.modules.get(package)
    origin = getattr(module, "__file__", None)
    if origin is None:
        from importlib.util import find_spec

        spec = find_spec(package)
        origin = spec.origin if spec is not None else None
    if origin is None:
        raise ImportError(f"no package {package}")
    return os.path.join(os.path.dirname(origin), *file.split("/"))
