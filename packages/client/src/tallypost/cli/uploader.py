"""The detached uploader: a process of its own that does the day's work once and ends within a minute.

Takes   the folder of state directories and an application's name, as arguments.
Gives   the three phases.
Never   writes to a console; never lives longer than `run_seconds_max` and a margin.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

from .. import limits

# A run ends by itself within `run_seconds_max`; what is still there then hangs.
_MARGIN_SECONDS = 5.0
_DESCRIPTORS_MAX = 65_536
# Whoever started it, and the user, go first: a command that counts and ends is not to wait for a processor.
_NICENESS = 10


def main(arguments: Sequence[str], *, seconds_max: float = limits.run_seconds_max + _MARGIN_SECONDS) -> None:
    """Do the day's work."""
    # A name server, a proxy or a disk that hangs must not leave a process behind.
    watchdog = threading.Timer(seconds_max, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    base, application = arguments
    # Descriptors that the host left inheritable are none of ours.
    allowed = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else 1024
    os.closerange(3, min(max(allowed, 1024), _DESCRIPTORS_MAX))
    # Only now: from here on whatever hangs is watched.
    from ..installed import daily_of

    daily_of(base, application, environ=os.environ).upload(now=False)


if __name__ == "__main__":
    main(sys.argv[1:])
