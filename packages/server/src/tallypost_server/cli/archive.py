"""``archive``: archives what is due, beside a server or without one; several may run at once.

Takes   the data folder, and where the archive lies.
Gives   rows in the archive; with ``--once`` an exit status when all that is due is done.
Never   takes the server's lock.
"""

from __future__ import annotations

import argparse

from .. import archiving
from ..logs import log_to_stderr
from ..settings import ARCHIVAL, Settings

HELP = "Put sessions together and archive what is due, until SIGTERM; serve does it by itself."
EXAMPLE = "tallypost-server --data /var/lib/tallypost archive --once"
SETTINGS: frozenset[str] = ARCHIVAL | {"log_format"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether once."""
    parser.add_argument(
        "--once", action="store_true", default=False, help="Scan, finish what is due, and end; wait for no more rows."
    )
    # The server's own child ends with it.
    parser.add_argument("--child-of", type=int, default=None, help=argparse.SUPPRESS)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Archive."""
    log_to_stderr(settings.log_format)
    return archiving.archive(settings, once=arguments.once, parent=arguments.child_of)
