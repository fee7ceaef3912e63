"""The session log, ``events/<session>.jsonl``, as the process that owns it writes it.

Takes   what is known of a session, and events with their indexes.
Gives   lines: a header, then an event each.
Never   reads one (``log_reader.py``).

By hand, because loading a JSON library costs a short process more than all its events; what is spelled here was checked
before, and the reader's tests hold it against a real one. The format stands in ``docs/formats/session-log.md``.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .declared_events import Value


def header_line(first: int, facts: dict[str, str]) -> bytes:
    """The first line: the index at which the log goes on, then what the session was begun under."""
    return (f'{{"v":1,"first":{first},' + ",".join(f'"{key}":{_quoted(facts[key])}' for key in facts) + "}\n").encode()


def event_line(index: int, name: str, now: float, fields: dict[str, Value]) -> bytes:
    """One event; its index is its own, so that damage before it moves nothing."""
    spelled = ",".join(f'"{key}":{_spelled(value)}' for key, value in fields.items())
    return f'{{"index":{index},"name":"{name}","at":"{spelled_ms(now)}","fields":{{{spelled}}}}}\n'.encode()


def spelled_ms(now: float) -> str:
    """An instant to the millisecond, as 2026-11-24T10:00:00.123Z."""
    ms = int(now * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"


def _spelled(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _quoted(text: str) -> str:
    # No control character is in it: labels and declared words have none.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
