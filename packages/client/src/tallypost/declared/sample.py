"""Documents as they may leave, made up from a declaration: for people who want to see one before they say yes.

Takes   a declaration, and the day it is.
Gives   an upload report with everything that may leave, and a batch with one event of each kind.
Never   reads what was counted; everything in them is invented, and keeps every rule of a document.
"""

from __future__ import annotations

import datetime

from tallypost_schema import names
from tallypost_schema.declaration import Declaration, Entry, Event, Stack
from tallypost_schema.documents import Batch, Field, Program, ProgramCounts, Report
from tallypost_schema.documents import Event as DocumentEvent

from ..counts.stack import ELSEWHERE

_ID = "0123456789abcdef" * 2
# A session of which no rate but 0 withholds an event.
_SESSION = "0" * 13 + _ID[:19]
# Innermost first, as the depth counts.
_WAY = ("io:load:+4", "cli:main:+12")


def report(declared: Declaration, *, today: datetime.date) -> Report | None:
    """The upload report of the day before, or None if none may leave."""
    counters: dict[str, int] = {}
    stacks: dict[str, int] = {}
    rates: list[float] = []
    for name, counter in declared.counters.items():
        if _leaves(counter, today, rates):
            counts = {f"{name}:{bucket}": n for n, bucket in enumerate(counter.buckets, 1)}
            counters.update({name: sum(counts.values()) or 3, **counts})
    for name, histogram in declared.histograms.items():
        if _leaves(histogram, today, rates):
            counters.update(
                {f"{name}:{bucket}": n for n, bucket in enumerate(names.histogram_buckets(histogram.edges), 1)}
            )
    for name, stack in declared.stacks.items():
        if _leaves(stack, today, rates):
            stacks[_stack(name, stack)] = 1
    if not rates:
        return None
    day, previous = ((today - datetime.timedelta(days=ago)).isoformat() for ago in (1, 2))
    counted = ProgramCounts(**_program(declared), counters=counters, stacks=stacks)
    # An x at which even the rarest of them is in the report.
    return Report(1, "report", min(rates) / 2, _ID, declared.application, day, previous, "1", [counted])


def batch(declared: Declaration, *, today: datetime.date) -> Batch | None:
    """A batch of the day before with one event of each kind, or None if none may leave."""
    day = (today - datetime.timedelta(days=1)).isoformat()
    events = [
        DocumentEvent(name, f"{day}T10:00:{n % 60:02}.123Z", _fields(event))
        for n, (name, event) in enumerate(declared.events.items())
        if _leaves(event, today, [])
    ]
    if not events:
        return None
    program = Program(**_program(declared))
    return Batch(1, "events", declared.application, _SESSION, 0, 0, len(events) - 1, program, events)


def _leaves(entry: Entry, today: datetime.date, rates: list[float]) -> bool:
    """Whether it may leave; then its rate is noted."""
    leaves = entry.rate > 0 and not entry.expired(today)
    if leaves:
        rates.append(entry.rate)
    return leaves


def _program(declared: Declaration) -> dict[str, str]:
    program = declared.application.rpartition("/")[2]
    return {"program": program, "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}


def _stack(name: str, stack: Stack) -> str:
    frames = [f"{stack.packages[0]}.{frame}" for frame in _WAY[: stack.depth]] if stack.packages else []
    key = "\n".join((name, *reversed(frames)))
    return key if frames and names.is_stack(key) else f"{name}\n{ELSEWHERE}"


def _fields(event: Event) -> dict[str, Field]:
    made_up: dict[str, Field] = {"count": 3, "seconds": 0.7, "bytes": 4096, "flag": True}
    return {
        key: (made_up[kind] if isinstance(kind, str) else kind[0]) for key, kind in event.fields.items() if kind != ()
    }
