from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tallypost.state_directory import StateDirectory
from tallypost.uploads.pending import Pending
from tallypost.uploads.thread import last_trouble, start_thread

# Where this very code lies: a program that a test starts imports the same.
PLACES = [str(Path(sys.modules[name].__file__ or "").parent.parent) for name in ("tallypost", "tallypost_schema")]

# A server that counts; after that it says when its own work was over, and ends.
HOST = """
import os, sys, threading, time
from tallypost import Telemetry

telemetry = Telemetry(
    "example.org/mytool", "1.2.3", dir=os.environ["BASE"], endpoint=os.environ["ENDPOINT"], uploader=os.environ["KIND"]
)
telemetry.counter("cmd/export").inc()
exec(sys.argv[1])
os.write(1, b"%d" % time.monotonic_ns())
"""


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


def test_trouble_of_the_last_tick_is_kept_and_goes_with_the_next_good_one() -> None:
    """An error of the work is told to whoever asks, until the work succeeds."""
    begin, end = threading.Semaphore(0), threading.Semaphore(0)
    troubles: list[Exception | None] = [OSError(28, "No space left on device"), ValueError("odd"), None, None]

    def work() -> None:
        end.release()
        assert begin.acquire(timeout=10)
        trouble = troubles.pop(0)
        if trouble is not None:
            raise trouble

    told = []
    start_thread("a third one of this test", work, seconds=0)
    for _ in range(4):
        assert end.acquire(timeout=10)
        told.append(last_trouble("a third one of this test"))
        begin.release()

    assert [None, "OSError: [Errno 28] No space left on device", "ValueError: odd", None] == told


def test_trouble_of_a_directory_without_a_thread_is_none() -> None:
    """Where there is no thread there is no trouble."""
    assert last_trouble("never started") is None


@pytest.fixture
def environ(pending: Pending, directory: StateDirectory, base: Path) -> dict[str, str]:
    """The environment of a server whose next try has come."""
    Path(directory.not_before).write_text("0\n")
    hidden = ("PYTEST", "TALLYPOST", "COV_", "CI", "DO_NOT_TRACK", "PYTHON")
    kept = {
        variable: value
        for variable, value in os.environ.items()
        if not variable.startswith(hidden) and not variable.lower().endswith("_proxy")
    }
    told = {"BASE": str(base), "ENDPOINT": "http://127.0.0.1:9", "KIND": "thread"}
    return {**kept, **told, "PYTHONPATH": os.pathsep.join(PLACES)}


def run(environ: dict[str, str], after: str = "", meanwhile: Callable[[], object] = lambda: None) -> float:
    """Have a server count and end; how many milliseconds it took to end."""
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, after],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        meanwhile()
    except BaseException:
        host.kill()
        host.communicate()
        raise
    said, complained = host.communicate(timeout=30)
    ended = time.monotonic_ns()
    assert (0, b"") == (host.returncode, complained)
    return (ended - int(said)) / 1e6


@pytest.fixture
def silent(environ: dict[str, str]) -> Iterator[socket.socket]:
    """A server that takes connections and says nothing, which is the endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        environ["ENDPOINT"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield listening


# The answer would be waited for ten seconds; how much less an exit is delayed than this `make bench` tells.
MARGIN_MS = 1000


def test_thread_that_waits_for_an_answer_delays_no_exit(
    environ: dict[str, str], directory: StateDirectory, silent: socket.socket
) -> None:
    """A process ends while its thread waits, as soon as one without a thread that has loaded the same, and silently."""
    Path(directory.mode).write_text("on 2026-11-01 1 user\n")
    silent.settimeout(20)
    taken = []
    loads = "import tallypost.daily, tallypost.uploads.transport"
    # The server takes the connection on which the upload config is asked for, and will not answer.
    waits = "sys.stdin.read()"

    with_thread, without = [], []
    for _ in range(10):  # Others use this machine too: the best of each is what it takes.
        with_thread.append(run(environ, waits, lambda: taken.append(silent.accept()[0])))
        without.append(run({**environ, "KIND": "manual"}, loads))
        if min(with_thread) < min(without) + MARGIN_MS:
            break

    for connection in taken:
        connection.close()
    assert min(with_thread) < min(without) + MARGIN_MS


@pytest.mark.parametrize("waits", [0, 0.02, 0.05, 0.1, 0.2])
def test_process_that_ends_while_its_thread_is_at_work_ends_without_a_word(
    environ: dict[str, str], silent: socket.socket, waits: float
) -> None:
    """Whether the thread still imports what it needs or is at work: the process ends with 0 and prints nothing."""
    run(environ, f"time.sleep({waits})")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_process_has_a_thread_of_its_own_once_it_counts(environ: dict[str, str]) -> None:
    """A worker of a preforking server starts its own uploader with its first count, and no trouble is passed on."""
    after = """
from tallypost.uploads import thread
def troubled():
    raise OSError("in the parent")
key = telemetry._directory.path + "/other"
thread.start_thread(key, troubled)
while thread.last_trouble(key) is None: time.sleep(0.01)
def uploaders():
    return [one.name for one in threading.enumerate()].count("tallypost-uploader")
assert uploaders() == 2
child = os.fork()
if child == 0:
    assert uploaders() == 0
    telemetry.counter("cmd/export").inc()
    thread.start_thread(key, lambda: None)
    assert uploaders() == 2
    assert thread.last_trouble(key) is None
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""

    run({**environ, "PYTHONWARNINGS": "ignore"}, after)  # Python 3.12 on warns of a fork beside threads.
