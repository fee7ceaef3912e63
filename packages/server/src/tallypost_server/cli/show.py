"""``show``: what the server has of a stream.

Takes   the name of a session or report, and the data folder.
Gives   a line of JSON an entry on standard output, in index order, each index once.
Never   prints anything there if nothing is known of the stream.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from ..beside import reader
from ..settings import Settings

HELP = "Print what is stored of a session or report, a line an entry, in index order."
EXAMPLE = "tallypost-server show 0f5e8d7c6b5a49382716051423324150"
SETTINGS: frozenset[str] = frozenset()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stream."""
    parser.add_argument("stream", metavar="STREAM", help="A session, or the id of a report: 32 hex digits.")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the entries."""
    entries = reader(settings).entries(arguments.stream)
    for entry in entries:
        sys.stdout.buffer.write(msgspec.json.encode(entry) + b"\n")
    sys.stdout.flush()
    return 0
