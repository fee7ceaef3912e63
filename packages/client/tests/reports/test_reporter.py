from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tallypost import Telemetry
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk

Start = Callable[..., Telemetry]
Counted = Callable[[], dict[str, dict[str, int]]]


class Killed(BaseException):
    """The process ends here."""


def killed() -> None:
    """End the process."""
    raise Killed


def reports(directory: StateDirectory) -> dict[str, Any]:
    """By day, the local reports at rest."""
    found = {}
    for name in sorted(name for name in os.listdir(directory.reports) if name.endswith(".json")):
        with open(os.path.join(directory.reports, name), "rb") as file:
            report = json.load(file)
        assert f"local.{report['day']}.json" == name
        found[report["day"]] = report
    return found


def total(directory: StateDirectory, name: str) -> int:
    """What all local reports together have of a name."""
    return sum(
        program["counters"].get(name, 0) for report in reports(directory).values() for program in report["programs"]
    )


def count(application: Start, n: int = 1) -> None:
    """A process that counts and ends."""
    telemetry = application()
    telemetry.counter("cmd/export").inc(n)
    telemetry.close()


def fold(application: Start) -> None:
    """A reporter of its own."""
    application()._daily().report()


def test_report_of_a_day_that_is_over_has_all_its_counts(
    application: Start, directory: StateDirectory, clock: FakeClock, counted: Counted
) -> None:
    """Counts of several processes become one report, and the files that were counted are removed."""
    count(application, 2)
    count(application, 3)
    clock.set("2026-11-21T00:00:00Z")

    fold(application)

    assert ["2026-11-20"] == list(reports(directory))
    assert 5 == total(directory, "cmd/export")
    assert {} == counted()


def test_report_of_today_is_not_made(application: Start, directory: StateDirectory, counted: Counted) -> None:
    """A day that is not over is left alone."""
    count(application)

    fold(application)

    assert {} == reports(directory)
    assert {"2026-11-20": {"cmd/export": 1}} == counted()


