"""Room among the documents that wait: what goes, what stays, what the server is told, and what a post sees of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from tallypost import limits
from tallypost.errors import NoAnswer
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk, FakeTransport
from tallypost.uploads.manager import State, UploadManager
from tallypost.uploads.pending import Pending
from tallypost.uploads.transport import Answer
from tallypost.uploads.worker import Session, UploadWorker
from tallypost_schema import documents
from tallypost_schema.documents import Batch, Event, Program

YES = "on 2026-11-18 1 user"
PROGRAM = Program("mytool", "1.2.3", "3.12", "linux", "x86_64")
SESSION = "ab" * 16
Make = Callable[..., bytes]


class Stop(Exception):
    """The end of the process, as far as the disk can tell."""


def stop() -> None:
    raise Stop


def batch(
    first: int, events: int = 1, *, session: str = SESSION, terminal: int | None = None, filled: int = 0
) -> bytes:
    """A batch; `filled` makes it so many KiB larger."""
    words = [Event("export", "2026-11-19T10:00:00Z", {f"w{n}": "x" * 180 for n in range(5)})] * filled
    told = [*words, *[Event()] * (events - len(words))]
    return documents.encode(Batch(1, "events", "example.org/mytool", session, first, 0, terminal, PROGRAM, told))


def session_of(n: int) -> str:
    """The name of a session, in no order of time."""
    return f"{(n + 1) * 7919 % 100_003:032x}"


class Room:
    """One state directory in memory, as its processes see it."""

    def __init__(self, directory: StateDirectory, clock: FakeClock) -> None:
        self.directory, self.clock = directory, clock
        self.disk = FakeDisk(clock=clock)
        for folder in directory.folders():
            self.disk.make_folder(folder)
        self.pending = Pending(directory, disk=self.disk)
        self.transport = FakeTransport()

    def record(self, first: int, events: int = 1, *, session: str = SESSION, **more: int) -> str:
        name = f"{session}.{first}.json"
        self.clock.sleep(1)
        assert Pending(self.directory, disk=self.disk).record(name, batch(first, events, session=session, **more), YES)
        return name

    def fill(self, count: int = limits.pending_batches_max) -> list[str]:
        """As many batches of one event as make room for none, each of a session of its own."""
        return [self.record(0, session=session_of(n)) for n in range(count)]

    def waiting(self, name: str) -> Batch:
        return documents.decode_batch(self.pending.read(name))

    def lost(self) -> list[str]:
        return [name for name in self.pending.names() if not self.waiting(name).events]

    def work(self, transport: FakeTransport | None = None, disk: FakeDisk | None = None) -> Session:
        pending = Pending(self.directory, disk=disk or self.disk)
        self.state = State()
        manager = UploadManager(self.state, now=self.clock.now, draw=lambda: 0.5, save=lambda state: None)
        pending.observe(manager.document_recorded)
        pending.scan()
        worker = UploadWorker(
            manager,
            pending,
            endpoint="https://host.example",
            transport=transport or self.transport,
            gate=lambda name: None,
            clock=self.clock,
        )
        return worker.work(self.clock.now() + 60)

    def content(self, folder: str, name: str) -> bytes:
        return self.disk.read(os.path.join(getattr(self.directory, folder), name))

    def accounted(self, session: str = SESSION) -> set[int]:
        """The indexes of a session of which a document of any folder tells, lost or not."""
        found: set[int] = set()
        for folder in (self.directory.pending, self.directory.sent):
            for name in self.disk.names(folder):
                if name.startswith(session) and name.count(".") == 2:
                    one = documents.decode_batch(self.disk.read(os.path.join(folder, name)))
                    found |= set(range(one.first, one.last + 1))
        return found


@pytest.fixture
def room(directory: StateDirectory, clock: FakeClock) -> Room:
    """A state directory in which nothing waits."""
    return Room(directory, clock)


# -------------------------------------------------------------------- reports


def test_record_of_a_report_over_the_quota_evicts_the_oldest(room: Room, document: Make) -> None:
    """Forty days wait; a day more, and the first is refused under its own name, with a reason."""
    days = [f"2026-{month:02}-{day:02}" for month in (9, 10) for day in range(1, 22)][:41]
    for day in days:
        assert room.pending.record(f"{day}.json", document(day), YES)

    assert [f"{day}.json" for day in days[1:]] == room.pending.names()
    assert document(days[0]) == room.content("refused", f"{days[0]}.json")
    reason = room.pending.reason(f"{days[0]}.json")
    assert reason is not None
    assert "evicted" == reason["reason"]
    assert {"evicted-reports": 1} == room.pending.losses()
    assert not room.pending.record(f"{days[0]}.json", document(days[0]), YES)


def test_record_of_any_number_of_batches_evicts_no_report(room: Room, document: Make) -> None:
    """A program that is loud with events does not cost the counts of anybody."""
    days = [f"2026-10-{day:02}.json" for day in range(1, 31)]
    for day in days:
        room.pending.record(day, document(day.removesuffix(".json")), YES)

    room.fill(limits.pending_batches_max + 20)

    assert days == room.pending.names()[:30]
    assert room.pending.losses() == {"lost-events": 20}


def test_record_of_reports_for_years_without_an_uploader_keeps_refused_small(room: Room, document: Make) -> None:
    """Nothing grows without bound, also where nobody ever uploads."""
    for year in range(2001, 2007):
        for month in range(1, 13):
            for day in range(1, 9):
                room.pending.record(f"{year}-{month:02}-{day:02}.json", document(), YES)

    assert limits.pending_reports_max == len(room.pending.names())
    assert 2 * limits.refused_documents_kept == len(room.disk.names(room.directory.refused))
    assert limits.pending_reports_max == len(room.disk.names(room.directory.begins))


# -------------------------------------------------------------------- batches


def test_record_over_the_number_evicts_the_oldest_batch_under_its_own_name(room: Room) -> None:
    """Of its events only their indexes are left, and its session's end; its yes and all others stay as they are."""
    first = room.record(4, 3, terminal=6)
    others = room.fill(limits.pending_batches_max)

    assert [first] == room.lost()
    assert batch(4, 3, terminal=6) != room.pending.read(first)
    lost = room.waiting(first)
    assert (4, 3, 6, []) == (lost.first, lost.lost, lost.terminal, lost.events)
    assert YES == room.pending.begun_under(first)
    assert set(others) | {first} == set(room.pending.names())
    assert [] == room.disk.names(room.directory.refused)


