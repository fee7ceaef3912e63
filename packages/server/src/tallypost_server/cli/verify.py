"""``verify``: whether everything in the data folder and the archive is what was stored; with ``--repair`` set right.

Takes   the data folder, the archive and the coordinator, beside a server and archivists or without them.
Gives   what is damaged and where, on standard output; exit 1 if anything is damaged or missing.
Never   writes without ``--repair``, and never with it what belongs to a running server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from .. import archiving, beside
from ..disk import OsDisk
from ..errors import FolderLocked, RepairRunning
from ..segments.check import Checked, Problem, SegmentChecker
from ..segments.format import SEALED_ENDING
from ..segments.repair import Repairer, held
from ..settings import Settings

HELP = "Read segments, open files, quarantine and archive back; exit 1 if anything is damaged or missing."
EXAMPLE = "tallypost-server --data /var/lib/tallypost verify --repair"
SETTINGS: frozenset[str] = frozenset({"archive", "coordinator", "keep_days"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to repair."""
    parser.add_argument(
        "--repair",
        action="store_true",
        default=False,
        help="Move what is damaged to quarantine/damaged/ and seal anew what can be read of it.",
    )


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Check everything, a file at a time."""
    checker, kept = beside.checker(settings), beside.kept(settings)
    counts = {"open": 0, "sealed": 0, "quarantine": 0}
    lines, damaged, right = 0, [], True
    with _repairing(settings) if arguments.repair else contextlib.nullcontext() as repairer:
        for checked in (file for files in (checker.files(), kept.check()) for file in files):
            counts[checked.kind] += 1
            lines += checked.lines
            if not checked.problems or _is_going(settings, checker, checked):
                continue
            facts = _facts(checked, settings)
            repaired = None if repairer is None else repairer.repair(checked)
            if repaired is not None:
                facts.update(repair=repaired.done, repaired=repaired.right)
            right = right and repaired is not None and repaired.right and not checked.missing
            damaged.append(facts)
            if not arguments.json:
                _print(facts, checked)
    strangers = checker.strangers()
    archive = _archive(settings)
    right = right and not (archive and archive["damaged"])
    if arguments.json:
        facts = {"files": counts, "lines": lines, "damaged": damaged, "strangers": strangers, "aside": kept.damaged()}
        print(json.dumps({**facts, "archive": archive}))
    else:
        for name in strangers:
            print(f"{name}: not ours, left alone")
        files = (
            f"{counts['sealed']} sealed segments, {counts['open']} open files, {counts['quarantine']} quarantine files"
        )
        print(f"read {files} with {lines} sound lines; {len(damaged)} damaged")
        if archive is not None:
            _print_archive(archive)
    return 0 if right else 1


def _is_going(settings: Settings, checker: SegmentChecker, checked: Checked) -> bool:
    """Whether an archivist removes this segment, or was killed at it: all that it held is settled."""
    if checked.kind != "sealed":
        return False
    if archiving.is_settled(settings, checked.path.name):
        return True
    return checker.sealed(checked.path.name.removesuffix(SEALED_ENDING)) is None  # It went meanwhile.


def _archive(settings: Settings) -> dict[str, Any] | None:
    """What is told of the archive; None without one, or without the libraries to read it."""
    if not archiving.is_archived(settings):
        return None
    checked = archiving.check_archive(settings)
    return {
        "tables": {name: {"files": number, "rows": checked.rows[name]} for name, number in checked.files.items()},
        "damaged": [msgspec.to_builtins(fault) for fault in checked.faults],
        "damaged_not_told": checked.more,
        "half_done": checked.half_done,
        "strangers": checked.strangers,
    }


def _print_archive(archive: dict[str, Any]) -> None:
    for fault in archive["damaged"]:
        who = f"{fault['stream']} of {fault['app']}" if "stream" in fault else None
        place = fault.get("file") or ": ".join(word for word in (fault.get("table"), who) if word)
        print(f"{place}: {fault['problem']}" if place else fault["problem"])
    if archive["damaged_not_told"]:
        print(f"archive: {archive['damaged_not_told']} problems more")
    for name in archive["strangers"]:
        print(f"{name}: no entry of the table's log names it, left alone")
    if archive["half_done"]:
        print(f"archive: {archive['half_done']} events are of tasks that were not done; an archivist does them again")
    tables = ", ".join(f"{told['rows']} {name}" for name, told in archive["tables"].items())
    print(f"read the archive with {tables}; {len(archive['damaged']) + archive['damaged_not_told']} damaged")


@contextlib.contextmanager
def _repairing(settings: Settings) -> Iterator[Repairer]:
    repairer = beside.repairer(settings)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(settings.data / "repair", OsDisk()))
        except FolderLocked as failure:
            raise RepairRunning(settings.data) from failure
        yield repairer


def _facts(checked: Checked, settings: Settings) -> dict[str, Any]:
    problems = [dict(_where(problem)) for problem in checked.problems]
    return {
        "file": str(checked.path.relative_to(settings.data)),
        "kind": checked.kind,
        "lines": checked.lines,
        "missing": checked.missing,
        "unproven": checked.unproven,
        "problems": problems,
        "problems_not_told": checked.more,
    }


def _where(problem: Problem) -> Iterator[tuple[str, Any]]:
    yield "problem", problem.problem
    if problem.offset is not None:
        yield "offset", problem.offset
    if problem.line is not None:
        yield "line", problem.line


def _print(facts: dict[str, Any], checked: Checked) -> None:
    for problem in checked.problems:
        places = [
            f"{word} {place}" for word, place in (("byte", problem.offset), ("line", problem.line)) if place is not None
        ]
        print(f"{facts['file']}: {''.join(place + ': ' for place in places)}{problem.problem}")
    if checked.more:
        print(f"{facts['file']}: {checked.more} problems more")
    if checked.kind == "sealed":
        proven = f", {checked.unproven} of them not proven by their hash" if checked.unproven else ""
        print(f"{facts['file']}: {checked.lines} lines can be read{proven}, {checked.missing} are missing")
    if "repair" in facts:
        print(f"{facts['file']}: {facts['repair']}")
