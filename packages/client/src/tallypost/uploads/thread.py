"""The uploader of a long-lived server: a thread that looks once a minute whether the day's work is due.

Takes   a way to the daily work.
Gives   one daemon thread a state directory and process.
Never   lets an error of the daily work out; the next tick tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..daily import Daily  # Loaded by the thread itself: the first count of a process does not wait for it.

TICK_SECONDS = 60.0

_threads: dict[str, threading.Thread] = {}


def start_thread(key: str, daily: Callable[[], Daily]) -> None:
    """Start the thread, unless one lives; after a fork the child has none and starts its own."""
    thread = _threads.get(key)
    if thread is None or not thread.is_alive():
        thread = _threads[key] = threading.Thread(target=_tick, args=(daily,), name="tallypost-uploader", daemon=True)
        thread.start()


def _tick(daily: Callable[[], Daily]) -> None:
    waiting = threading.Event()
    while True:
        try:
            work = daily()
            if work.is_due():
                work.upload(now=False)
        except Exception:  # noqa: BLE001, S110  # A full disk today is no reason to stop for ever; nothing was lost by it.
            pass
        waiting.wait(TICK_SECONDS)
