"""The uploader of a long-lived server: a thread that looks once a minute whether the day's work is due.

Takes   the work to be done at each tick.
Gives   one daemon thread a state directory and process, and the trouble that its last tick had.
Never   lets an error of the work out; the next tick tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

TICK_SECONDS = 60.0

_threads: dict[str, threading.Thread] = {}
_troubles: dict[str, str] = {}


def start_thread(key: str, work: Callable[[], object], *, seconds: float = TICK_SECONDS) -> None:
    """Start the thread, unless one lives; after a fork the child has none and starts its own."""
    thread = _threads.get(key)
    if thread is None or not thread.is_alive():
        _troubles.pop(key, None)  # After a fork it is the parent's.
        thread = threading.Thread(target=_tick, args=(key, work, seconds), name="tallypost-uploader", daemon=True)
        _threads[key] = thread
        thread.start()


def last_trouble(key: str) -> str | None:
    """What the last tick of that directory's thread failed with; None if it did not, or there was none."""
    return _troubles.get(key)


def _tick(key: str, work: Callable[[], object], seconds: float) -> None:
    waiting = threading.Event()
    while True:
        try:
            work()
            _troubles.pop(key, None)
        except Exception as problem:  # noqa: BLE001  # A full disk today is no reason to stop for ever; nothing was lost.
            _troubles[key] = f"{type(problem).__name__}: {problem}"
        waiting.wait(seconds)
