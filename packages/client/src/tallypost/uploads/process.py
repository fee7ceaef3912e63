"""The detached uploader: a process of its own that does the day's work once and ends within a minute.

Takes   the folder of state directories and an application's name, as arguments.
Gives   the three phases.
Never   writes to a console; never lives longer than `run_seconds_max` and a margin.
"""

from __future__ import annotations

import os
import sys
import threading

from .. import limits
from ..installed import daily_of


def main() -> None:
    """Do the day's work."""
    # A name server, a proxy or a disk that hangs must not leave a process behind.
    watchdog = threading.Timer(limits.run_seconds_max, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    base, application = sys.argv[1:]
    # Descriptors that the host left inheritable are none of ours.
    os.closerange(3, 1024)
    daily_of(base, application, environ=os.environ).upload(now=False)


if __name__ == "__main__":
    main()