def test_record_over_the_bytes_evicts_the_oldest_batches(room: Room) -> None:
    """However few they are: ten MiB wait, no more."""
    names = [room.record(0, 1000, session=session_of(n), filled=1000) for n in range(12)]
    size = len(room.pending.read(names[-1]))

    kept = limits.pending_batches_bytes_max // size

    assert kept < 12
    assert set(names[: 12 - kept]) == set(room.lost())


def test_record_over_the_quota_goes_by_age_and_not_by_name(room: Room) -> None:
    """The name of a session tells no time: what was recorded first goes first."""
    late = room.record(0, session="00" * 16)
    names = room.fill(limits.pending_batches_max + 4)

    assert {late, *names[:4]} == set(room.lost())


def test_names_are_reports_by_day_then_batches_by_age(room: Room, document: Make) -> None:
    """What is posted first, and shown first, is what waits longest; a name that only looks like one harms nobody."""
    second = room.record(0, session="ff" * 16)
    third = room.record(10, session="00" * 16)
    fourth = room.record(9, session="00" * 16)
    room.disk.write(os.path.join(room.directory.pending, "ab" * 16 + ".².json"), b"")
    room.pending.record("2026-11-19.json", document(), YES)

    assert ["2026-11-19.json", second, third, fourth] == room.pending.names()


def test_scan_makes_room_before_it_tells(room: Room) -> None:
    """What a version with larger quotas left, or a process that ended before it made room, is put in order at start."""
    for n in range(limits.pending_batches_max + 5):
        room.disk.write(
            os.path.join(room.directory.pending, f"{session_of(n)}.0.json"), batch(0, session=session_of(n))
        )
    heard: list[str] = []
    room.pending.observe(heard.append)

    room.pending.scan()

    assert 5 == len(room.lost())
    assert room.pending.names() == heard


