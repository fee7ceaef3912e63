from __future__ import annotations

import threading

from tallypost.uploads.thread import start_thread


def test_start_thread_again_for_the_same_directory_starts_no_other_one() -> None:
    """One thread a state directory and process, and it is no reason for a process to stay."""
    asked = threading.Semaphore(0)

    def work() -> None:
        asked.release()
        raise OSError("the disk is away today")

    before = set(threading.enumerate())
    for _ in range(3):
        start_thread("the one of this test", work)

    assert asked.acquire(timeout=10)
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert [("tallypost-uploader", True)] == [(thread.name, thread.daemon) for thread in started]


def test_thread_lives_on_after_an_error_of_the_work() -> None:
    """A full disk today is no reason to stop for ever."""
    asked = threading.Event()

    def work() -> None:
        asked.set()
        raise OSError("the disk is full")

    before = set(threading.enumerate())
    start_thread("the other one of this test", work)

    assert asked.wait(10)
    [started] = [thread for thread in threading.enumerate() if thread not in before]
    started.join(0.05)
    assert started.is_alive()
