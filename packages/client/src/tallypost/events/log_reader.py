"""The session log as everybody but its owner reads it: the user, the cut, the catch-up.

Takes   a file's bytes.
Gives   what its header says, and its events in the order of their indexes.
Never   raises for damage; never gives an event another index than its own, nor one index twice.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from tallypost_schema.documents import Count, Field, Hex32

Struct_ = TypeVar("Struct_")


class Header(Struct, frozen=True):
    """What a session was begun under; `first` is the index at which this log goes on."""

    v: int
    first: Count
    session: Hex32
    begin: str
    mode: str
    declaration: str
    app: str
    program: str
    version: str
    python: str
    os: str
    arch: str


class Logged(Struct, frozen=True):
    """One event of a log."""

    index: Count
    name: str
    at: str
    fields: dict[str, Field]


class SessionLog(Struct, frozen=True):
    """A session log as it was read."""

    header: Header
    events: list[Logged]

    @property
    def next(self) -> int:
        """The index that the session's next event has."""
        return self.events[-1].index + 1 if self.events else self.header.first


_header, _logged = msgspec.json.Decoder(Header), msgspec.json.Decoder(Logged)


def read(content: bytes) -> SessionLog | None:
    """The log in a file; None if its header tells nothing. Half-written lines are skipped."""
    first, *lines = content.split(b"\n")
    header = _decoded(_header, first)
    if header is None or header.v != 1:
        return None
    events: list[Logged] = []
    index = header.first
    for line in lines:
        event = _decoded(_logged, line) if line else None
        # What is below was cut before, or stands here twice: an append that failed half-way was made again.
        if event is not None and event.index >= index:
            events.append(event)
            index = event.index + 1
    return SessionLog(header, events)


def _decoded(decoder: msgspec.json.Decoder[Struct_], line: bytes) -> Struct_ | None:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
