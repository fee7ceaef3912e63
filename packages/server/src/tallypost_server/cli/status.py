"""``status``: how much there is, what waits for the archive, and how old the oldest of it is.

Takes   the data folder, beside a server or without one; the coordinator, if there is one.
Gives   facts on standard output.
Never   takes the lock; never makes a coordinator.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import archiving, limits
from ..beside import reader
from ..clock import SystemClock
from ..settings import Settings

HELP = "Print how many segments and streams there are, what waits, what is parked, and how old the oldest document is."
EXAMPLE = "tallypost-server status --json"
SETTINGS: frozenset[str] = frozenset({"coordinator"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing."""


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the facts."""
    counts = reader(settings).counts()
    waits = archiving.waiting(settings)
    moments = [moment for moment in (waits.oldest, reader(settings).oldest_but(waits.registered)) if moment is not None]
    now = SystemClock().now().timestamp()
    oldest = max(0.0, now - min(moments)) if moments else 0.0
    ahead = 0.0 if waits.believed is None else max(0.0, now - waits.believed)
    facts: dict[str, Any] = {
        "segments": {"open": counts.open, "sealed": counts.sealed, "bytes": counts.bytes},
        "streams": waits.streams,
        "tasks": waits.tasks,
        "lag": {"oldest_unarchived_s": round(oldest, 3)},
        "parked": waits.parked,
        "clock": {"ahead_s": round(ahead, 3)},
    }
    if arguments.json:
        print(json.dumps(facts))
        return 0
    print(f"segments  {counts.open} open, {counts.sealed} sealed, {counts.bytes} bytes")
    print("streams   " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in waits.streams.items()))
    print("tasks     " + ", ".join(f"{number} {name}" for name, number in waits.tasks.items()))
    print(f"lag       the oldest document that is not archived came {oldest:.0f} s ago")
    if ahead > limits.clock_leap_days_max * 86_400:
        print(
            f"clock     {ahead / 86_400:.0f} days ahead of what archivists go by: nothing is removed or forgotten by it"
        )
    for parked in waits.parked:
        print(f"parked    {parked['stream']} of {parked['app']} since {parked['at']}: {parked['reason']}")
    return 0
