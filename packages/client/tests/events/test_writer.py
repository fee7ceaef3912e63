from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

from tallypost import limits
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk

from .conftest import Process

Logged = Callable[[], dict[str, list[dict[str, Any]]]]


def test_event_that_was_written_is_in_the_log_with_its_index(process: Process, logged: Logged) -> None:
    """Indexes count from 0, over appends."""
    process.log(format="pdf")
    process.write()
    process.log(pages=3)
    process.log("opened")
    process.write()

    events = logged()["a"][1:]
    assert [0, 1, 2] == [event["index"] for event in events]
    assert [{"format": "pdf"}, {"pages": 3}, {}] == [event["fields"] for event in events]
    assert "2026-11-20T12:00:00.000Z" == events[0]["at"]


def test_event_that_does_not_fit_is_dropped_before_it_has_an_index(process: Process, logged: Logged) -> None:
    """What is not declared leaves no trace but a loss."""
    process.log(format="secret")
    process.log("unknown")
    process.log(format="pdf")

    process.write()

    assert [0] == [event["index"] for event in logged()["a"][1:]]
    assert 2 == process.lost
    assert "secret" not in str(logged())


def test_queue_that_is_full_drops_and_counts(process: Process, logged: Logged) -> None:
    """A burst costs its own end, and the number of what was dropped is known."""
    for _ in range(limits.events_queued_max + 7):
        process.log()

    while len(process.queue):
        process.write()

    assert 7 == process.lost
    assert limits.events_queued_max == len(logged()["a"]) - 1


def test_append_that_fails_is_made_again(process: Process, logged: Logged, disk: FakeDisk) -> None:
    """A full disk loses nothing that fits into the queue, and no index."""
    process.log()
    process.write()
    disk.fail(OSError(errno.ENOSPC, "No space left on device"))
    process.log("opened")
    process.write()
    assert process.writer.trouble is not None
    process.log()
    process.write()

    disk.fail(None)
    process.write()

    assert [(0, "export"), (1, "opened"), (2, "export")] == [(one["index"], one["name"]) for one in logged()["a"][1:]]
    assert (0, None) == (process.lost, process.writer.trouble)


def test_append_that_fails_for_long_drops_the_oldest(process: Process, logged: Logged, disk: FakeDisk) -> None:
    """What waits for a disk is bounded like the queue itself."""
    process.log("opened")
    process.write()
    disk.fail(OSError(errno.ENOSPC, "No space left on device"))
    together = (limits.events_queued_max + 100) // 12
    for _ in range(12):  # A refused write tries all that waits: one for each event would take half a minute.
        for _ in range(together):
            process.log()
        process.write()
    disk.fail(None)

    process.write()

    assert 100 == process.lost
    assert limits.events_queued_max == len(logged()["a"]) - 2


def test_session_that_cannot_begin_leaves_nothing_behind(
    process: Process, disk: FakeDisk, directory: StateDirectory
) -> None:
    """A disk that is full for long is tried often: no lock may stay for it."""
    disk.fail(OSError(errno.ENOSPC, "No space left on device"))
    process.log()

    process.write()

    assert [] == disk.names(directory.sessions)


def test_mode_off_starts_nothing_and_writes_nothing(
    process: Process, disk: FakeDisk, directory: StateDirectory
) -> None:
    """Off: no file, no thread, no loss either."""
    process.mode = "off"

    process.log()

    assert (0, 0) == (len(process.queue), process.lost)
    assert [] == disk.names(directory.events)


def test_mode_off_is_asked_again_after_a_while_and_not_at_each_event(process: Process, clock: FakeClock) -> None:
    """A loop of events in mode off reads no files in a loop."""
    process.mode = "off"
    for _ in range(100):
        process.log()
    assert 1 == process.started
    process.mode = "local 2026-11-20 1 user"
    clock.sleep(limits.writer_retry_seconds)

    process.log()

    assert (2, 1) == (process.started, len(process.queue))


