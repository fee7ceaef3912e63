from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost.state_directory import StateDirectory, documents_in
from tallypost.testing import FaultyDisk
from tallypost.uploads.pending import Pending

YES = "on 2026-11-18 1 user"
NAME = "2026-11-19.json"
Make = Callable[..., bytes]
Lying = Callable[[], dict[str, list[str]]]


class Stop(Exception):
    """The end of the process, as far as the disk can tell."""


def stop() -> None:
    raise Stop


def test_record_lets_the_document_wait_with_its_bytes_and_its_yes(pending: Pending, document: Make) -> None:
    """What is recorded waits as it is, under the mode line that it was begun under."""
    recorded = pending.record(NAME, document(), YES)

    assert recorded
    assert [NAME] == pending.names()
    assert document() == pending.read(NAME)
    assert YES == pending.begun_under(NAME)


def test_record_of_a_name_that_waits_changes_nothing(pending: Pending, document: Make) -> None:
    """The first document of a name stays."""
    pending.record(NAME, document(), YES)

    assert not pending.record(NAME, b"{}", "on 2026-11-19 1 user")
    assert document() == pending.read(NAME)
    assert YES == pending.begun_under(NAME)


@pytest.mark.parametrize("settle", ["sent", "refused"])
def test_record_of_a_name_that_was_settled_is_refused_for_ever(
    pending: Pending, document: Make, lying: Lying, settle: str
) -> None:
    """One report a day: a name that was ever sent or refused is not taken again."""
    pending.record(NAME, document(), YES)
    if settle == "sent":
        pending.sent(NAME, document(), b"{}")
    else:
        pending.refused(NAME, "invalid", "why")

    assert not pending.record(NAME, document(), YES)
    assert [] == pending.names()
    assert [] == lying()["begins"]


def test_record_tells_every_observer_once(pending: Pending, document: Make) -> None:
    """Observers hear of each document that was recorded, and of no other attempt."""
    heard: list[str] = []
    pending.observe(heard.append)
    pending.observe(heard.append)

    pending.record(NAME, document(), YES)
    pending.record(NAME, document(), YES)

    assert [NAME, NAME] == heard


def test_scan_tells_of_what_lies_there_oldest_first(pending: Pending, document: Make, disk: FaultyDisk) -> None:
    """After a restart an observer hears of all that waits, and of no receipt, reason or unfinished file."""
    for day in ("2026-11-19", "2026-11-17", "2026-11-18"):
        pending.record(f"{day}.json", document(day), YES)
    batch = f"{'ab' * 16}.12.json"
    pending.record(batch, b"{}", YES)
    heard: list[str] = []
    pending.observe(heard.append)

    pending.scan()

    assert ["2026-11-17.json", "2026-11-18.json", "2026-11-19.json", batch] == heard


def test_record_on_a_full_disk_leaves_nothing_that_would_be_posted(
    pending: Pending, document: Make, disk: FaultyDisk
) -> None:
    """An error of the disk is raised, and there is no document."""
    disk.fail(OSError(28, "No space left on device"))

    with pytest.raises(OSError, match="No space"):
        pending.record(NAME, document(), YES)

    assert [] == pending.names()


def test_record_ended_before_the_document_is_done_again(pending: Pending, document: Make, disk: FaultyDisk) -> None:
    """The word of its yes comes first; a process that ends behind it leaves a name that can still be recorded."""
    disk.at("before_pending", stop)
    with pytest.raises(Stop):
        pending.record(NAME, document(), YES)
    disk.at("before_pending", lambda: None)

    assert [] == pending.names()
    assert pending.record(NAME, document(), YES)
    assert YES == pending.begun_under(NAME)


def test_begun_under_of_a_stray_document_is_nothing(pending: Pending, directory: StateDirectory) -> None:
    """A file that somebody put there was begun under no yes."""
    (Path(directory.pending) / NAME).write_bytes(b"{}")

    assert pending.begun_under(NAME) is None


def test_sent_moves_the_document_with_its_receipt(pending: Pending, document: Make, lying: Lying) -> None:
    """What left lies in ``sent/``, byte for byte, with the server's word beside it."""
    pending.record(NAME, document(), YES)

    pending.sent(NAME, document(), b'{"stored":"ab"}')

    assert {"pending": [], "sent": [NAME, "2026-11-19.receipt.json"], "refused": [], "begins": []} == lying()


def test_sent_ended_before_the_move_keeps_the_document_waiting(
    pending: Pending, document: Make, disk: FaultyDisk
) -> None:
    """A process that ends between receipt and move leaves a document that is posted again, and then moves."""
    pending.record(NAME, document(), YES)
    disk.at("before_sent", stop)
    with pytest.raises(Stop):
        pending.sent(NAME, document(), b"{}")
    disk.at("before_sent", lambda: None)

    assert [NAME] == pending.names()
    assert not pending.is_done(NAME)
    pending.sent(NAME, document(), b"{}")
    assert pending.is_done(NAME)


