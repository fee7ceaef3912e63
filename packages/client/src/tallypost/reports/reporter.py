"""The reporter: makes the local reports, then the documents that follow from them, then removes what they counted.

Takes   a state directory, the saved mode line, the upload config.
Gives   ``reports/local.<day>.json`` and, through `record`, upload reports.
Never   posts; never removes a count that is in no report.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from tallypost_schema import limits as shared_limits
from tallypost_schema.upload_config import UploadConfig

from .. import limits
from ..consent import ModeLine
from ..counts.count_reader import Counted, read
from ..seams import Clock, Disk, Random
from ..state_directory import StateDirectory
from . import local_report
from .fold import Terms, fold
from .look import Look, look

Record = Callable[[str, bytes, str], bool]
"""Take a document by name, with the mode line it was begun under; False if its name was ever taken."""


@dataclass(frozen=True)
class Reported:
    """What a run of the reporter did: the days reported, and what it saw afterwards."""

    made: list[str]
    seen: Look


class Reporter:
    """Phases one and two of one state directory. Any number may run at once: the link of a report decides."""

    def __init__(self, directory: StateDirectory, *, record: Record, disk: Disk, clock: Clock, random: Random) -> None:
        self._directory, self._record = directory, record
        self._disk, self._clock, self._random = disk, clock, random

    def report(self, mode: ModeLine | None, config: UploadConfig | None) -> Reported:
        """Fold the days that are over.

        Raises:
            OSError: the disk refused; what is done is done, and the next run goes on from there.
        """
        terms = Terms(self._directory.application, self._clock.now(), mode, config)
        today = terms.today
        seen = look(self._directory, disk=self._disk)
        reports = fold(
            seen,
            terms,
            draw_x=lambda: round(self._random.fraction() * 0.999999, 6),
            draw_id=lambda: self._random.bytes(16).hex(),
        )
        made = []
        for report in reports:
            self._disk.reach("before_local_report")
            if self._disk.create(self._directory.local_report(report.day), local_report.encode(report)):
                made.append(report)
            self._disk.reach("after_local_report")
        # Where another reporter was quicker its report holds, and has to be read.
        after = seen.with_reports(made) if len(made) == len(reports) else look(self._directory, disk=self._disk)
        self._record_documents(after, mode, today)
        self._remove_counted(after, today)
        self._retain(after)
        return Reported([report.day for report in made], after)

    def _record_documents(self, seen: Look, mode: ModeLine | None, today: datetime.date) -> None:
        oldest = (today - datetime.timedelta(days=shared_limits.horizon_days)).isoformat()
        for report in seen.reports:
            document = local_report.upload_report(report)
            if document is not None and report.day >= oldest and report.upload.mode == str(mode):
                self._record(f"{report.day}.json", document, report.upload.mode)

    def _remove_counted(self, seen: Look, today: datetime.date) -> None:
        through = seen.counted_through()
        tomorrow = (today + datetime.timedelta(days=1)).isoformat()
        for file in seen.files:
            over = file.day < today.isoformat() or file.day > tomorrow
            if over and _is_within(file, through.get(file.file, {})):
                self._disk.reach("before_count_file_removal")
                self._remove(file, through.get(file.file, {}))

    def _remove(self, file: Counted, through: dict[str, int]) -> None:
        if file.written is not None:
            if self._clock.now() - file.written >= limits.written_silence_seconds:
                self._disk.remove(file.path)
            return
        block = self._disk.open_block(file.path)
        if block is None:
            return  # Its owner lives: the file stays, and what it still counts goes into a later report.
        # Read again under the lock: the owner may have counted, and ended, since the look.
        now = read(file.path, bytes(block.view))
        if isinstance(now, Counted) and now.file == file.file and _is_within(now, through):
            block.remove(file.path)
        else:
            block.close()

    def _retain(self, seen: Look) -> None:
        """By number, never by age: a wrong clock must not delete the ledger."""
        for folder in self._directory.folders():
            self._disk.sweep(folder, self._clock.now() - limits.unfinished_seconds_max)
        living = {file.file for file in seen.files}
        readable = {report.day: report for report in seen.reports}
        for day in sorted(seen.reported)[: -limits.local_reports_kept]:
            report = readable.get(day)
            named = {source.file for source in report.sources} if report is not None else set()
            # Of one that cannot be read every file may be named that is as old.
            waits = bool(named & living) if report is not None else any(file.day <= day for file in seen.files)
            if not waits:
                self._disk.remove(self._directory.local_report(day))


def _is_within(file: Counted, through: dict[str, int]) -> bool:
    return all(value <= through.get(name, 0) for name, value in file.values.items())
