"""``show``: what there is of a stream, wherever it lies.

Takes   the name of a session or report, the data folder, the archive.
Gives   a line of JSON an entry on standard output, in index order, each index once.
Never   prints anything there if nothing is known of the stream.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from .. import archiving
from ..beside import reader
from ..errors import UnknownStream
from ..segments.told import Told
from ..settings import Settings

HELP = "Print what is stored of a session or report, a line an entry, in index order."
EXAMPLE = "tallypost-server show 0f5e8d7c6b5a49382716051423324150"
SETTINGS: frozenset[str] = frozenset({"archive"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stream."""
    parser.add_argument("stream", metavar="STREAM", help="A session, or the id of a report: 32 hex digits.")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the entries."""
    # The segments first: what goes from there meanwhile is in the archive then. What is archived stays as it is.
    stored, told = reader(settings).lines_of(arguments.stream), Told()
    if "://" in settings.archive or Path(settings.archive).is_dir():
        archiving.archive_reader(settings).tell(arguments.stream, told)
    for line in stored:
        told.add_line(line)
    if told.is_empty:
        raise UnknownStream(arguments.stream)
    for entry in told.entries():
        sys.stdout.buffer.write(msgspec.json.encode(entry) + b"\n")
    sys.stdout.flush()
    return 0
