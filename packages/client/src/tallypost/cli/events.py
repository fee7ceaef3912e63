"""`tallypost show --events`: each event a line, and with `--follow` each new one as it comes.

Takes   the events of one application, and where to write.
Gives   lines; for programs one JSON object a line.
Never   ends by itself while it follows: Ctrl-C does that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import msgspec

from ..events.overview import ShownEvent

if TYPE_CHECKING:
    from ..seams import Clock

FOLLOW_SECONDS = 0.5
WITHHELD = "(withheld)"


def show_events(
    events: Callable[[], list[ShownEvent]],
    *,
    as_json: bool,
    chosen: Callable[[ShownEvent], bool],
    follow: bool,
    clock: Clock,
    out: TextIO,
) -> int:
    """Print the events that are `chosen`; how many they were."""
    printed: set[tuple[str, int]] = set()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for event in events():
                if (event.session, event.index) not in printed and chosen(event):
                    printed.add((event.session, event.index))
                    print(json_of(event) if as_json else line_of(event), file=out)
            out.flush()
            if not follow:
                break
            clock.sleep(FOLLOW_SECONDS)
    return len(printed)


def line_of(event: ShownEvent) -> str:
    """One event for people: when, what, its fields, and where it lies if that is not its log."""
    fields = " ".join(f"{key}={_value(value)}" for key, value in event.fields.items())
    place = "" if event.where == "log" else f"  [{event.where}]"
    return (
        f"{event.at or '-':24}  {event.session[:8]}/{event.index}  {event.name or WITHHELD}  {fields}".rstrip() + place
    )


def json_of(event: ShownEvent) -> str:
    """One event for programs."""
    return json.dumps(msgspec.structs.asdict(event))


def _value(value: str | bool | float) -> str:
    if isinstance(value, str):
        return value if value and " " not in value and value.isprintable() else json.dumps(value)
    return json.dumps(value)
