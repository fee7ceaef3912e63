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
    found: dict[tuple[str, int], ShownEvent] = {}
    for event in _everything(directory, disk):
        found.setdefault((event.session, event.index), event)
    return sorted(found.values(), key=lambda event: (event.at or "", event.session, event.index))


def _everything(directory: StateDirectory, disk: Disk) -> Iterator[ShownEvent]:
    # Logs are read first: what is cut meanwhile is then in both, and is shown as the batch's.
    batches: tuple[tuple[Where, str], ...] = (
        ("sent", directory.sent),
        ("pending", directory.pending),
        ("refused", directory.refused),
    )
    logs = [
        content
        for name in disk.names(directory.events)
        if name.endswith(".jsonl") and (content := _content(os.path.join(directory.events, name), disk)) is not None
    ]
    for where, folder in batches:
        for name in documents_in(disk.names(folder)):
            content = _content(os.path.join(folder, name), disk)
            if content is not None and name.count(".") == 2:
                yield from _of_batch(content, where)
    for content in logs:
        log = read(content)
        if log is not None:
            for event in log.events:
                yield ShownEvent(log.header.session, event.index, event.name, event.at, event.fields, "log")


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
