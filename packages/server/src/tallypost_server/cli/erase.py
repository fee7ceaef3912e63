"""``erase``: removes a stream everywhere, for good, and says from where.

Takes   the name of a session or report; the data folder and the archive, beside a server and archivists or without.
Gives   what was removed from where on standard output; exit 0 also where nothing was known of it.
Never   returns before it is done, or it says what is left to do.
"""

from __future__ import annotations

import argparse
import json
import re
import sys

import msgspec

from ..errors import WrongUse
from ..settings import Settings

HELP = "Remove a session or report everywhere, for good; what comes of it later is taken and dropped."
EXAMPLE = "tallypost-server erase --stream 0f5e8d7c6b5a49382716051423324150"
SETTINGS: frozenset[str] = frozenset({"archive", "coordinator", "seal_seconds"})
_STREAM = re.compile(r"[0-9a-f]{32}")
_PLACES = {
    "open": "lines of open segments",
    "segments": "lines of sealed segments",
    "coordinator": "entries of the coordinator",
    "reports": "rows of the archive's reports",
    "events": "rows of the archive's events",
    "sessions": "rows of the archive's sessions",
    "parked": "files of parked/",
    "quarantine": "files of quarantine/",
    "damaged": "files of quarantine/damaged/",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stream."""
    parser.add_argument(
        "--stream", metavar="ID", required=True, help="A session, or the id of a report: 32 hex digits."
    )


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Erase it."""
    if _STREAM.fullmatch(arguments.stream) is None:
        raise WrongUse(f"{arguments.stream!a:.80} is no stream: 32 digits of 0-9 and a-f")
    from ..erasing import Erasure  # It loads more than other commands need.

    erasure = Erasure(settings)
    removed = erasure.erase(arguments.stream)
    numbers: dict[str, int] = msgspec.to_builtins(removed)
    if arguments.json:
        print(json.dumps({"stream": arguments.stream, "removed": numbers, "unreadable": erasure.unreadable}))
    else:
        for name, number in numbers.items():
            if number:
                print(f"{number} {_PLACES[name]}")
        print("nothing was known of it" if removed.nothing else "it is erased")
    for name in erasure.unreadable:
        print(f"{name} is damaged: what cannot be read of it may hold something of the stream", file=sys.stderr)
    return 1 if any(name.startswith("segments/") for name in erasure.unreadable) else 0