def test_eviction_of_what_is_no_batch_refuses_it(room: Room) -> None:
    """A damaged document tells no range: it goes as unreadable, and the others are evicted as they should be."""
    name = f"{'cd' * 16}.0.json"
    room.pending.record(name, b"{" * 99, YES)
    room.clock.sleep(1)
    second = room.record(0)

    room.fill(limits.pending_batches_max)

    assert {"reason": "unreadable", "message": "it is not a document"} == room.pending.reason(name)
    assert [second] == room.lost()


def test_eviction_on_a_full_disk_is_done_later(room: Room) -> None:
    """What is recorded is recorded; room is made when the disk takes it."""
    room.fill()
    room.disk.at("after_pending", lambda: room.disk.fail(OSError(28, "No space left on device")))

    assert room.record(0)

    assert [] == room.lost()
    room.disk.fail(None)
    room.pending.make_room()
    assert 1 == len(room.lost())


# -------------------------------------------------------------------- lost ranges


def test_eviction_of_consecutive_batches_leaves_one_lost_range(room: Room) -> None:
    """A session that goes on for weeks without a network waits as one small batch, and each name stays taken."""
    names = [room.record(first, 10) for first in range(0, 60, 10)]
    room.fill(limits.pending_batches_max)

    assert names[:1] == room.lost()
    assert (0, 60) == (room.waiting(names[0]).first, room.waiting(names[0]).lost)
    assert {"merged"} == {(room.pending.reason(name) or {})["reason"] for name in names[1:]}
    assert {"lost-events": 60} == room.pending.losses()
    assert not room.pending.record(names[3], batch(30, 10), YES)


def test_eviction_keeps_lost_ranges_apart_that_something_lies_between(room: Room) -> None:
    """What was posted in the middle stays the server's: only what is lost is told as lost."""
    first, middle, last = room.record(0, 5), room.record(5, 5), room.record(10, 5, terminal=14)
    room.pending.sent(middle, batch(5, 5), b"{}")
    room.fill(limits.pending_batches_max)

    assert {first, last} == set(room.lost())
    assert set(range(15)) == room.accounted()


def test_eviction_of_sessions_without_end_keeps_their_number(room: Room) -> None:
    """A machine without a network for ever: so many small batches wait, and the oldest whole sessions go unheard."""
    known = room.record(1, 1)
    for n in range(limits.pending_lost_batches_max + 5):
        session = session_of(n)
        content = batch(0, 0, session=session).replace(b'"lost":0,"terminal":null', b'"lost":2,"terminal":1')
        room.disk.write(os.path.join(room.directory.pending, f"{session}.0.json"), content)
        room.clock.sleep(1)
    room.disk.write(os.path.join(room.directory.pending, known), room.pending.read(known))
    quiet = room.disk.names(room.directory.pending)

    room.pending.make_room()

    assert limits.pending_lost_batches_max + 1 == len(room.pending.names())
    assert {f"{session_of(n)}.0.json" for n in range(5)} == set(quiet) - set(room.pending.names())
    assert {"reason": "evicted"}.items() <= (room.pending.reason(f"{session_of(0)}.0.json") or {}).items()


def test_eviction_through_weeks_has_every_index_of_a_session_told(room: Room) -> None:
    """Two sessions log in turn, one document in three is posted: what is lost is told, nothing is left out."""
    other = "cd" * 16
    for turn in range(220):
        for session in (SESSION, other):
            name = room.record(turn * 3, 3, session=session)
            if turn % 3 == 1:
                room.pending.sent(name, room.pending.read(name), b"{}")

    waiting = room.pending.names()
    assert limits.pending_batches_max >= len([name for name in waiting if room.waiting(name).events])
    # Of what was sent the newest are kept; the others are at the server.
    sent = set(range(660)) - {index for turn in range(220) if turn % 3 != 1 for index in range(turn * 3, turn * 3 + 3)}
    for session in (SESSION, other):
        assert set(range(660)) == room.accounted(session) | sent


