"""Phase two, fold: the counts of the days that are over, as local reports. Pure: every instant and number is handed in.

Takes   what `look` saw, the day, the saved mode line, the upload config, random numbers.
Gives   local reports that do not exist yet, in the order of their days.
Never   counts a number twice: what earlier reports have of a file is subtracted.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from tallypost_schema import limits as shared_limits
from tallypost_schema.documents import Program, ProgramCounts, day_of
from tallypost_schema.upload_config import UploadConfig

from .. import limits
from ..clock import day_of as clock_day_of
from ..consent import ModeLine, may_leave
from ..counts.count_reader import Counted
from .local_report import Leaving, LocalReport, Source
from .look import Look
from .narrow import narrow

COUNT_MAX = shared_limits.count_max


@dataclass(frozen=True)
class Terms:
    """Under what a report is made."""

    application: str
    now: float
    mode: ModeLine | None
    config: UploadConfig | None

    @property
    def today(self) -> datetime.date:
        """The UTC day of `now`."""
        return datetime.date.fromisoformat(clock_day_of(self.now))


@dataclass(frozen=True)
class Rest:
    """What of a count file is in no report yet."""

    file: Counted
    before: dict[str, int]
    added: dict[str, int]
    may_leave: bool


def fold(seen: Look, terms: Terms, *, draw_x: Callable[[], float], draw_id: Callable[[], str]) -> list[LocalReport]:
    """The local reports that are to be made now."""
    today = terms.today.isoformat()
    tomorrow = (terms.today + datetime.timedelta(days=1)).isoformat()
    through = seen.counted_through()
    by_day: dict[str, list[Rest]] = {}
    strays: list[Rest] = []
    for file in seen.files:
        if file.written is not None and terms.now - file.written < limits.written_silence_seconds:
            continue  # Without a lock only silence tells that its owner has ended.
        if file.day <= seen.unreadable_through:
            continue  # What of it is in a report that cannot be read nobody knows; it would be counted twice.
        before = {name: value for name, value in through.get(file.file, {}).items() if name in file.values}
        added = {name: n for name, value in file.values.items() if (n := value - before.get(name, 0)) > 0}
        if not added:
            continue
        if file.day > tomorrow:
            strays.append(Rest(file, before, added, may_leave=False))
        elif (day := _free_day(file.day, seen.reported, today)) is not None:
            by_day.setdefault(day, []).append(Rest(file, before, added, may_leave=True))
    if by_day:
        # A wrong clock named a day that is yet to come: it counts for the user alone, in the first report that others
        # make. A day of its own, taken from today, would be another one for a reporter on the other side of midnight.
        by_day[min(by_day)] += strays
    reports: list[LocalReport] = []
    for day in sorted(by_day):
        earlier = [report.day for report in (*seen.reports, *reports) if report.upload.leaves and report.day < day]
        previous = max(earlier, default=None)
        reports.append(_report(day, by_day[day], previous, seen, terms, draw_x(), draw_id()))
    return reports


def leaving_programs(
    rests: list[tuple[Program, str, dict[str, int]]],
    seen: Look,
    *,
    config: UploadConfig | None,
    x: float,
    today: datetime.date,
) -> list[ProgramCounts]:
    """What of `rests` (program, declaration's key, counts) is named by their declarations and the config."""
    totals: dict[Program, dict[str, int]] = {}
    for program, key, added in rests:
        leaving = narrow(added, declaration=seen.declarations.get(key), config=config, x=x, today=today)
        _add(totals.setdefault(program, {}), leaving)
    return _programs({program: counts for program, counts in totals.items() if counts})


def _free_day(day: str, reported: frozenset[str], today: str) -> str | None:
    """The earliest day from `day` on that is over and has no report; None if late counts must wait."""
    date = day_of(day)
    assert date is not None, "the reader checked it"
    while (spelled := date.isoformat()) < today:
        if spelled not in reported:
            return spelled
        date += datetime.timedelta(days=1)
    return None


def _report(
    day: str, rests: list[Rest], previous: str | None, seen: Look, terms: Terms, x: float, identity: str
) -> LocalReport:
    totals: dict[Program, dict[str, int]] = {}
    for rest in rests:
        _add(totals.setdefault(rest.file.program, {}), rest.added)
    places = {program: place for place, program in enumerate(totals)}
    return LocalReport(
        v=1,
        kind="report",
        x=x,
        id=identity,
        app=terms.application,
        day=day,
        previous=previous,
        config=terms.config.version if terms.config is not None else None,
        programs=_programs(totals),
        upload=_leaving(day, rests, seen, terms, x),
        sources=[
            Source(
                rest.file.file,
                rest.file.day,
                places[rest.file.program],
                rest.file.mode,
                rest.file.declaration,
                through={name: rest.file.values[name] for name in rest.added},
                before={name: rest.before[name] for name in rest.added if name in rest.before},
            )
            for rest in rests
        ],
    )


def _leaving(day: str, rests: list[Rest], seen: Look, terms: Terms, x: float) -> Leaving:
    mode = str(terms.mode or "")
    oldest = terms.today - datetime.timedelta(days=shared_limits.horizon_days)
    if day < oldest.isoformat():
        return Leaving(False, "the day is older than 21 days", mode, [])
    allowed, reasons = [], []
    for rest in rests:
        declaration = seen.declarations.get(rest.file.declaration)
        version = declaration.consent_version if declaration is not None else 1
        # The day of its header, not of its key alone: a file that was begun earlier began before the yes.
        began = min(rest.file.day, rest.file.begin[:10])
        reason = may_leave(rest.file.mode, began, terms.mode, version) if rest.may_leave else "a wrong clock"
        if reason is None:
            allowed.append((rest.file.program, rest.file.declaration, rest.added))
        else:
            reasons.append(reason)
    programs = leaving_programs(allowed, seen, config=terms.config, x=x, today=terms.today)
    if programs:
        return Leaving(True, "declared, and counted after the yes", mode, programs)
    return Leaving(False, reasons[0] if reasons else "nothing that was counted is declared and asked for", mode, [])


def _add(total: dict[str, int], counts: dict[str, int]) -> None:
    for name, n in counts.items():
        total[name] = min(total.get(name, 0) + n, COUNT_MAX)


def _programs(totals: dict[Program, dict[str, int]]) -> list[ProgramCounts]:
    return [
        ProgramCounts(
            program.program,
            program.version,
            program.python,
            program.os,
            program.arch,
            {name: n for name, n in sorted(counts.items()) if not _is_stack(name)},
            {name: n for name, n in sorted(counts.items()) if _is_stack(name)},
        )
        for program, counts in totals.items()
    ]


def _is_stack(name: str) -> bool:
    return "\n" in name