def test_late_counts_of_a_living_process_are_in_the_next_free_day(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """What a process counted of a day after its report was made goes into the earliest day that has none."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    exports.inc(2)
    held = telemetry._recorder._cells.cell("cmd/export")  # An increment that was under way at midnight.
    clock.set("2026-11-21T08:00:00Z")
    fold(application)
    assert held is not None
    held[0] += 1

    fold(application)
    clock.set("2026-11-22T08:00:00Z")
    fold(application)

    assert ["2026-11-20", "2026-11-21"] == list(reports(directory))
    assert 3 == total(directory, "cmd/export")


def test_report_is_never_made_twice(application: Start, directory: StateDirectory, clock: FakeClock) -> None:
    """A reporter that runs again makes nothing."""
    count(application)
    clock.set("2026-11-21T08:00:00Z")
    fold(application)
    before = reports(directory)

    fold(application)

    assert before == reports(directory)


def test_two_reporters_at_once_make_one_report(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """The second one to link finds the name taken, and its sums are dropped."""
    count(application, 7)
    clock.set("2026-11-21T08:00:00Z")
    entered: list[int] = []

    def another() -> None:
        if not entered:
            entered.append(1)
            fold(application)

    disk.at("before_local_report", another)
    fold(application)

    assert 7 == total(directory, "cmd/export")


POINTS = [
    "before_local_report",
    "before_link",
    "after_link",
    "after_local_report",
    "before_pending",
    "after_pending",
    "before_count_file_removal",
]


@pytest.mark.parametrize("point", POINTS)
def test_reporter_killed_anywhere_is_completed_by_the_next(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk, point: str
) -> None:
    """Whatever instant a reporter ends at, the next one completes it, and the totals are exact."""
    application().set_mode("on")
    clock.set("2026-11-21T12:00:00Z")
    count(application, 5)
    clock.set("2026-11-22T12:00:00Z")
    count(application, 3)
    clock.set("2026-11-23T12:00:00Z")
    disk.at(point, killed)
    with pytest.raises(Killed):
        fold(application)
    disk.at(point, lambda: None)

    count(application, 2)
    clock.set("2026-11-24T12:00:00Z")
    fold(application)

    assert 1 <= disk.points[point]
    assert 10 == total(directory, "cmd/export")
    assert ["2026-11-21", "2026-11-22", "2026-11-23"] == list(reports(directory))
    assert ["2026-11-21.json", "2026-11-22.json", "2026-11-23.json"] == disk.names(directory.pending)
    assert [] == disk.names(directory.counts)


def test_full_disk_loses_nothing(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """A reporter without room raises and leaves all as it was."""
    count(application, 5)
    clock.set("2026-11-21T12:00:00Z")
    disk.fail(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        fold(application)
    disk.fail(None)

    fold(application)

    assert 5 == total(directory, "cmd/export")


def test_only_what_began_after_the_day_of_the_yes_leaves(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """Counts of before the yes, and of its own day, are in local reports alone."""
    count(application, 1)
    clock.set("2026-11-21T12:00:00Z")
    count(application, 2)
    application().set_mode("on")
    count(application, 4)
    clock.set("2026-11-22T12:00:00Z")
    count(application, 8)
    clock.set("2026-11-23T12:00:00Z")

    fold(application)

    assert ["2026-11-22.json"] == disk.names(directory.pending)
    sent = json.loads(disk.read(os.path.join(directory.pending, "2026-11-22.json")))
    assert {"cmd/export": 8} == sent["programs"][0]["counters"]
    assert [False, False, True] == [report["upload"]["leaves"] for report in reports(directory).values()]


def test_counts_under_an_earlier_yes_stay(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """A no in between ends the first yes: what began under it never leaves."""
    application().set_mode("on")
    clock.set("2026-11-21T12:00:00Z")
    count(application, 1)
    application().set_mode("local")
    clock.set("2026-11-22T12:00:00Z")
    application().set_mode("on")
    clock.set("2026-11-23T12:00:00Z")

    fold(application)

    assert [] == disk.names(directory.pending)
    assert 1 == total(directory, "cmd/export")


def test_upload_report_has_its_keys_in_order_and_no_space(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """The bytes in ``pending/`` are the documented ones."""
    application().set_mode("on")
    clock.set("2026-11-21T12:00:00Z")
    count(application, 1)
    clock.set("2026-11-22T12:00:00Z")

    fold(application)

    document = disk.read(os.path.join(directory.pending, "2026-11-21.json"))
    value = json.loads(document)
    assert ["v", "kind", "x", "id", "app", "day", "previous", "config", "programs"] == list(value)
    assert document == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert ("2026-11-21", None, None) == (value["day"], value["previous"], value["config"])


def test_previous_is_the_day_of_the_last_upload_report(
    application: Start, directory: StateDirectory, clock: FakeClock
) -> None:
    """Reports name the one before them, also over days on which nothing was counted."""
    application().set_mode("on")
    for day in ("2026-11-21", "2026-11-23", "2026-11-24"):
        clock.set(f"{day}T12:00:00Z")
        count(application)
    clock.set("2026-11-25T12:00:00Z")

    fold(application)

    assert [None, "2026-11-21", "2026-11-23"] == [report["previous"] for report in reports(directory).values()]


def test_file_of_a_day_that_is_yet_to_come_counts_for_the_user_alone(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """A wrong clock's counts are in the next report that others make, and nobody else is told of them."""
    application().set_mode("on")
    clock.set("2031-01-01T12:00:00Z")
    count(application, 9)
    clock.set("2026-11-24T12:00:00Z")
    fold(application)
    assert {} == reports(directory)
    count(application, 1)
    clock.set("2026-11-25T12:00:00Z")

    fold(application)
    fold(application)

    assert ["2026-11-24"] == list(reports(directory))
    assert 10 == total(directory, "cmd/export")
    document = json.loads(disk.read(os.path.join(directory.pending, "2026-11-24.json")))
    assert {"cmd/export": 1} == document["programs"][0]["counters"]
    assert [] == disk.names(directory.counts)


def test_two_reporters_on_both_sides_of_midnight_take_a_wrong_clocks_counts_once(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """Where they go follows from what lies there, not from the day on which somebody looks."""
    count(application, 1)
    clock.set("2031-01-01T12:00:00Z")
    count(application, 9)
    clock.set("2026-11-22T12:00:00Z")
    count(application, 1)

    def midnight() -> None:
        disk.at("before_local_report", lambda: None)
        clock.set("2026-11-23T00:00:01Z")
        fold(application)

    disk.at("before_local_report", midnight)

    fold(application)

    assert 11 == total(directory, "cmd/export")


def test_report_that_cannot_be_read_has_its_counts_counted_by_nobody_else(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """What a damaged report has of a file that is still there is unknown: the file waits, and `status` says so."""
    telemetry = application()
    telemetry.counter("cmd/export").inc(2)
    clock.set("2026-11-21T08:00:00Z")
    fold(application)
    disk.replace(directory.local_report("2026-11-20"), b"{half")
    telemetry.counter("cmd/export").inc(3)
    clock.set("2026-11-22T08:00:00Z")

    fold(application)

    assert 3 == json.loads(disk.read(directory.local_report("2026-11-21")))["programs"][0]["counters"]["cmd/export"]
    assert b"{half" == disk.read(directory.local_report("2026-11-20"))
    assert 1 == application().status()["losses"]["damaged-local-reports"]


def test_report_that_cannot_be_read_goes_with_the_oldest_once_nothing_waits_for_it(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """A damaged report is kept by number like every other."""
    count(application)
    disk.replace(directory.local_report("2020-01-01"), b"{half")
    for n in range(90):
        disk.replace(directory.local_report(f"2021-{n // 28 + 1:02}-{n % 28 + 1:02}"), b"{half")
    oldest = directory.local_report("2020-01-01")

    fold(application)

    assert not disk.exists(oldest)
    assert 90 == len(disk.names(directory.reports))


def test_day_older_than_the_horizon_stays(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """A day of more than 21 days ago is reported here and posted nowhere."""
    application().set_mode("on")
    clock.set("2026-11-21T12:00:00Z")
    count(application, 1)
    clock.set("2026-12-13T12:00:00Z")

    fold(application)

    assert 1 == total(directory, "cmd/export")
    assert [] == disk.names(directory.pending)


def test_unfinished_files_of_killed_reporters_are_swept(
    application: Start, directory: StateDirectory, clock: FakeClock
) -> None:
    """What a killed process left half-written is removed after a day."""
    count(application, 1)
    stray = os.path.join(directory.reports, "local.2026-11-20.json.1-0.tmp")
    with open(stray, "wb") as file:
        file.write(b"half")
    os.utime(stray, (0, 0))
    clock.set("2026-11-21T12:00:00Z")

    fold(application)

    assert ["local.2026-11-20.json"] == os.listdir(directory.reports)


def test_damaged_count_file_is_left_and_told(
    application: Start, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk
) -> None:
    """A count file that tells nothing hinders no report, and `status` names it."""
    count(application, 1)
    with open(os.path.join(directory.counts, "mytool@1-2026-11-20-0-0.count"), "wb") as file:
        file.write(b"noise")
    clock.set("2026-11-21T12:00:00Z")

    fold(application)

    assert 1 == total(directory, "cmd/export")
    assert 1 == application().status()["losses"]["damaged-count-files"]
