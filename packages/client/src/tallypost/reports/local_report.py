"""The local report: everything counted on a day, and the commit point of the fold.

Takes   the bytes of ``reports/local.<day>.json``, or what a fold found.
Gives   structs; and the upload report, which is a pure function of the local one.
Never   leaves the machine.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from tallypost_schema import documents
from tallypost_schema.documents import Count, Hex32, ProgramCounts, Report


class Source(Struct, frozen=True):
    """A count file whose counts are in this report.

    `through` are its values when it was read, `before` those that earlier reports already had: what this report
    has of it is the difference. `program` is an index into the report's programs.
    """

    file: Hex32
    day: str
    program: int
    mode: str
    declaration: str
    through: dict[str, Count]
    before: dict[str, Count] = {}

    def added(self) -> dict[str, int]:
        """What this report has of the file."""
        return {name: n for name, value in self.through.items() if (n := value - self.before.get(name, 0)) > 0}


class Leaving(Struct, frozen=True):
    """What of this report may leave, decided once, when it was made."""

    leaves: bool
    why: str
    mode: str
    programs: list[ProgramCounts]


class LocalReport(Struct, frozen=True):
    """A report of all that was counted, with what leaves of it and where it was counted."""

    v: Literal[1]
    kind: Literal["report"]
    x: float
    id: Hex32
    app: str
    day: str
    previous: str | None
    config: str | None
    programs: list[ProgramCounts]
    upload: Leaving
    sources: list[Source]


def encode(report: LocalReport) -> bytes:
    """The bytes of the file: JSON, one key a line at the top, so that a person can read it."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def decode(content: bytes) -> LocalReport | None:
    """The local report in a file, or None if it is none."""
    try:
        report = msgspec.json.decode(content, type=LocalReport)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return report if documents.day_of(report.day) is not None else None


def upload_report(local: LocalReport) -> bytes | None:
    """The bytes of the document that leaves, or None: a pure function of the local report alone."""
    return document_of(local, local.upload.programs) if local.upload.leaves else None


def document_of(local: LocalReport, programs: list[ProgramCounts]) -> bytes:
    """The bytes of an upload report with a local report's identity and these programs."""
    return documents.encode(
        Report(1, "report", local.x, local.id, local.app, local.day, local.previous, local.config, programs)
    )
