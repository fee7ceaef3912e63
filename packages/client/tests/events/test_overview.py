from __future__ import annotations

import os

import pytest

from tallypost.events.overview import ShownEvent, events_of
from tallypost.events.session_log import event_line, header_line
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeDisk
from tallypost_schema import documents
from tallypost_schema.documents import Batch, Event, Program

SESSION = "ab" * 16
FACTS = {
    "session": SESSION,
    "begin": "2026-11-20T12:00:00Z",
    "mode": "on 2026-11-19 1 user",
    "declaration": "00000000-1",
    "app": "example.org/mytool",
    "program": "mytool",
    "version": "1.2.3",
    "python": "3.12",
    "os": "linux",
    "arch": "x86_64",
}


def log_of(first: int, *indexes: int) -> bytes:
    """A log with these events, a second apart."""
    return header_line(first, FACTS) + b"".join(event_line(n, "export", n, {"pages": n}) for n in indexes)


def batch_of(first: int, *events: Event, lost: int = 0) -> bytes:
    """A batch."""
    program = Program("mytool", "1.2.3", "3.12", "linux", "x86_64")
    return documents.encode(Batch(1, "events", "example.org/mytool", SESSION, first, lost, None, program, list(events)))


def exported(n: int) -> Event:
    """The event with that index, as a batch has it."""
    return Event("export", f"1970-01-01T00:00:{n:02}.000Z", {"pages": n})


def shown(directory: StateDirectory, disk: FakeDisk) -> list[tuple[int, str | None, str]]:
    """Index, name and place of each event that people are shown."""
    return [(event.index, event.name, event.where) for event in events_of(directory, disk=disk)]


def test_events_are_shown_once_each_where_they_lie(directory: StateDirectory, disk: FakeDisk) -> None:
    """In the order of their times, from logs and from batches in every folder."""
    for folder, first in ((directory.refused, 0), (directory.sent, 1), (directory.pending, 2)):
        disk.write(os.path.join(folder, f"{SESSION}.{first}.json"), batch_of(first, exported(first)))
    disk.write(directory.session_log(SESSION), log_of(3, 3, 4))

    assert [
        (0, "export", "refused"),
        (1, "export", "sent"),
        (2, "export", "pending"),
        (3, "export", "log"),
        (4, "export", "log"),
    ] == shown(directory, disk)


def test_events_that_were_withheld_are_shown_without_what_they_were(directory: StateDirectory, disk: FakeDisk) -> None:
    """Of a lost range there is nothing to show; its indexes are not given to others."""
    disk.write(os.path.join(directory.sent, f"{SESSION}.5.json"), batch_of(5, Event(), exported(8), lost=2))

    assert [
        ShownEvent(SESSION, 7, None, None, {}, "sent"),
        ShownEvent(SESSION, 8, "export", "1970-01-01T00:00:08.000Z", {"pages": 8}, "sent"),
    ] == events_of(directory, disk=disk)


def test_events_of_a_batch_whose_log_is_not_cut_yet_are_shown_as_the_batchs(
    directory: StateDirectory, disk: FakeDisk
) -> None:
    """An uploader ended between the two."""
    disk.write(directory.session_log(SESSION), log_of(0, 0, 1))
    disk.write(os.path.join(directory.pending, f"{SESSION}.0.json"), batch_of(0, exported(0)))

    assert [(0, "export", "pending"), (1, "export", "log")] == shown(directory, disk)


@pytest.mark.parametrize("step", ["cut", "sent"])
def test_events_that_move_on_while_they_are_read_are_shown(directory: StateDirectory, step: str) -> None:
    """Whoever uploads at this instant hides nothing: folders are read in the order in which events pass them."""
    waiting = os.path.join(directory.pending, f"{SESSION}.0.json")
    target = os.path.join(directory.sent, f"{SESSION}.0.json")

    class Busy(FakeDisk):
        def names(self, folder: str) -> list[str]:
            names = super().names(folder)
            if step == "cut" and folder == directory.events and self.exists(directory.session_log(SESSION)):
                self.write(waiting, batch_of(0, exported(0)))
                self.remove(directory.session_log(SESSION))
            if step == "sent" and folder == directory.pending and self.exists(waiting):
                self.move(waiting, target)
            return names

    disk = Busy()
    for folder in directory.folders():
        disk.make_folder(folder)
    if step == "cut":
        disk.write(directory.session_log(SESSION), log_of(0, 0))
    else:
        disk.write(waiting, batch_of(0, exported(0)))

    assert [(0, "export", "pending" if step == "cut" else "sent")] == shown(directory, disk)


def test_damage_hides_nothing_but_itself(directory: StateDirectory, disk: FakeDisk) -> None:
    """A file that is none, and the user's own among them, are passed over."""
    disk.write(directory.session_log("cd" * 16), b"noise\n")
    disk.write(os.path.join(directory.sent, f"{'cd' * 16}.0.json"), b"noise")
    disk.write(os.path.join(directory.sent, "2026-11-20.json"), b"{}")
    disk.write(directory.session_log(SESSION), log_of(0, 0) + b"noise\n" + log_of(0, 1).split(b"\n")[1])

    assert [(0, "export", "log"), (1, "export", "log")] == shown(directory, disk)
