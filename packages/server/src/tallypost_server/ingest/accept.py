"""Accepting: from a document's bytes to the line that stores it, or the reason why there is none.

Takes   a document, decompressed and within its size; the path's kind, the registry, the moment.
Gives   `Accepted`; or raises `Refused` with code and message.
Never   knows of HTTP, a framework, a disk or a clock: a function of what is handed in.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from tallypost_schema import documents, limits, receipts, strict_json
from tallypost_schema.documents import Batch, Event, Field, ProgramCounts, Report
from tallypost_schema.errors import Invalid, Malformed

from ..clock import stamp
from ..errors import Declined, Refused
from ..segments.format import line_of_batch, line_of_report
from .applications import Declared

Kind: TypeAlias = Literal["report", "events"]
What: TypeAlias = Literal["counter", "stack", "event", "field", "key"]

_REPORT_KEYS = len(Report.__struct_fields__)
_BATCH_KEYS = len(Batch.__struct_fields__)
_PROGRAM_KEYS = len(documents.Program.__struct_fields__)
_COUNTS_KEYS = len(ProgramCounts.__struct_fields__)
_NOTHING = Event()


class Accepted(NamedTuple):
    """A document that keeps every rule: its line, its hash as posted, what the line lacks of it, its stream."""

    line: bytes
    sha256: str
    dropped: dict[What, int]
    stream: str


def accept(document: bytes, kind: Kind, *, find: Callable[[str], Declared], received: datetime.datetime) -> Accepted:
    """The line that stores a document. The order of the checks is promised: JSON, rules, application, day.

    Raises:
        Refused: the document's own fault.
        ApplicationUnreadable: ours.
    """
    try:
        if kind == "report":
            return _accept_report(document, find, received)
        return _accept_batch(document, find, received)
    except Malformed as error:
        raise Refused("malformed", str(error)) from error
    except Invalid as error:
        raise Refused("invalid", str(error)) from error


def _accept_report(document: bytes, find: Callable[[str], Declared], received: datetime.datetime) -> Accepted:
    dropped: dict[What, int] = {}
    encoded: bytes | None = document
    report = documents.canonical_report(document)
    if report is None:
        encoded = None
        value = strict_json.decode(document)
        report = documents.report_of(value)
        _count(dropped, "key", len(value) - _REPORT_KEYS)
        _count(dropped, "key", sum(len(program) - _COUNTS_KEYS for program in value["programs"]))
    try:
        declared = find(report.app)
    except Declined:
        documents.check_report(report)  # What is the document's own fault is told first.
        raise
    # Nearly always all of it is declared, and then the bytes as posted are those that are stored.
    is_declared = documents.check_report(report, declared.counters, declared.stacks)
    at = _at(received)
    if not at.oldest_day <= report.day <= at.newest_day:  # Days spelled in full sort as they follow each other.
        raise _of_another_time(report.day, at)
    if not is_declared:
        encoded = None
        narrowed = [_narrowed(program, declared, dropped) for program in report.programs]
        report = msgspec.structs.replace(report, programs=narrowed)
    sha256 = receipts.hash_of(document)
    line = line_of_report(report, received=at.text, sha256=sha256, encoded=encoded)
    return Accepted(line, sha256, dropped, report.id)


def _accept_batch(document: bytes, find: Callable[[str], Declared], received: datetime.datetime) -> Accepted:
    dropped: dict[What, int] = {}
    encoded: bytes | None = document
    batch = documents.canonical_batch(document)
    if batch is None:
        encoded = None
        value = strict_json.decode(document)
        batch = documents.batch_of(value)
        _count(dropped, "key", len(value) - _BATCH_KEYS + len(value["program"]) - _PROGRAM_KEYS)
        _count(dropped, "key", sum(len(event) - (3 if "name" in event else 0) for event in value["events"]))
    else:
        documents.check_batch(batch)
    declared = find(batch.app)
    events = [_declared_event(event, declared, dropped) for event in batch.events]
    if any(kept is not given for kept, given in zip(events, batch.events, strict=True)):
        encoded = None
        batch = msgspec.structs.replace(batch, events=events)
    sha256 = receipts.hash_of(document)
    line = line_of_batch(batch, received=stamp(received), sha256=sha256, encoded=encoded)
    return Accepted(line, sha256, dropped, batch.session)


class _Moment(NamedTuple):
    """A moment as lines spell it, and the oldest and the newest day that are taken then."""

    text: str
    oldest_day: str
    newest_day: str


@lru_cache(maxsize=8)  # Many documents are received at one moment.
def _at(received: datetime.datetime) -> _Moment:
    today = received.date()
    oldest = today - datetime.timedelta(days=limits.horizon_days)
    newest = today + datetime.timedelta(days=limits.ahead_days_max)
    return _Moment(stamp(received), oldest.isoformat(), newest.isoformat())


def _of_another_time(day: str, at: _Moment) -> Refused:
    if day < at.oldest_day:
        return Refused("too_old", f"the day is {day}, the oldest allowed is {at.oldest_day}")
    return Refused(
        "from_the_future", f"the day is {day}, the newest allowed is {at.newest_day}; check the sender's clock"
    )


def _narrowed(program: ProgramCounts, declared: Declared, dropped: dict[What, int]) -> ProgramCounts:
    counters = {name: count for name, count in program.counters.items() if name in declared.counters}
    stacks = {name: count for name, count in program.stacks.items() if name.partition("\n")[0] in declared.stacks}
    _count(dropped, "counter", len(program.counters) - len(counters))
    _count(dropped, "stack", len(program.stacks) - len(stacks))
    return msgspec.structs.replace(program, counters=counters, stacks=stacks)


def _declared_event(event: Event, declared: Declared, dropped: dict[What, int]) -> Event:
    """The event itself, or one without what is not declared; it keeps its place in any case."""
    if event.name is UNSET or event.fields is UNSET:
        return event
    entry = declared.events.get(event.name)
    if entry is None:
        _count(dropped, "event", 1)
        return _NOTHING
    fields: dict[str, Field] = {key: field for key, field in event.fields.items() if entry.accepts(key, field)}
    if len(fields) == len(event.fields):
        return event
    _count(dropped, "field", len(event.fields) - len(fields))
    return msgspec.structs.replace(event, fields=fields)


def _count(dropped: dict[What, int], what: What, count: int) -> None:
    if count:
        dropped[what] = dropped.get(what, 0) + count
