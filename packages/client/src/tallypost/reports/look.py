"""Phase one, look: what lies in the state directory, read once, without a lock.

Takes   a state directory.
Gives   count files, local reports, and the names of documents wherever they lie.
Never   writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tallypost_schema import declaration as declarations
from tallypost_schema.declaration import Declaration
from tallypost_schema.errors import DeclarationInvalid

from ..counts.count_reader import Counted, Damaged, read_all
from ..seams import Disk
from ..state_directory import StateDirectory
from . import local_report
from .local_report import LocalReport


@dataclass(frozen=True)
class Look:
    """A state directory as it was seen.

    `reported` has the day of every local report, readable or not: a name that is taken stays taken.
    `unreadable_through` is the last day of one that cannot be read, or empty.
    """

    files: list[Counted]
    damaged: list[Damaged]
    reports: list[LocalReport]
    reported: frozenset[str]
    declarations: dict[str, Declaration] = field(default_factory=dict)
    unreadable_through: str = ""

    def with_reports(self, made: list[LocalReport]) -> Look:
        """The same, with reports that were made since."""
        reports = sorted((*self.reports, *made), key=lambda report: report.day)
        return replace(self, reports=reports, reported=self.reported | {report.day for report in made})

    def declaration_keys(self) -> set[str]:
        """The keys of the declarations that what is here was counted under."""
        return {file.declaration for file in self.files} | {
            source.declaration for report in self.reports for source in report.sources
        }

    def counted_through(self) -> dict[str, dict[str, int]]:
        """By file id, the values that reports already have."""
        through: dict[str, dict[str, int]] = {}
        for report in self.reports:
            for source in report.sources:
                known = through.setdefault(source.file, {})
                for name, value in source.through.items():
                    known[name] = max(value, known.get(name, 0))
        return through


def look(directory: StateDirectory, *, disk: Disk) -> Look:
    """See what is there."""
    # Reports first: a file that is folded and removed after this is in none of them, and its day's report
    # cannot be made a second time, since the name will be taken.
    reports, reported = _reports(directory, disk)
    seen = list(read_all(directory.counts, disk=disk))
    files = [one for one in seen if isinstance(one, Counted) and one.application == directory.application]
    found = Look(
        files,
        [one for one in seen if isinstance(one, Damaged)],
        reports,
        frozenset(reported),
        {},
        max(reported - {report.day for report in reports}, default=""),
    )
    known = {key: _declaration(directory.declaration(key), disk) for key in found.declaration_keys()}
    return replace(found, declarations={key: one for key, one in known.items() if one is not None})


def _reports(directory: StateDirectory, disk: Disk) -> tuple[list[LocalReport], set[str]]:
    reports, reported = [], set()
    for name in disk.names(directory.reports):
        if name.startswith("local.") and name.endswith(".json"):
            day = name[len("local.") : -len(".json")]
            reported.add(day)
            try:
                report = local_report.decode(disk.read(directory.local_report(day)))
            except OSError:
                continue
            if report is not None:
                reports.append(report)
    return sorted(reports, key=lambda report: report.day), reported


def _declaration(path: str, disk: Disk) -> Declaration | None:
    try:
        return declarations.parse(disk.read(path).decode())
    except (OSError, UnicodeDecodeError, DeclarationInvalid):
        return None
