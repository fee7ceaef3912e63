"""The events that have been logged, for people: wherever they lie now.

Takes   session logs, and the batches that were cut from them.
Gives   each event once, oldest first.
Never   writes; never shows an event as sent that was withheld.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct

from tallypost_schema import documents
from tallypost_schema.documents import Field
from tallypost_schema.errors import SchemaError

from ..seams import Disk
from ..state_directory import StateDirectory, documents_in
from .log_reader import read

Where = Literal["log", "pending", "sent", "refused"]


class ShownEvent(Struct, frozen=True):
    """One event, and where it lies. Of one that was withheld when its batch was cut, nothing is known any more."""

    session: str
    index: int
    name: str | None
    at: str | None
    fields: dict[str, Field]
    where: Where


def events_of(directory: StateDirectory, *, disk: Disk) -> list[ShownEvent]:
    """All events of one state directory."""
    found = {(event.session, event.index): event for event in _everything(directory, disk)}
    return sorted(found.values(), key=lambda event: (event.at or "", event.session, event.index))


def _everything(directory: StateDirectory, disk: Disk) -> Iterator[ShownEvent]:
    # In the order in which an event passes them: what moves on meanwhile is met again, and is shown where it came to.
    for name in disk.names(directory.events):
        content = _content(os.path.join(directory.events, name), disk)
        log = read(content) if content is not None and name.endswith(".jsonl") else None
        if log is not None:
            for event in log.events:
                yield ShownEvent(log.header.session, event.index, event.name, event.at, event.fields, "log")
    batches: tuple[tuple[Where, str], ...] = (
        ("pending", directory.pending),
        ("refused", directory.refused),
        ("sent", directory.sent),
    )
    for where, folder in batches:
        for name in documents_in(disk.names(folder)):
            content = _content(os.path.join(folder, name), disk)
            if content is not None and name.count(".") == 2:
                yield from _of_batch(content, where)


def _of_batch(content: bytes, where: Where) -> Iterator[ShownEvent]:
    try:
        batch = documents.decode_batch(content)
    except SchemaError:
        return
    for place, event in enumerate(batch.events):
        yield ShownEvent(
            batch.session,
            batch.first + batch.lost + place,
            None if event.name is UNSET else event.name,
            None if event.at is UNSET else event.at,
            {} if event.fields is UNSET else event.fields,
            where,
        )


def _content(path: str, disk: Disk) -> bytes | None:
    try:
        return disk.read(path)
    except OSError:  # Gone since it was listed, or it cannot be read.
        return None