@pytest.mark.parametrize("moment", ["before the receipt", "before_sent"])
def test_sent_of_a_document_withdrawn_meanwhile_says_that_it_left(
    pending: Pending, document: Make, disk: FaultyDisk, lying: Lying, moment: str
) -> None:
    """A no during the post cannot call it back: ``sent/`` holds exactly what left, with its receipt."""
    pending.record(NAME, document(), YES)
    if moment == "before_sent":
        disk.at("before_sent", lambda: pending.withdraw("withdrawn", "a no"))
    else:
        pending.withdraw("withdrawn", "a no")

    pending.sent(NAME, document(), b'{"stored":"ab"}')

    assert {"pending": [], "sent": [NAME, "2026-11-19.receipt.json"], "refused": [], "begins": []} == lying()


def test_refused_leaves_the_reason_beside_the_document(
    pending: Pending, document: Make, lying: Lying, directory: StateDirectory
) -> None:
    """A refused document stays readable, with a code and a sentence."""
    pending.record(NAME, document(), YES)

    assert pending.refused(NAME, "too_old", "it is old")

    assert {"pending": [], "sent": [], "refused": [NAME, "2026-11-19.reason.json"], "begins": []} == lying()
    reason = json.loads((Path(directory.refused) / "2026-11-19.reason.json").read_bytes())
    assert {"reason": "too_old", "message": "it is old"} == reason


def test_refused_after_a_no_keeps_the_first_reason(pending: Pending, document: Make, directory: StateDirectory) -> None:
    """Where the user said no first, that is the reason that stands."""
    pending.record(NAME, document(), YES)
    pending.withdraw("withdrawn", "a no")

    assert not pending.refused(NAME, "invalid", "a server's word")
    assert b"withdrawn" in (Path(directory.refused) / "2026-11-19.reason.json").read_bytes()


def test_withdraw_empties_pending_and_names_what_waited(pending: Pending, document: Make, lying: Lying) -> None:
    """A no moves all that waits to ``refused/``."""
    for day in ("2026-11-18", "2026-11-19"):
        pending.record(f"{day}.json", document(day), YES)

    withdrawn = pending.withdraw("withdrawn", "a no")

    assert ["2026-11-18.json", NAME] == withdrawn
    assert [] == lying()["pending"]
    assert ["2026-11-18.json", "2026-11-18.reason.json", NAME, "2026-11-19.reason.json"] == lying()["refused"]


def test_withdraw_of_a_document_that_is_just_sent_leaves_no_reason(
    pending: Pending, document: Make, disk: FaultyDisk, lying: Lying
) -> None:
    """What an uploader moved first was sent: it is not named as withdrawn, and no reason lies about."""
    pending.record(NAME, document(), YES)
    disk.at("before_refused", lambda: pending.sent(NAME, document(), b"{}"))

    withdrawn = pending.withdraw("withdrawn", "a no")

    assert [] == withdrawn
    assert [] == lying()["refused"]


def test_withdraw_where_nothing_was_ever_counted_is_quiet(directory: StateDirectory, disk: FaultyDisk) -> None:
    """A no may come first."""
    assert [] == Pending(directory, disk=disk).withdraw("withdrawn", "a no")


def test_drop_removes_a_document_that_was_settled_before(
    pending: Pending, document: Make, directory: StateDirectory, lying: Lying
) -> None:
    """A document that came back, from a backup say, goes with all that is said of it."""
    pending.record(NAME, document(), YES)
    pending.sent(NAME, document(), b"{}")
    (Path(directory.pending) / NAME).write_bytes(document())
    (Path(directory.begins) / NAME).write_text(YES)

    pending.drop(NAME)

    assert {"pending": [], "sent": [NAME, "2026-11-19.receipt.json"], "refused": [], "begins": []} == lying()


def test_retain_keeps_the_newest_by_number_with_their_words(pending: Pending, document: Make, lying: Lying) -> None:
    """Of each folder so many stay, the newest, each with its receipt or reason."""
    days = [f"2026-11-{day:02}" for day in range(1, 9)]
    for day in days:
        pending.record(f"{day}.json", document(day), YES)
    for day in days[:4]:
        pending.sent(f"{day}.json", document(day), b"{}")
    for day in days[4:]:
        pending.refused(f"{day}.json", "invalid", "why")

    pending.retain(3, 1)

    assert [f"2026-11-0{n}.{kind}" for n in (2, 3, 4) for kind in ("json", "receipt.json")] == lying()["sent"]
    assert ["2026-11-08.json", "2026-11-08.reason.json"] == lying()["refused"]


def test_documents_are_private_to_the_user(pending: Pending, document: Make, directory: StateDirectory) -> None:
    """No other user of the machine can read what waits, what left, or why something did not."""
    pending.record(NAME, document(), YES)
    pending.sent(NAME, document(), b"{}")

    modes = {os.stat(os.path.join(directory.sent, name)).st_mode & 0o777 for name in os.listdir(directory.sent)}

    assert {0o600} == modes


def test_documents_in_a_listing_are_told_from_words_beside_them() -> None:
    """Reports and batches are documents; receipts, reasons and others are not."""
    session = "0f" * 16
    listing = [
        "2026-11-19.json",
        "2026-11-19.receipt.json",
        "2026-11-19.reason.json",
        f"{session}.0.json",
        f"{session}.0.receipt.json",
        f"{session}.x.json",
        "notes.txt",
    ]

    assert ["2026-11-19.json", f"{session}.0.json"] == documents_in(listing)
