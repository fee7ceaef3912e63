"""Several at work at once.

Takes   what each of them does until it is told to end.
Gives   a block in which they are at it; behind it they have ended.
Never   hides what one of them raised.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def together(number: int, work: Callable[[int, threading.Event], None]) -> Iterator[list[BaseException]]:
    """So many threads in which `work` runs; what they raised so far. At the block's end they are told to end."""
    ended, failures = threading.Event(), list[BaseException]()

    def run(name: int) -> None:
        try:
            work(name, ended)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert [] == failures
