"""One process's sessions through anything: what the server has of them covers each, and no index has two contents."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from msgspec import UNSET

from tallypost import limits
from tallypost.consent import parse_mode_line
from tallypost.events.catch_up import Terms
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk
from tallypost.uploads import quotas
from tallypost_schema import documents
from tallypost_schema.documents import Batch

from .conftest import APPLICATION, Process
from .test_catch_up import DECLARATION, YES, Killed, Uploader

POINTS = (
    "before_cut",
    "before_pending",
    "after_pending",
    "before_link",
    "after_link",
    "after_cut",
    "before_rename",
    "before_log_removal",
    "before_locks_removal",
)
BEGINS_MAX = 10  # Sessions are named by one letter each.
DAYS_MAX = 15.0  # What follows is about sessions within the horizon.


class TornDisk(FakeDisk):
    """A disk on which an append may take a part of what it is given."""

    torn_at: int | None = None

    def append(self, path: str, content: bytes) -> int:
        """Append all of it, or a part, and fail."""
        if self.torn_at is None:
            return super().append(path, content)
        super().append(path, content[: self.torn_at % len(content)])
        raise OSError(errno.ENOSPC, "No space left on device", path)


class OneLog(RuleBasedStateMachine):
    """A process that logs, uploaders that end anywhere, and a server that keeps what reaches it."""

    @initialize(rules=st.sampled_from(("linux", "linux", "windows", "untrusted")))
    def begin(self, rules: str) -> None:
        self.clock = FakeClock()
        self.disk = TornDisk("windows" if rules == "windows" else "linux", clock=self.clock)
        self.disk.trusted = rules != "untrusted"
        self.directory = StateDirectory("/state", APPLICATION)
        for folder in self.directory.folders():
            self.disk.make_folder(folder)
        self.disk.create(self.directory.declaration("00000000-1"), DECLARATION)
        letters = iter("abcdef0123456789")
        self.new_process: Callable[[], Process] = lambda: Process(
            self.directory, disk=self.disk, clock=self.clock, letters=lambda: next(letters)
        )
        self.begins = self.logged = 0
        self.start()
        self.written: set[int] = set()
        self.maybe_lost: set[int] = set()
        self.maybe_twice: set[int] = set()
        self.server: dict[tuple[str, int], int | None] = {}
        self.covered: dict[str, set[int]] = defaultdict(set)
        self.terminals: dict[str, int] = {}
        self.days = 0.0

    def start(self) -> None:
        self.begins += 1
        self.process = self.new_process()
        self.process.mode = YES
        self.in_hand: set[int] = set()

    def log(self, count: int) -> None:
        for _ in range(count):
            self.process.log(pages=self.logged)
            self.in_hand.add(self.logged)
            self.logged += 1

    def write(self) -> None:
        self.process.write()
        if not self.process.writer._waiting and len(self.process.queue):
            self.process.write()  # What was made again came alone.
        if not self.process.writer._waiting:
            self.written |= self.in_hand
            self.in_hand = set()

    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        """Some events are logged, and written."""
        self.log(count)
        self.write()

    @rule(count=st.integers(1, 4), at=st.integers(1, 600))
    def append_in_part(self, count: int, at: int) -> None:
        """The disk is full in the middle of an append, and the process may end before it is made again."""
        self.log(count)
        if not self.disk.trusted:  # Before it is made again somebody elsewhere may end the session.
            self.maybe_twice |= self.in_hand
        self.disk.torn_at = at
        self.write()
        self.disk.torn_at = None

    @rule()
    def cut(self) -> None:
        """Somebody uploads: what lives is cut, what is over is closed."""
        self.uploader().run()

    @rule()
    def cut_by_its_own_process(self) -> None:
        """As at 256 KiB."""
        session = self.process.writer._session
        if session is not None:
            self.uploader().catch_up.cut(session.id, Terms(parse_mode_line(YES), None))

    @rule(
        point=st.sampled_from(POINTS),
        nth=st.sampled_from((1, 1, 2, 3)),
        then=st.sampled_from(("", "append", "end", "post")),
    )
    def crash_in_a_cut(self, point: str, nth: int, then: str) -> None:
        """The uploader is killed; in that instant something else happens."""
        reached = 0
        self.log(1)
        self.write()

        def happens() -> None:
            nonlocal reached
            reached += 1
            if reached == nth:
                if then == "append":
                    self.log(1)
                    if not self.disk.trusted:  # Silent for two days, and then at the very instant of the removal.
                        self.maybe_lost |= self.in_hand
                    self.write()
                elif then == "end" and self.begins < BEGINS_MAX:
                    self.end_process(kills=True)
                    self.start()
                elif then == "post":
                    self.post(answered=True)
                raise Killed

        self.disk.at(point, happens)
        try:
            self.uploader().run()
        except Killed:
            self.release()
        self.disk.at(point, lambda: None)

    @rule(answered=st.booleans())
    def post(self, answered: bool) -> None:
        """What waits reaches the server; the answer may not come back."""
        pending = self.uploader().pending
        for name in pending.names():
            if pending.is_done(name):
                pending.drop(name)
                continue
            content = pending.read(name)
            self.store(documents.decode_batch(content))
            if answered:
                pending.sent(name, content, b"{}")

    @rule(which=st.integers(0, 9))
    def evict(self, which: int) -> None:
        """A batch that waits gives its events up, as when there are too many."""
        pending = self.uploader().pending
        names = pending.names()
        if names:
            name = names[which % len(names)]
            batch = documents.decode_batch(pending.read(name))
            if not pending.is_done(name):
                self.maybe_lost |= {n for n in map(number, batch.events) if n is not None}
                self.disk.replace(
                    os.path.join(self.directory.pending, name), documents.encode(quotas.without_events(batch))
                )

    @rule(which=st.integers(0, 30), left=st.integers(0, 300), noise=st.sampled_from((b"", b"x", b"\n", b"\xff{", b"0")))
    def damage(self, which: int, left: int, noise: bytes) -> None:
        """A line of a log is damaged, so that it is none any more."""
        for name in self.disk.names(self.directory.events):
            path = os.path.join(self.directory.events, name)
            header, *lines = self.disk.read(path).split(b"\n")
            at = which % (len(lines) or 1)
            if lines and lines[at].endswith(b"}}"):
                self.maybe_lost.add(json.loads(lines[at])["fields"]["pages"])
                lines[at] = lines[at][: left % len(lines[at])] + noise
                modified = self.disk.modified(path)
                self.disk.replace(path, b"\n".join((header, *lines)))
                self.disk._files[path].modified = modified

    @precondition(lambda self: self.begins < BEGINS_MAX)
    @rule(kills=st.booleans())
    def end(self, kills: bool) -> None:
        """The process ends, one way or the other, and there is another one."""
        self.end_process(kills=kills)
        self.start()

    @precondition(lambda self: self.days < DAYS_MAX)
    @rule(days=st.sampled_from((0.1, 1.0, 2.5)))
    def sleep(self, days: float) -> None:
        """The machine sleeps, its processes with it."""
        self.days += days
        self.clock.sleep(days * 86_400)

    def teardown(self) -> None:
        if not hasattr(self, "disk"):
            return
        self.end_process(kills=False)
        self.clock.sleep(limits.written_silence_seconds)
        self.uploader().run()
        self.post(answered=True)
        assert [] == self.disk.names(self.directory.events)
        for session, covered in self.covered.items():
            assert set(range(self.terminals[session] + 1)) == covered
        seen = Counter(n for n in self.server.values() if n is not None)
        assert {n for n, times in seen.items() if times > 1} <= self.maybe_twice
        assert self.written - self.maybe_lost <= set(seen)

    def end_process(self, *, kills: bool) -> None:
        session, lost = self.process.writer._session, self.process.lost
        if not kills:
            self.process.writer.end_session()
            if self.process.lost == lost:
                self.written |= self.in_hand
        elif session is not None:
            session.end()
        self.in_hand = set()

    def release(self) -> None:
        """What the kernel does for an uploader that was killed."""
        session = self.process.writer._session
        own = self.directory.session_lock(session.id) if session is not None else None
        for path, file in self.disk._files.items():
            if path.startswith(self.directory.private) and file.lock.locked() and path != own:
                file.lock.release()

    def uploader(self) -> Uploader:
        return Uploader(self.directory, disk=self.disk, clock=self.clock)

    def store(self, batch: Batch) -> None:
        if batch.terminal is not None:
            assert batch.terminal == self.terminals.setdefault(batch.session, batch.terminal)
        self.covered[batch.session] |= set(range(batch.first, batch.last + 1))
        for place, event in enumerate(batch.events):
            key = batch.session, batch.first + batch.lost + place
            assert self.server.setdefault(key, number(event)) == number(event), "an index has two contents"


def number(event: documents.Event) -> Any:
    """What tells one event from all others."""
    return None if event.fields is UNSET else event.fields.get("pages")


def simulate(examples: int) -> None:
    """Run so many of them, the same ones each time."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # So it is in hypothesis.
        OneLog,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate,),  # Its shortening takes minutes; the whole story is printed.
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_session_through_anything_is_covered_and_says_nothing_twice() -> None:
    """Appends, half of them at times, cuts that are killed anywhere, evictions, damage, posts without an answer."""
    simulate(200)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_session_through_anything_for_long_is_covered_and_says_nothing_twice() -> None:
    """The same, many times over."""
    simulate(5_000)


def test_session_of_more_batches_than_wait_is_covered_by_what_is_lost_of_it() -> None:
    """A process that logs for weeks without a network: the oldest batches give their events up, and tell so."""
    world = OneLog()
    world.begin(rules="linux")
    cuts = limits.pending_batches_max + 30
    for _ in range(cuts):
        world.append(count=1)
        world.cut()
        world.clock.sleep(60)
    world.end_process(kills=True)
    world.cut()

    world.post(answered=True)

    session = "a" * 32
    assert cuts - 1 == world.terminals[session]
    assert set(range(cuts)) == world.covered[session]
    assert set(range(30, cuts)) <= {index for _, index in world.server}
    assert cuts > len(world.server)
