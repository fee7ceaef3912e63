"""The uploader of a long-lived server: a thread that looks once a minute whether the day's work is due.

Takes   the work to be done at each tick.
Gives   one daemon thread a state directory and process.
Never   lets an error of the work out; the next tick tries again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

TICK_SECONDS = 60.0

_threads: dict[str, threading.Thread] = {}


def start_thread(key: str, work: Callable[[], object]) -> None:
    """Start the thread, unless one lives; after a fork the child has none and starts its own."""
    thread = _threads.get(key)
    if thread is None or not thread.is_alive():
        thread = _threads[key] = threading.Thread(target=_tick, args=(work,), name="tallypost-uploader", daemon=True)
        thread.start()


def _tick(work: Callable[[], object]) -> None:
    waiting = threading.Event()
    while True:
        # A full disk today is no reason to stop for ever; nothing was lost by it.
        with contextlib.suppress(Exception):
            work()
        waiting.wait(TICK_SECONDS)