@pytest.mark.parametrize(
    "point", ["before_evicted", "after_evicted", "before_merged", "before_rename", "before_refused", "after_refused"]
)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_eviction_ended_anywhere_is_completed_by_the_next(
    room: Room, directory: StateDirectory, clock: FakeClock, point: str, times: int
) -> None:
    """A process killed at any step leaves whole documents, every index told, and nothing that the next cannot do."""
    names = [room.record(first, 10) for first in range(0, 40, 10)]
    clock.sleep(1)
    for n in range(limits.pending_batches_max):
        room.disk.write(os.path.join(directory.pending, f"{session_of(n)}.0.json"), batch(0, session=session_of(n)))
    seen = 0

    def stop_then() -> None:
        nonlocal seen
        seen += 1
        if seen == times:
            raise Stop

    room.disk.at(point, stop_then)
    with pytest.raises(Stop):
        room.pending.make_room()
    room.disk.at(point, lambda: None)

    assert set(range(40)) == room.accounted()
    again = Pending(directory, disk=room.disk)
    again.scan()
    assert set(range(40)) == room.accounted()
    assert names[:1] == room.lost()
    assert {"lost-events": 40} == again.losses()
    assert names[1:] == [name for name in names if room.disk.exists(os.path.join(directory.refused, name))]
    assert names[:1] == room.disk.names(directory.begins)


@pytest.mark.parametrize("word", ["a no", "a receipt"])
def test_eviction_that_meets_a_word_about_the_document_lets_it_stand(room: Room, word: str) -> None:
    """Withdrawn, or stored by another host, in the very instant: nothing comes back to wait."""
    name = room.record(0, 3)
    content = room.pending.read(name)
    happens = {
        "a no": lambda: room.pending.withdraw("withdrawn", "a no"),
        "a receipt": lambda: room.pending.sent(name, content, b"{}"),
    }
    room.disk.at("before_evicted", happens[word])
    room.fill(limits.pending_batches_max)

    assert name not in room.pending.names()
    assert content == room.content("refused" if word == "a no" else "sent", name)


# -------------------------------------------------------------------- when eviction and a post meet


