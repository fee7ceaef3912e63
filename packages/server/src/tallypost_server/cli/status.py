"""``status``: how much there is and how old the oldest of it is.

Takes   the data folder, beside a server or without one.
Gives   facts on standard output.
Never   takes the lock.
"""

from __future__ import annotations

import argparse
import json

from ..beside import reader
from ..clock import SystemClock
from ..settings import Settings

HELP = "Print how many segments there are and how old the oldest document is."
EXAMPLE = "tallypost-server status --json"
SETTINGS: frozenset[str] = frozenset()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing."""


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the facts."""
    counts = reader(settings).counts()
    oldest = 0.0 if counts.oldest is None else max(0.0, SystemClock().now().timestamp() - counts.oldest)
    facts = {
        "segments": {"open": counts.open, "sealed": counts.sealed, "bytes": counts.bytes},
        "lag": {"oldest_unarchived_s": round(oldest, 3)},
    }
    if arguments.json:
        print(json.dumps(facts))
    else:
        print(f"segments  {counts.open} open, {counts.sealed} sealed, {counts.bytes} bytes")
        print(f"lag       the oldest document that is not archived came {oldest:.0f} s ago")
    return 0
