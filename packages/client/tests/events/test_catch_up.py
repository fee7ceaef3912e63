from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import UNSET

from tallypost import limits
from tallypost.consent import parse_mode_line
from tallypost.events.catch_up import CatchUp, Terms
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk
from tallypost.uploads.pending import Pending
from tallypost_schema import documents
from tallypost_schema.documents import Batch

from .conftest import Process

Logged = Callable[[], dict[str, list[dict[str, Any]]]]
YES = "on 2026-11-19 1 user"
DECLARATION = b"""
application = "example.org/mytool"
consent_version = 1
[events.export]
why = "-"
owner = "-"
expires = "never"
fields = { format = ["pdf", "html"], pages = "count" }
[events.opened]
why = "-"
owner = "-"
expires = "never"
"""


class Killed(BaseException):
    """The uploader ends here."""


class Uploader:
    """Cuts and closes into the pending database, and hands everything in it over to a server that keeps it."""

    def __init__(self, directory: StateDirectory, *, disk: FakeDisk, clock: FakeClock) -> None:
        self.directory, self.disk = directory, disk
        self.pending = Pending(directory, disk=disk)
        self.hides_documents = False
        self.catch_up = CatchUp(directory, record=self.pending.record, known=self._known, disk=disk, clock=clock)

    def run(self, mode: str = YES) -> None:
        """Catch up."""
        self.catch_up.run(Terms(parse_mode_line(mode), None))

    def batches(self) -> list[Batch]:
        """What waits to be posted."""
        return [documents.decode_batch(self.pending.read(name)) for name in self.pending.names()]

    def _known(self, name: str) -> bytes | None:
        for folder in (self.directory.pending, self.directory.sent, self.directory.refused):
            if not self.hides_documents and self.disk.exists(os.path.join(folder, name)):
                return self.disk.read(os.path.join(folder, name))
        return None


@pytest.fixture
def uploader(directory: StateDirectory, disk: FakeDisk, clock: FakeClock) -> Uploader:
    """An uploader of this state directory, whose declaration is kept there."""
    disk.create(directory.declaration("00000000-1"), DECLARATION)
    return Uploader(directory, disk=disk, clock=clock)


@pytest.fixture
def process(new_process: Callable[[], Process]) -> Process:
    """A process that began after the yes."""
    process = new_process()
    process.mode = YES
    return process


def covered(batches: list[Batch]) -> list[tuple[int, str | None]]:
    """Index and name of every event, each batch's in its place; no index twice."""
    found: dict[int, str | None] = {}
    for batch in batches:
        for place, event in enumerate(batch.events):
            index = batch.first + batch.lost + place
            assert index not in found
            found[index] = None if event.name is UNSET else event.name
    return sorted(found.items())


def test_session_that_lives_is_cut_and_goes_on(process: Process, uploader: Uploader, logged: Logged) -> None:
    """What was logged is a document; what comes then has the next index."""
    process.log()
    process.log("opened")
    process.write()

    uploader.run()
    process.log(pages=3)
    process.write()
    uploader.run()

    assert [(0, "export"), (1, "opened"), (2, "export")] == covered(uploader.batches())
    assert [None, None] == [batch.terminal for batch in uploader.batches()]
    assert [3] == [line["first"] for line in logged()["a"]]