class DuringPost(FakeTransport):
    """A server during whose first answer something happens on the user's machine."""

    def __init__(self, happens: Callable[[], object], answer: Answer | NoAnswer | None = None) -> None:
        super().__init__()
        self._happens = [happens]
        if answer is not None:
            self.answers = [answer, *[NoAnswer("down")] * 5]

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Have it happen, then answer."""
        while self._happens:
            self._happens.pop()()
        return super().post(url, body, encoding)


class Unheard:
    """A lock that keeps nobody out."""

    def release(self) -> None:
        """Give it up."""


class DeafDisk(FakeDisk):
    """A disk whose locks nobody hears: two hosts on a network file system."""

    def try_lock(self, path: str) -> Any:
        """A lock for everybody who asks."""
        return Unheard()


def posted(transport: FakeTransport) -> list[bytes]:
    """The documents that went out."""
    return [zstandard.ZstdDecompressor().decompress(body) for _, _, body in transport.posted]


def test_eviction_during_a_post_waits_for_its_end(room: Room) -> None:
    """What is under way is not touched, though others record far beyond the quota; then room is made."""
    name = room.record(0, 3)
    content = room.pending.read(name)
    beyond: list[list[str]] = []

    def others_record() -> None:
        room.fill(limits.pending_batches_max + 5)
        beyond.append(room.lost())
        assert content == room.pending.read(name)

    transport = DuringPost(others_record, NoAnswer("down"))

    room.work(transport)

    assert [[]] == beyond
    assert [content] == posted(transport)
    assert 6 == len(room.lost())
    assert 3 == room.waiting(name).lost


def test_post_while_room_is_made_waits_for_its_end(room: Room) -> None:
    """The worker reads a document only when nobody evicts, so that it never posts what was replaced."""
    name = room.record(0, 3)
    evictor = Pending(room.directory, disk=room.disk)
    held = evictor.hold()
    assert held is not None
    looks = 0
    sleep = room.clock.sleep

    def evict_at_the_third_look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        sleep(seconds)
        if looks == 3:
            room.disk.write(os.path.join(room.directory.pending, name), documents.encode(lost))
            held.release()

    lost = documents.decode_batch(batch(0, 3))
    lost = Batch(1, "events", lost.app, lost.session, 0, 3, None, PROGRAM, [])
    room.clock.sleep = evict_at_the_third_look  # type: ignore[method-assign]  # The clock is the test's own.

    room.work()

    assert 3 == looks
    assert [documents.encode(lost)] == posted(room.transport)
    assert documents.encode(lost) == room.content("sent", name)


def test_post_that_may_not_begin_before_the_time_is_up_is_none(room: Room) -> None:
    """An evictor that hangs holds nobody up for longer than a run, and nothing counts as posted."""
    name = room.record(0, 3)
    held = room.pending.hold()

    session = room.work()

    assert held is not None
    assert (0, "the time for one run is up", True) == (session.sent, session.why, session.left)
    assert [] == room.state.posts
    assert [] == room.transport.posted
    assert [name] == room.pending.names()


def test_eviction_during_a_post_where_no_lock_is_heard_leaves_sent_what_left(
    room: Room,
) -> None:
    """Between two hosts without locks: what left lies in ``sent/`` as it left, and its replacement waits no more."""
    room.disk.__class__ = DeafDisk
    name = room.record(0, 3)
    content = room.pending.read(name)
    seen: list[list[str]] = []

    def other_host() -> None:
        room.fill(limits.pending_batches_max)
        seen.append(room.lost())

    transport = DuringPost(other_host)
    transport.answers = []

    room.work(transport)

    assert [[name]] == seen
    assert content == posted(transport)[0]
    assert content == room.content("sent", name)
    assert name not in room.pending.names()
    assert content not in posted(transport)[1:]


def test_eviction_during_a_post_in_vain_where_no_lock_is_heard_has_the_replacement_posted(room: Room) -> None:
    """Without a receipt the lost range waits in its place, and from then on only that is posted."""
    room.disk.__class__ = DeafDisk
    name = room.record(0, 3)
    content = room.pending.read(name)
    transport = DuringPost(lambda: room.fill(limits.pending_batches_max), NoAnswer("down"))

    room.work(transport)
    replaced = room.pending.read(name)
    again = FakeTransport()
    room.work(again)
    room.work(again)

    assert content == posted(transport)[0]
    assert b'"lost":3' in replaced
    assert content not in posted(again)


# -------------------------------------------------------------------- what is kept, what is told


def test_retain_keeps_reports_and_batches_by_their_own_number(room: Room, document: Make) -> None:
    """A hundred batches do not push a day's name out, under which it could be made again; the newest of both stay."""
    days = [f"2026-11-0{n}.json" for n in range(1, 6)]
    for day in days:
        room.pending.record(day, document(), YES)
        room.pending.sent(day, document(), b"{}")
    names = [room.record(0, session=session_of(n)) for n in range(20)]
    for name in names:
        room.clock.sleep(1)
        room.pending.sent(name, room.pending.read(name), b"{}")

    room.pending.retain(3, 3)

    kept = [name for name in room.disk.names(room.directory.sent) if "receipt" not in name]
    assert {*days[2:], *names[-3:]} == set(kept)
    assert 12 == len(room.disk.names(room.directory.sent))


def test_losses_are_counted_where_they_lie_and_once(room: Room, document: Make) -> None:
    """Lost ranges that wait, were sent or were refused; what cannot be read is no number."""
    assert {} == room.pending.losses()
    for n, place in enumerate(["pending", "sent", "refused", "merged", "damaged"]):
        name = room.record(0, session=session_of(n))
        content = b"{" if place == "damaged" else batch(0, 0, session=session_of(n)).replace(b'"lost":0', b'"lost":5')
        room.disk.write(os.path.join(room.directory.pending, name), content)
        if place == "sent":
            room.pending.sent(name, content, b"{}")
        elif place in ("refused", "merged"):
            room.pending.refused(name, "evicted" if place == "refused" else place, "why")
    room.pending.record("2026-11-19.json", document(), YES)
    room.pending.refused("2026-11-19.json", "withdrawn", "a no")

    assert {"lost-events": 15} == room.pending.losses()
