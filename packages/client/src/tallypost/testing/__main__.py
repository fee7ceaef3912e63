"""``python -m tallypost.testing``: a command or program, and all that it starts, under another clock.

Takes   an instant, and the words of a command.
Gives   the command's own output and exit status.
Never   changes a clock but that of Tallypost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from ..clock import SHIFT_VARIABLE, SystemClock
from .clock import instant


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command or program, and all that it starts, under another clock."""
    parser = argparse.ArgumentParser(
        prog="python -m tallypost.testing",
        description="Run a command or program under another clock, which goes on from the instant given.",
        epilog="example:\n  python -m tallypost.testing --at 2026-11-20T12:00:00Z -- tallypost report",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--at", required=True, type=instant, metavar="TIME", help="a UTC time: 2026-11-20T12:00:00Z")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="tallypost …, python …, or another program")
    given = parser.parse_args(arguments)
    # The machine's own clock, not a shifted one: a shift within a shift is from the real time too.
    shift = given.at - SystemClock({}).now()
    environment = {**os.environ, SHIFT_VARIABLE: f"{shift:.3f}"}
    word, *rest = given.command
    ours = {"tallypost": [sys.executable, "-m", "tallypost"], "python": [sys.executable]}
    command = [*ours.get(word, [word]), *rest]
    if os.name == "posix":
        sys.stdout.flush()
        os.execvpe(command[0], command, environment)  # noqa: S606  # The command that the caller names.
    return subprocess.call(command, env=environment)  # noqa: S603  # As above.


if __name__ == "__main__":
    sys.exit(main())
