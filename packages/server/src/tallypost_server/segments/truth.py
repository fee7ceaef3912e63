"""The truth of a stored line: whether it keeps the format, and tells of its document what that says.

Takes   a line's bytes.
Gives   the line, or what is wrong with it.
Never   reads a file.
"""

from __future__ import annotations

import re

import msgspec

from tallypost_schema import documents
from tallypost_schema.errors import Invalid, Malformed

from ..clock import moment_of
from .format import Line, decode_line

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def problem_of(line: bytes) -> str | None:
    """What is wrong with a stored line, or None."""
    checked = line_of(line)
    return checked if isinstance(checked, str) else None


def line_of(line: bytes) -> Line | str:
    """The stored line that `line` is, true in all that it tells of its document; or what is wrong with it."""
    try:
        told = decode_line(line)
        moment_of(told.received)
        expected: tuple[object, ...]
        if told.kind == "report":
            report = documents.decode_report(bytes(told.doc))
            expected = (report.app, report.id, None, None, None, None)
        else:
            batch = documents.decode_batch(bytes(told.doc))
            expected = (batch.app, batch.session, batch.first, batch.last, batch.lost, batch.terminal)
    except (Malformed, Invalid) as failure:
        return f"its document breaks a rule: {failure}"
    except (msgspec.MsgspecError, ValueError, RecursionError) as failure:
        return f"it is no line of a segment: {failure}"
    if (told.app, told.stream, told.first, told.last, told.lost, told.terminal) != expected:
        return "it tells other things than its document"
    if _SHA256.fullmatch(told.sha256) is None:
        return "its sha256 is none"
    return told
