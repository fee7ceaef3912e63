"""What has been counted, for people: by day and program, today included; and what was lost.

Takes   what `look` saw.
Gives   plain values in the shape of ``tallypost show --json`` and of ``losses`` in ``tallypost status --json``.
Never   reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tallypost_schema import limits
from tallypost_schema.documents import Program
from tallypost_schema.own import PREFIX

from .. import losses
from .look import Look


def days_of(seen: Look) -> dict[str, Any]:
    """All that has been counted, reported or not."""
    days: dict[str, dict[Program, dict[str, int]]] = {}
    for day, program, counts in _everything(seen):
        total = days.setdefault(day, {}).setdefault(program, {})
        for name, n in counts.items():
            total[name] = min(total.get(name, 0) + n, limits.count_max)
    return {
        "days": [
            {"day": day, "programs": [_shown(program, counts) for program, counts in programs.items()]}
            for day, programs in sorted(days.items())
        ]
    }


def losses_of(seen: Look) -> dict[str, int]:
    """What was lost, by reason, as far back as reports are kept."""
    found: dict[str, int] = {}
    for _, _, counts in _everything(seen):
        for name, n in counts.items():
            if name.startswith(PREFIX):
                reason = name.removeprefix(PREFIX)
                found[reason] = min(found.get(reason, 0) + n, limits.count_max)
    if seen.damaged:
        found[losses.DAMAGED_COUNT_FILES] = len(seen.damaged)
    if unreadable := len(seen.reported) - len(seen.reports):
        found[losses.DAMAGED_LOCAL_REPORTS] = unreadable
    return found


def _everything(seen: Look) -> Iterator[tuple[str, Program, dict[str, int]]]:
    """What reports have, and what of the count files no report has yet."""
    for report in seen.reports:
        for program in report.programs:
            yield report.day, program.key(), {**program.counters, **program.stacks}
    through = seen.counted_through()
    for file in seen.files:
        known = through.get(file.file, {})
        rest = {name: n for name, value in file.values.items() if (n := value - known.get(name, 0)) > 0}
        if rest:
            yield file.day, file.program, rest


def _shown(program: Program, counts: dict[str, int]) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(program),
        "counters": {name: n for name, n in sorted(counts.items()) if "\n" not in name},
        "stacks": {name: n for name, n in sorted(counts.items()) if "\n" in name},
    }
