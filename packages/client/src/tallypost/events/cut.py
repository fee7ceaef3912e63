"""The cut: what of a session's log goes into one batch. Pure.

Takes   a log as it was read, the declaration it was made under, the upload config, the day.
Gives   the batch that begins at the log's first index, or None if there is nothing to send.
Never   lets out what is not declared or not asked for: such an event is sent as ``{}`` and keeps its index.
"""

from __future__ import annotations

import datetime

from tallypost_schema import limits as shared_limits
from tallypost_schema.declaration import Declaration
from tallypost_schema.documents import Batch, Event, Program, session_x
from tallypost_schema.upload_config import UploadConfig

from .. import limits
from .log_reader import Header, Logged, SessionLog

# One line of a log is longer than its event in a batch, so that as many bytes of lines make a smaller document.
_BYTES_MAX = limits.log_bytes_cut
_LINE_BYTES = 128  # What a small event takes; each is counted with its own words besides.


def next_batch(
    log: SessionLog, *, declaration: Declaration, config: UploadConfig | None, today: datetime.date, closes: bool
) -> Batch | None:
    """The next batch of a session. `closes`: the session is over, and the batch that reaches its end says so.

    A session without any event is never sent. Indexes that are missing in the log are lost: by damage.
    """
    header = log.header
    run = _first_run(log)
    last = run[-1].index if run else header.first - 1
    terminal = last if closes and last == log.next - 1 and last >= 0 else None
    if not run and terminal is None:
        return None
    return Batch(
        v=1,
        kind="events",
        app=header.app,
        session=header.session,
        first=header.first,
        lost=run[0].index - header.first if run else 0,
        terminal=terminal,
        program=Program(header.program, header.version, header.python, header.os, header.arch),
        events=[_event(one, header, declaration, config, today) for one in run],
    )


def oldest_day(today: datetime.date) -> str:
    """The first day within the horizon: nothing of an earlier one leaves."""
    return (today - datetime.timedelta(days=shared_limits.horizon_days)).isoformat()


def _first_run(log: SessionLog) -> list[Logged]:
    """The events from the first one on whose indexes follow each other, as many as one document takes."""
    run: list[Logged] = []
    size = 0
    for event in log.events:
        size += _LINE_BYTES + sum(len(key) + len(str(value)) for key, value in event.fields.items())
        if run and (event.index != run[-1].index + 1 or size > _BYTES_MAX):
            break
        run.append(event)
    return run


def _event(
    one: Logged, header: Header, declaration: Declaration, config: UploadConfig | None, today: datetime.date
) -> Event:
    entry = declaration.events.get(one.name)
    if entry is None or entry.expired(today) or one.at[:10] < oldest_day(today):
        return Event()
    rate = entry.rate if config is None else min(entry.rate, config.events.get(one.name, 0.0))
    if session_x(header.session) >= rate or not all(entry.accepts(key, value) for key, value in one.fields.items()):
        return Event()
    return Event(one.name, one.at, one.fields)