def test_mode_that_becomes_off_ends_the_log_with_the_day(process: Process, logged: Logged, clock: FakeClock) -> None:
    """Like a count file, a session is in force until midnight; then nothing is written."""
    process.log()
    process.write()
    process.mode = "off"
    process.log("opened")
    process.write()
    clock.set("2026-11-21T00:00:00Z")
    process.log()

    process.write()

    assert ["export", "opened"] == [event["name"] for event in logged()["a"][1:]]
    assert 0 == process.lost


def test_mode_that_becomes_on_ends_the_session_with_the_day(process: Process, logged: Logged, clock: FakeClock) -> None:
    """What began before the yes never leaves; the session that begins after its day may."""
    process.log()
    process.write()
    process.mode = "on 2026-11-20 1 user"
    process.log()
    process.write()
    assert ["a"] == list(logged())
    clock.set("2026-11-21T00:00:00Z")
    process.log()

    process.write()

    assert {"a": "local 2026-11-20 1 user", "b": "on 2026-11-20 1 user"} == {
        letter: lines[0]["mode"] for letter, lines in logged().items()
    }
    assert [0] == [event["index"] for event in logged()["b"][1:]]


def test_mode_that_is_changed_in_the_process_ends_the_session_at_once(process: Process, logged: Logged) -> None:
    """An application that asks its user goes on in a session of its own, which still is of the day of the yes."""
    process.log()
    process.write()
    process.mode = "on 2026-11-20 1 user"
    process.writer.change_session()
    process.log()

    process.write()

    assert [["export"], ["export"]] == [[event["name"] for event in lines[1:]] for lines in logged().values()]


def test_session_of_the_day_of_the_yes_ends_with_that_day(process: Process, logged: Logged, clock: FakeClock) -> None:
    """It may not leave, and the next one may."""
    process.mode = "on 2026-11-20 1 user"
    for at in ("2026-11-20T23:59:59Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"):
        clock.set(at)
        process.log()
        process.write()

    assert {"a": 1, "b": 2} == {letter: len(lines) - 1 for letter, lines in logged().items()}


def test_log_that_is_removed_under_the_process_makes_a_new_session(
    process: Process, logged: Logged, disk: FakeDisk, directory: StateDirectory
) -> None:
    """Whoever removes a log, the user or a catch-up while the machine slept, has ended the session."""
    process.log()
    process.write()
    disk.remove(directory.session_log("a" * 32))
    process.log("opened")

    process.write()

    assert {"b": [0]} == {letter: [event["index"] for event in lines[1:]] for letter, lines in logged().items()}
    assert 0 == process.lost


def test_log_that_is_held_by_a_cut_has_events_wait(
    process: Process, logged: Logged, disk: FakeDisk, directory: StateDirectory
) -> None:
    """An append waits for a moment, then goes back to the queue; nothing is lost."""
    process.log()
    process.write()
    held = disk.try_lock(directory.append_lock("a" * 32))
    assert held is not None
    process.log("opened")
    process.write()
    assert 2 == len(logged()["a"])
    held.release()

    process.write()

    assert ["export", "opened"] == [event["name"] for event in logged()["a"][1:]]