def test_session_that_is_over_is_closed(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """Its last batch has the terminal index; log and locks are gone."""
    process.log()
    process.log("opened")
    process.writer.end_session()

    uploader.run()

    assert [(0, "export"), (1, "opened")] == covered(uploader.batches())
    assert [1] == [batch.terminal for batch in uploader.batches()]
    assert [] == disk.names(directory.events) + disk.names(directory.sessions)


def test_session_that_is_over_and_was_cut_before_is_closed_without_an_event(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """The log holds nothing but its header, and the server still waits for the end."""
    process.log()
    process.write()
    uploader.run()
    process.writer.end_session()

    uploader.run()

    assert [(0, None), (1, 0)] == [(batch.first, batch.terminal) for batch in uploader.batches()]
    assert [] == disk.names(directory.events)


def test_session_without_events_is_never_sent(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """A process whose events all did not fit leaves nothing."""
    process.log("unknown")
    process.writer.end_session()

    uploader.run()

    assert [] == uploader.batches()
    assert [] == disk.names(directory.events) + disk.names(directory.sessions)


@pytest.mark.parametrize(
    ("began", "saved"),
    [
        ("local 2026-11-19 1 user", YES),
        ("on 2026-11-18 1 user", YES),
        ("on 2026-11-20 1 user", "on 2026-11-20 1 user"),
        (YES, "local 2026-11-20 1 user"),
        (YES, "off 2026-11-20 1 user"),
        ("on 2026-11-19 1 application", YES),
    ],
    ids=["before the yes", "under another yes", "on its day", "local now", "off now", "said by another"],
)
def test_session_that_may_not_leave_stays_for_the_user(
    new_process: Callable[[], Process], uploader: Uploader, logged: Logged, began: str, saved: str
) -> None:
    """It is never cut, whether it is over or not."""
    process = new_process()
    process.mode = began
    process.log()
    process.write()
    before = logged()

    uploader.run(saved)
    process.writer.end_session()
    uploader.run(saved)

    assert [] == uploader.batches()
    assert before == logged()


def test_session_whose_declaration_asks_for_a_newer_consent_stays(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """The yes was to less."""
    newer = DECLARATION.replace(b"consent_version = 1", b"consent_version = 2")
    disk.replace(directory.declaration("00000000-1"), newer)
    process.log()
    process.writer.end_session()

    uploader.run()

    assert [] == uploader.batches()


def test_session_older_than_the_horizon_stays(process: Process, uploader: Uploader, clock: FakeClock) -> None:
    """Nothing made more than 21 days ago is posted."""
    process.log()
    process.writer.end_session()
    clock.set("2026-12-12T12:00:00Z")

    uploader.run()

    assert [] == uploader.batches()


@pytest.mark.parametrize("point", ["before_cut", "before_pending", "after_pending", "after_cut", "before_rename"])
@pytest.mark.parametrize("ends", [False, True], ids=["living", "over"])
@pytest.mark.parametrize("more", [False, True], ids=["as it was", "grown"])
def test_uploader_killed_anywhere_is_completed_by_the_next(
    process: Process,
    uploader: Uploader,
    disk: FakeDisk,
    directory: StateDirectory,
    clock: FakeClock,
    point: str,
    ends: bool,
    more: bool,
) -> None:
    """Each index is in one document, and the session's end is told once, however far the first one came."""
    process.log()
    process.log("opened")
    process.write()
    if ends:
        process.writer.end_session()
    disk.at(point, _killed)
    try:
        uploader.run()
    except Killed:
        disk.at(point, lambda: None)
        _release_all(disk, keep=process)
    if more and not ends:
        process.log(pages=2)
        process.write()
    if not ends:
        process.writer.end_session()

    again = Uploader(directory, disk=disk, clock=clock)
    again.run()
    again.run()

    expected = [(0, "export"), (1, "opened")] + ([(2, "export")] if more and not ends else [])
    assert expected == covered(again.batches())
    assert [expected[-1][0]] == [batch.terminal for batch in again.batches() if batch.terminal is not None]
    assert [] == disk.names(directory.events)


def test_uploader_killed_after_the_last_batch_closes_the_session_once(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory, clock: FakeClock
) -> None:
    """The document has the end already; only the log is left to be removed."""
    process.log()
    process.writer.end_session()
    disk.at("before_log_removal", _killed)
    with pytest.raises(Killed):
        uploader.run()
    disk.at("before_log_removal", lambda: None)
    _release_all(disk, keep=None)

    Uploader(directory, disk=disk, clock=clock).run()

    assert [(0, 0)] == [(batch.first, batch.terminal) for batch in uploader.batches()]
    assert [] == disk.names(directory.events)


def test_log_that_cannot_be_read_now_is_not_closed(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """No descriptors left is no reason to remove what was logged."""

    class Unreadable(FakeDisk):
        fails = False

        def read(self, path: str) -> bytes:
            if self.fails and path.endswith(".jsonl"):
                raise OSError(24, "Too many open files")
            return super().read(path)

    process.log()
    process.writer.end_session()
    disk.__class__ = Unreadable
    disk.fails = True  # type: ignore[attr-defined]  # Of the class above.
    uploader.run()
    disk.fails = False  # type: ignore[attr-defined]  # As above.

    uploader.run()

    assert [(0, "export")] == covered(uploader.batches())


def test_log_with_a_damaged_header_stays_and_hinders_no_other(
    new_process: Callable[[], Process], uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """Whose events they are nobody can say; the next session is cut."""
    for _ in range(2):
        process = new_process()
        process.mode = YES
        process.log()
        process.writer.end_session()
    disk.replace(directory.session_log("a" * 32), b"noise\n")

    uploader.run()

    assert ["b" * 32] == [batch.session for batch in uploader.batches()]
    assert ["a" * 32 + ".jsonl"] == disk.names(directory.events)


def test_logs_that_stay_are_kept_by_number(uploader: Uploader, disk: FakeDisk, directory: StateDirectory) -> None:
    """The newest by when they were written to; a living session's is not counted."""
    for n in range(limits.session_logs_kept + 3):
        disk.create(directory.session_log(f"{n:032x}"), b"noise\n")
        disk._now = lambda n=n: float(n)  # type: ignore[misc]  # Each is written a second later.
    living = disk.try_lock(directory.session_lock(f"{0:032x}"))

    uploader.run()

    assert living is not None
    kept = {name.removesuffix(".jsonl") for name in disk.names(directory.events)}
    assert limits.session_logs_kept + 1 == len(kept)
    assert f"{0:032x}" in kept
    assert f"{1:032x}" not in kept


def test_session_that_may_have_an_owner_elsewhere_is_left_until_it_was_silent(
    process: Process, uploader: Uploader, disk: FakeDisk, clock: FakeClock
) -> None:
    """Two hosts share a directory, where locks are not heard by both."""
    disk.trusted = False
    process.log()
    process.write()
    uploader.run()
    assert [] == uploader.batches()
    clock.sleep(limits.written_silence_seconds)

    uploader.run()

    assert [0] == [batch.terminal for batch in uploader.batches()]


def test_session_that_was_cut_to_its_end_and_lived_for_weeks_is_closed(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory, clock: FakeClock
) -> None:
    """A server's process lives longer than the horizon: its session's age is that of its last event, not its first."""
    process.log()
    process.write()
    clock.set("2026-12-10T12:00:00Z")
    process.log()
    process.write()
    uploader.run()
    clock.set("2026-12-20T12:00:00Z")
    process.writer.end_session()

    uploader.run()

    assert [(0, None), (2, 1)] == [(batch.first, batch.terminal) for batch in uploader.batches()]
    assert [] == disk.names(directory.events)


def test_events_older_than_the_horizon_are_withheld_from_a_session_that_goes_on(
    process: Process, uploader: Uploader, clock: FakeClock
) -> None:
    """Nobody uploaded for weeks: what is too old keeps its index and says nothing."""
    process.log()
    process.write()
    clock.set("2026-12-12T12:00:00Z")
    process.log("opened")
    process.write()

    uploader.run()

    assert [(0, None), (1, "opened")] == covered(uploader.batches())


def test_batch_that_was_cut_and_cannot_be_read_at_this_instant_is_waited_for(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory, clock: FakeClock
) -> None:
    """It is on its way from one folder to another: what it holds decides where the log goes on."""
    process.log()
    process.write()
    disk.at("after_cut", _killed)
    with pytest.raises(Killed):
        uploader.run()
    disk.at("after_cut", lambda: None)
    _release_all(disk, keep=process)
    process.log("opened")
    process.write()
    again = Uploader(directory, disk=disk, clock=clock)
    again.hides_documents = True
    again.run()
    again.hides_documents = False

    again.run()

    assert [(0, "export"), (1, "opened")] == covered(again.batches())


def test_batch_that_was_cut_and_was_damaged_since_is_gone_on_behind(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory, clock: FakeClock
) -> None:
    """Its name is taken for ever; the session does not end there."""
    process.log()
    process.write()
    disk.at("after_cut", _killed)
    with pytest.raises(Killed):
        uploader.run()
    disk.at("after_cut", lambda: None)
    _release_all(disk, keep=process)
    disk.replace(os.path.join(directory.pending, "a" * 32 + ".0.json"), b"noise")
    again = Uploader(directory, disk=disk, clock=clock)
    again.run()
    disk.remove(os.path.join(directory.pending, "a" * 32 + ".0.json"))
    process.log("opened")
    process.writer.end_session()

    again.run()

    assert [(1, "opened")] == covered(again.batches())
    assert [] == disk.names(directory.events)


def test_session_whose_log_was_damaged_after_a_crash_is_closed_behind_what_was_cut(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory, clock: FakeClock
) -> None:
    """Nothing in the log tells of the event; its batch does."""
    process.log()
    process.writer.end_session()
    disk.at("after_pending", _killed)
    held = disk.try_lock(directory.session_lock("a" * 32))  # It seems to live: its batch is no last one.
    with pytest.raises(Killed):
        uploader.run()
    disk.at("after_pending", lambda: None)
    _release_all(disk, keep=None)
    header, *_ = disk.read(directory.session_log("a" * 32)).split(b"\n")
    disk.replace(directory.session_log("a" * 32), header + b"\nnoise\n")

    Uploader(directory, disk=disk, clock=clock).run()

    assert held is not None
    assert [(0, None), (1, 0)] == [(batch.first, batch.terminal) for batch in uploader.batches()]


def test_session_that_is_over_is_closed_by_the_rules_of_windows(
    new_process: Callable[[], Process], uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """There no file is removed that somebody has open, a lock's own included."""
    disk._is_windows = True
    for _ in range(2):
        process = new_process()
        process.mode = YES
        process.log()
        process.writer.end_session()

    uploader.run()

    assert [0, 0] == [batch.terminal for batch in uploader.batches()]
    assert [] == disk.names(directory.events) + disk.names(directory.sessions)


def test_lock_of_a_session_that_is_over_and_that_somebody_has_open_is_removed_later(
    process: Process, uploader: Uploader, disk: FakeDisk, directory: StateDirectory, clock: FakeClock
) -> None:
    """On Windows it stays until then; nobody's upload fails for it."""
    disk._is_windows = True
    process.log()
    process.writer.end_session()
    held: list[object] = []
    disk.at("before_locks_removal", lambda: held.append(disk.try_lock(directory.append_lock("a" * 32))))
    uploader.run()
    assert ["a" * 32 + ".append"] == disk.names(directory.sessions)
    _release_all(disk, keep=None)
    disk.at("before_locks_removal", lambda: None)
    clock.sleep(limits.unfinished_seconds_max + 1)

    uploader.run()

    assert [] == disk.names(directory.sessions)


def test_session_whose_files_are_another_users_hinders_no_other(
    new_process: Callable[[], Process], uploader: Uploader, disk: FakeDisk, directory: StateDirectory
) -> None:
    """The application was once run as another user: the others are cut, and then the trouble is told."""

    class OfAnother(FakeDisk):
        def try_lock(self, path: str) -> Any:
            if os.path.basename(path) == "a" * 32 + ".life":
                raise PermissionError(13, "Permission denied", path)
            return super().try_lock(path)

    for _ in range(2):
        process = new_process()
        process.mode = YES
        process.log()
        process.writer.end_session()
    disk.__class__ = OfAnother

    with pytest.raises(PermissionError):
        uploader.run()

    assert ["b" * 32] == [batch.session for batch in uploader.batches()]


def test_cut_of_a_living_session_by_its_own_process(process: Process, uploader: Uploader, logged: Logged) -> None:
    """The log has grown to the size of a document."""
    process.log()
    process.write()

    uploader.catch_up.cut("a" * 32, Terms(parse_mode_line(YES), None))

    assert [(0, "export")] == covered(uploader.batches())
    assert 1 == len(logged()["a"])


def _killed() -> None:
    raise Killed


def _release_all(disk: FakeDisk, *, keep: Process | None) -> None:
    """What the kernel does for a process that was killed; the logging one lives on."""
    for path, file in disk._files.items():
        if path.endswith((".life", ".append")) and file.lock.locked():
            own = keep is not None and keep.writer._session is not None and path.endswith(".life")
            if not own:
                file.lock.release()
