from __future__ import annotations

import json
from typing import Any

from tallypost.counts.count_reader import Counted, Damaged
from tallypost.reports.local_report import Leaving, LocalReport, Source
from tallypost.reports.look import Look
from tallypost.reports.overview import days_of, losses_of
from tallypost_schema.documents import Program, ProgramCounts

PROGRAM = Program("mytool", "1.2.3", "3.12", "linux", "x86_64")
STACK = "crash/KeyError\nmytool.cli:main:+12"
COUNT_MAX = 2**53 - 1


def file(values: dict[str, int], day: str = "2026-11-20", name: str = "f1", program: Program = PROGRAM) -> Counted:
    """A count file as it was read."""
    return Counted(
        f"counts/{name}.count",
        name,
        "example.org/mytool",
        program,
        day,
        f"{day}T12:00:00Z",
        "on 2026-11-01 1 user",
        "none",
        values,
    )


def report(counters: dict[str, int], stacks: dict[str, int], *sources: Source, day: str = "2026-11-20") -> LocalReport:
    """A local report."""
    counts = ProgramCounts(PROGRAM.program, PROGRAM.version, "3.12", "linux", "x86_64", counters, stacks)
    leaving = Leaving(False, "the mode is not on", "", [])
    return LocalReport(
        v=1,
        kind="report",
        x=0.5,
        id="0" * 32,
        app="example.org/mytool",
        day=day,
        previous=None,
        config=None,
        programs=[counts],
        upload=leaving,
        sources=list(sources),
    )


def look(*files: Counted, reports: tuple[LocalReport, ...] = (), damaged: int = 0) -> Look:
    """A state directory as it was seen."""
    return Look(
        list(files),
        [Damaged(f"counts/{n}.count") for n in range(damaged)],
        list(reports),
        frozenset(one.day for one in reports),
    )


def counters_of(shown: dict[str, Any]) -> dict[str, list[dict[str, int]]]:
    """By day, the counters of each program."""
    return {day["day"]: [program["counters"] for program in day["programs"]] for day in shown["days"]}


def test_days_have_the_promised_shape_and_nothing_else() -> None:
    """Days, programs, counters and stacks, in the order of their names; it is plain JSON."""
    shown = days_of(look(file({"b": 2, "a:<=0.1": 1, STACK: 3})))

    program = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
    expected = {**program, "counters": {"a:<=0.1": 1, "b": 2}, "stacks": {STACK: 3}}
    assert {"days": [{"day": "2026-11-20", "programs": [expected]}]} == shown
    assert ["a:<=0.1", "b"] == list(shown["days"][0]["programs"][0]["counters"])
    assert json.loads(json.dumps(shown)) == shown


def test_days_of_nothing_are_none() -> None:
    """Also of files in which nothing was counted."""
    assert {"days": []} == days_of(look())
    assert {"days": []} == days_of(look(file({})))


def test_days_put_files_of_one_program_together_and_keep_programs_apart() -> None:
    """However many processes counted, and in whatever order they are read."""
    newer = Program("mytool", "1.3.0", "3.12", "linux", "x86_64")

    shown = days_of(
        look(
            file({"a": 1}, "2026-11-21", "f1"),
            file({"a": 2}, "2026-11-20", "f2"),
            file({"a": 4}, "2026-11-20", "f3"),
            file({"a": 8}, "2026-11-20", "f4", newer),
        )
    )

    assert {"2026-11-20": [{"a": 6}, {"a": 8}], "2026-11-21": [{"a": 1}]} == counters_of(shown)
    assert ["2026-11-20", "2026-11-21"] == [day["day"] for day in shown["days"]]


def test_days_have_each_count_once_while_its_file_is_still_there() -> None:
    """What a report has of a file is not counted again; what it has not yet is under the file's own day."""
    source = Source("f1", "2026-11-20", 0, "local", "none", through={"a": 5}, before={})

    shown = days_of(look(file({"a": 7, "b": 1}), reports=(report({"a": 5}, {}, source),)))

    assert {"2026-11-20": [{"a": 7, "b": 1}]} == counters_of(shown)


def test_days_of_a_file_below_what_was_reported_invent_nothing() -> None:
    """After a power cut a file may hold less than a report took from it: that is a rest of 0."""
    source = Source("f1", "2026-11-20", 0, "local", "none", through={"a": 5}, before={})

    shown = days_of(look(file({"a": 3}), reports=(report({"a": 5}, {STACK: 1}, source),)))

    assert {"2026-11-20": [{"a": 5}]} == counters_of(shown)


def test_days_saturate_as_counters_do() -> None:
    """A sum is never more than the largest count."""
    shown = days_of(look(file({"a": COUNT_MAX}), file({"a": 1}, name="f2")))

    assert {"2026-11-20": [{"a": COUNT_MAX}]} == counters_of(shown)


def test_losses_are_the_librarys_own_counters_by_reason() -> None:
    """Of all days together, reported or not; what the application counts is none."""
    seen = look(
        file({"tallypost/dropped-values": 2, "cmd/dropped-values": 5}),
        reports=(report({"tallypost/dropped-values": 1, "tallypost/dropped-names": 4}, {}, day="2026-11-19"),),
    )

    assert {"dropped-values": 3, "dropped-names": 4} == losses_of(seen)


def test_losses_tell_of_damaged_count_files() -> None:
    """How many there are, since what was in them is not known; without one there is no such reason."""
    assert {"damaged-count-files": 2} == losses_of(look(damaged=2))
    assert {} == losses_of(look())