def test_clock_that_is_set_back_while_a_log_is_held_has_nobody_wait_for_it(
    directory: StateDirectory, disk: FakeDisk
) -> None:
    """Whoever holds the log may have been stopped: the end of a process does not wait until it is that late again."""

    class BackwardClock(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(-seconds)

    process = Process(directory, disk=disk, clock=BackwardClock(), letters=lambda: "a")
    process.log()
    process.write()
    held = disk.try_lock(directory.append_lock("a" * 32))
    process.log("opened")

    process.writer.flush(0.05)

    assert held is not None
    assert 1 == process.lost


def test_log_of_the_size_of_a_document_is_cut_where_it_may_leave(process: Process, clock: FakeClock) -> None:
    """Only then, and by name: what is to be cut is looked at there."""
    process.mode = "on 2026-11-19 1 user"
    for _ in range(2000):
        process.log(format="pdf", pages=2**50)
    while len(process.queue):
        process.write()
    assert [] == process.cuts

    for _ in range(1000):
        process.log(format="pdf", pages=2**50)
    while len(process.queue):
        process.write()

    assert {"a" * 32} == set(process.cuts)


def test_log_that_may_not_leave_grows_to_its_bound(process: Process, logged: Logged, disk: FakeDisk) -> None:
    """Five MiB stay for the user; what comes then is counted as lost."""
    while process.lost == 0:
        for _ in range(limits.events_per_append_max):
            process.log(format="pdf", pages=2**50)
        process.write()

    assert [] == process.cuts
    content = sum(len(disk.read(path)) for path in disk._files if path.endswith(".jsonl"))
    assert limits.log_bytes_max - 100_000 < content <= limits.log_bytes_max


def test_flush_writes_what_waits(process: Process, logged: Logged) -> None:
    """The process that ends does the thread's work."""
    process.log()
    process.log("opened")

    process.writer.end_session()

    assert ["export", "opened"] == [event["name"] for event in logged()["a"][1:]]


def test_flush_on_a_full_disk_counts_what_is_lost(process: Process, disk: FakeDisk) -> None:
    """The end of a process waits for no disk."""
    disk.fail(OSError(errno.ENOSPC, "No space left on device"))
    process.log()
    process.log("opened")

    process.writer.flush(0.05)

    assert 2 == process.lost
    assert 0 == len(process.queue)


def test_flush_in_the_middle_of_a_write_leaves_it_to_that_one(process: Process, logged: Logged) -> None:
    """A signal handler, or a destructor, that ends the session or logs at the end, in the thread that writes."""

    class Word(str):
        def __eq__(self, other: object) -> bool:
            process.writer.end_session()
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    process.log("opened")
    process.log(format=Word("pdf"))

    process.write()

    assert [(0, "opened"), (1, "export")] == [(event["index"], event["name"]) for event in logged()["a"][1:]]
    assert ["a"] == list(logged())


def test_flush_while_events_keep_coming_ends_though_the_clock_stands_still(process: Process) -> None:
    """Whoever logs without end, a daemon thread or a word that is looked at, does not hold up the end."""

    class Word(str):
        def __eq__(self, other: object) -> bool:
            process.log(format=self)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    process.log(format=Word("pdf"))

    process.writer.flush(0.05)

    assert 0 == len(process.queue)
    assert process.lost > 0


def test_session_that_was_ended_is_over_and_the_next_event_begins_another(
    process: Process, logged: Logged, disk: FakeDisk, directory: StateDirectory
) -> None:
    """The life lock is what tells."""
    process.log()
    process.write()
    assert disk.try_lock(directory.session_lock("a" * 32)) is None
    process.writer.end_session()
    assert disk.try_lock(directory.session_lock("a" * 32)) is not None
    process.log()

    process.write()

    assert ["a", "b"] == list(logged())


def test_events_on_a_disk_without_trusted_locks_are_logged_without_them(
    process: Process, logged: Logged, disk: FakeDisk, directory: StateDirectory
) -> None:
    """There nobody cuts a session before it was silent for two days."""
    disk.trusted = False

    process.log()
    process.write()

    assert ["export"] == [event["name"] for event in logged()["a"][1:]]
    assert [] == disk.names(directory.sessions)


def test_writer_that_is_stopped_ends_its_thread(process: Process, logged: Logged) -> None:
    """A test suite makes one after another: their threads must not gather."""
    process.log()
    process.writer.end_session()
    thread = threading.Thread(target=process.writer._run, daemon=True)
    thread.start()

    process.writer.stop()
    thread.join(10)

    assert not thread.is_alive()
    assert ["export"] == [event["name"] for event in logged()["a"][1:]]
