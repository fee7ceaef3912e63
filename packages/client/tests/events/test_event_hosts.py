"""What hosts do to a library that logs events in them: each event is logged once or counted as lost, in silence."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tallypost
import tallypost_schema
from tallypost import limits
from tallypost.disk import OsDisk
from tallypost.reports.look import look
from tallypost.reports.overview import losses_of
from tallypost.state_directory import StateDirectory

APPLICATION = "example.org/mytool"
PATHS = [os.path.dirname(os.path.dirname(package.__file__ or "")) for package in (tallypost, tallypost_schema)]
DECLARATION = f"""
application = "{APPLICATION}"
[events.step]
why = "To be found again"
owner = "the tests"
expires = "never"
fields = {{ n = "count" }}
"""
# What every program has: `log(n)`; `settle(n)`, which waits until so many events are in the logs, whosever they are;
# and `drain()`, which waits until the writer has nothing in its hand, so that nothing depends on how fast the end of
# the process is. The clock stands still, so that this is as long as it takes; the disk does while its `gate` is
# locked, and has no room while it is `full`.
BEGIN = """
import os, sys, time
from _thread import allocate_lock
from tallypost import Telemetry
from tallypost.disk import OsDisk
from tallypost.testing import FakeClock

class Disk(OsDisk):
    gate, reached, full, appends = allocate_lock(), False, False, 0
    def append(self, path, content):
        self.appends += 1
        self.reached = self.gate.locked()
        with self.gate:
            pass
        if self.full:
            raise OSError(28, "No space left on device")
        return super().append(path, content)

clock, disk = FakeClock(), Disk()

telemetry = Telemetry(
    "example.org/mytool", "1", declaration="telemetry.toml", uploader="manual", clock=clock, disk=disk
)

def log(n):
    telemetry.event("step", n=n)

def until(condition):
    while not condition():
        time.sleep(0.002)

def logged():
    folder, count = telemetry._directory.events, 0
    for name in disk.names(folder):
        try:
            count += disk.read(os.path.join(folder, name)).count(b'"index"')
        except FileNotFoundError:
            pass
    return count

def settle(n):
    until(lambda: logged() >= n)

def drain():
    def is_idle():
        with telemetry._events.writer._lock:
            return not len(telemetry._events.queue) and not telemetry._events.writer._waiting
    until(is_idle)
"""


class Host:
    """A machine, the programs on it that log events, and what they left."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder, self.state = folder, state
        self.directory = StateDirectory(str(state), APPLICATION)
        (folder / "telemetry.toml").write_text(DECLARATION)

    def start(self, body: str, *, first: str = "") -> subprocess.Popen[str]:
        """Start a program that does `body`."""
        path = self.folder / "program.py"
        path.write_text(first + BEGIN + textwrap.dedent(body))
        environ = {
            "TALLYPOST_DIR": str(self.state),
            "TALLYPOST": "local",
            "PYTHONPATH": os.pathsep.join([*PATHS, *sys.path[1:]]),
            "PYTHONWARNINGS": "ignore",  # From 3.12 on Python warns of forks beside threads, of which ours is one.
            "PATH": os.environ["PATH"],
        }
        return subprocess.Popen(
            [sys.executable, str(path)],
            cwd=self.folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, body: str, *, first: str = "") -> None:
        """Run a program that does `body`: it must end with 0 and say nothing."""
        went_well(self.start(body, first=first))

    def sessions(self) -> list[list[int]]:
        """The numbers that were logged, a list a session, by its first; no index is missing, or has two contents."""
        found = []
        for path in Path(self.directory.events).glob("*.jsonl"):
            numbers: dict[int, int] = {}
            for event in events_in(path):
                assert event["fields"]["n"] == numbers.setdefault(event["index"], event["fields"]["n"])
            assert [*range(len(numbers))] == sorted(numbers)
            found.append([numbers[index] for index in sorted(numbers)])
        return sorted(found)

    def logged(self) -> list[int]:
        """The numbers that were logged, of all sessions, sorted; none is there twice."""
        numbers = sorted(n for session in self.sessions() for n in session)
        assert len(set(numbers)) == len(numbers)
        return numbers

    def lost(self) -> int:
        """How many events were counted as lost."""
        return losses_of(look(self.directory, disk=OsDisk())).get("dropped-events", 0)


def went_well(program: subprocess.Popen[str]) -> None:
    """The host noticed nothing."""
    try:
        out, error = program.communicate(timeout=50)
    except BaseException:
        os.killpg(program.pid, signal.SIGKILL)  # Its children, too.
        raise
    assert (0, "", "") == (program.returncode, out, error)


def events_in(path: Path) -> list[dict[str, Any]]:
    """The events in a log; half a line, from a disk that was full in its middle, is none."""
    events = []
    for line in path.read_bytes().split(b"\n")[1:]:
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine on which nothing was logged yet."""
    return Host(tmp_path, tmp_path / "state")


@pytest.fixture
def small_host(tmp_path: Path) -> Iterator[Host]:
    """One whose disk has 400 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only a machine's administrator can make a small disk")
    try:
        yield Host(tmp_path, folder / "state")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# ---------------------------------------------------------------- processes


def test_forked_child_has_a_session_of_its_own(host: Host) -> None:
    """Both go on, each with its own indexes; what the parent's writer has not written yet is the parent's."""
    host.run(
        """
        for n in range(10):
            log(n)
        child = os.fork()
        for n in range(10, 20):
            log(n + 1000 * (child == 0))
        drain()
        if child == 0:
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        """
    )

    assert [[*range(20)], [*range(1010, 1020)]] == host.sessions()
    assert 0 == host.lost()


def test_fork_in_the_middle_of_an_append_stops_neither(host: Host) -> None:
    """The child logs while its parent's writer has the disk; then the parent logs on while the child lives."""
    host.run(
        """
        log(0)
        settle(1)
        disk.gate.acquire()
        log(1)
        until(lambda: disk.reached)
        end, ended = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ended)
            disk.gate = allocate_lock()
            log(1000)
            os.read(end, 1)
            sys.exit()
        os.close(end)
        settle(2)
        disk.gate.release()
        log(2)
        settle(4)
        os.close(ended)
        assert os.waitpid(child, 0)[1] == 0
        """
    )

    assert [[0, 1, 2], [1000]] == host.sessions()
    assert 0 == host.lost()


def test_fork_while_another_thread_loads_the_library_does_not_stop_the_child(host: Host) -> None:
    """The first event loads modules; the lock of one that was half loaded would be locked in the child for ever."""
    host.run(
        """
        import threading
        from tallypost.clock import SystemClock
        clock.sleep = SystemClock().sleep
        loading = threading.Event()
        class Slowly:
            @staticmethod
            def find_spec(name, *_):
                if name == "tallypost.events.session":
                    loading.set()
                    time.sleep(0.1)
        sys.meta_path.insert(0, Slowly)
        threading.Thread(target=log, args=(0,)).start()
        loading.wait()
        child = os.fork()
        if child == 0:
            log(1000)
            drain()
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        drain()
        """
    )

    assert [[0], [1000]] == host.sessions()
    assert 0 == host.lost()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no page is wiped at a fork")
@pytest.mark.parametrize("logs", [True, False])
def test_fork_made_from_c_gives_the_child_a_session_of_its_own(host: Host, logs: bool) -> None:
    """A fork that Python never heard of is found with the child's next event, and else at its end."""
    host.run(
        f"""
        import ctypes
        log(0)
        settle(1)
        disk.gate.acquire()
        log(1)
        until(lambda: disk.reached)
        log(2)
        time.sleep(0.1)  # Until no thread waits for the GIL: C does not have the child forget that.
        child = ctypes.PyDLL(None).fork()  # Without giving up the GIL: the child has it.
        if child == 0:
            disk.gate = allocate_lock()
            if {logs}:
                log(1000)
                drain()
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        disk.gate.release()
        log(3)
        drain()
        """
    )

    assert [[0, 1, 2, 3], [1000]][: 1 + logs] == host.sessions()
    assert 0 == host.lost()


def test_spawned_children_have_sessions_of_their_own(host: Host) -> None:
    """Each begins from nothing, and what is queued when it ends is written by its end."""
    host.run(
        """
        import multiprocessing

        if __name__ == "__main__":
            log(0)
            context = multiprocessing.get_context("spawn")
            children = [context.Process(target=log, args=(n,)) for n in (1, 2)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            assert [child.exitcode for child in children] == [0, 0]
            drain()
        """
    )

    assert [[0], [1], [2]] == host.sessions()
    assert 0 == host.lost()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pool_logs_in_every_worker(host: Host, method: str) -> None:
    """Workers of a pool, however they are started, log each in a session of its own."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no such start method")

    host.run(
        f"""
        import multiprocessing

        def work(n):
            log(n)
            drain()

        if __name__ == "__main__":
            log(1000)
            drain()
            with multiprocessing.get_context({method!r}).Pool(3) as pool:
                pool.map(work, range(60), chunksize=5)
                pool.close()
                pool.join()
            log(1001)
            drain()
        """
    )

    assert [*range(60), 1000, 1001] == host.logged()
    assert [1000, 1001] in host.sessions()
    assert 0 == host.lost()


def test_process_ended_by_os_exit_keeps_what_was_written(host: Host) -> None:
    """What is in the log survives whatever the process does then; what was only queued goes, as at a kill."""
    host.run("log(0)\nlog(1)\nsettle(2)\ndisk.gate.acquire()\nlog(2)\nos._exit(0)")

    assert [[0, 1]] == host.sessions()


# ---------------------------------------------------------------- threads, tasks, signals, destructors


def test_threads_of_64_that_overrun_the_queue_lose_counted_events(host: Host) -> None:
    """Far more than the queue holds, on a disk that stands still: nobody waits, and each is logged or counted."""
    host.run(
        """
        import threading
        disk.gate.acquire()
        def work(first):
            for n in range(first, first + 200):
                log(n)
        threads = [threading.Thread(target=work, args=(200 * n,)) for n in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        disk.gate.release()
        drain()
        """
    )

    logged = host.logged()
    assert limits.events_queued_max <= len(logged) <= limits.events_queued_max + limits.events_per_append_max + 64
    assert 64 * 200 == len(logged) + host.lost()


def test_asyncio_program_logs(host: Host) -> None:
    """Tasks of an event loop log like anybody."""
    host.run(
        """
        import asyncio

        async def work(first):
            for n in range(first, first + 10):
                log(n)
                await asyncio.sleep(0)

        async def main():
            await asyncio.gather(*(work(10 * n) for n in range(50)))

        asyncio.run(main())
        drain()
        """
    )

    assert [*range(500)] == host.logged()
    assert 0 == host.lost()


def test_signal_handler_logs_wherever_it_interrupts(host: Host) -> None:
    """In the middle of an event, of the writer's start, of the exit: each event is logged once or counted."""
    host.run(
        """
        import atexit, signal
        told = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        numbers = iter(range(10**9))
        def count():
            n = next(numbers)
            os.write(told, b"%d\\n" % n)
            log(n)
        def interrupt(*_):
            count()
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
        def stop():
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        atexit.register(stop)  # The first to be registered is the last to be called.
        signal.signal(signal.SIGALRM, interrupt)
        if sys.version_info < (3, 12):
            log(next(numbers))  # There an import that is interrupted by the same import may wait for itself.
            os.write(told, b"0\\n")
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        for _ in range(1000):
            count()
        drain()
        for _ in range(500):  # These the end finds in the queue.
            count()
        """
    )

    told = [int(line) for line in (host.folder / "told").read_text().split()]
    logged = host.logged()
    assert set(logged) <= set(told)
    # What the writer has in its hand at the end is counted, and may get into the log all the same.
    assert 1000 <= len(logged) <= len(told) <= len(logged) + host.lost()


def test_signal_that_the_host_waits_for_is_not_taken_by_the_writer(host: Host) -> None:
    """A program without other threads blocks a signal and waits for it: our thread must not die of it in its place."""
    host.run(
        """
        import signal
        log(0)
        settle(1)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.sigwait({signal.SIGTERM}) == signal.SIGTERM
        """
    )


def test_destructors_log_during_collection(host: Host) -> None:
    """The collector runs in the middle of anything, ours included, in whichever thread."""
    host.run(
        """
        import gc
        gc.set_threshold(1, 1, 1)
        numbers = iter(range(10**9))
        class Late:
            def __init__(self):
                self.me = self
            def __del__(self):
                log(next(numbers))
        for _ in range(300):
            Late()
        gc.collect()
        gc.set_threshold(0)
        assert next(numbers) == 300
        drain()
        """
    )

    assert [*range(300)] == host.logged()
    assert 0 == host.lost()


# ---------------------------------------------------------------- the end of a process


def test_exit_handler_of_the_application_logs_after_ours(host: Host) -> None:
    """What is logged when the writer has come to its end is written where it is logged."""
    host.run("import atexit\natexit.register(lambda: [log(n) for n in range(1, 100)])\nlog(0)\ndrain()")

    assert [[0], [*range(1, 100)]] == host.sessions()
    assert 0 == host.lost()


def test_daemon_threads_that_log_to_the_end_do_not_delay_it(host: Host) -> None:
    """The exit does not wait until they pause, which they never do."""
    host.run(
        """
        import threading
        def work():
            while True:
                log(0)
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        settle(100)
        """
    )

    assert len(host.sessions()[0]) >= 100


def test_exit_with_a_writer_that_is_stuck_waits_no_longer_than_it_may(host: Host) -> None:
    """A disk that stands still for ever holds up nobody's end; what was not written is counted as lost."""
    host.run(
        """
        import atexit
        begin = []
        atexit.register(lambda: open("took", "w").write(str(time.monotonic() - begin[0])))
        atexit.register(log, 3)
        log(0)
        settle(1)
        disk.gate.acquire()
        log(1)
        until(lambda: disk.reached)
        log(2)
        atexit.register(lambda: begin.append(time.monotonic()))
        """
    )

    assert [[0]] == host.sessions()
    assert 3 == host.lost()
    # It may take 0.05 s; a machine that is busy with other things takes its time all the same.
    assert limits.exit_seconds_max <= float((host.folder / "took").read_text()) < 5


def test_thread_that_cannot_start_has_events_wait_for_the_end(host: Host) -> None:
    """Memory holds what the queue holds; the end writes it, and the rest is counted."""
    host.run(
        "for n in range(2100):\n    log(n)",
        first="""
import _thread
def refuse(*_):
    raise RuntimeError("can't start new thread")
_thread.start_new_thread = refuse
""",
    )

    assert [[*range(limits.events_queued_max)]] == host.sessions()
    assert 2100 - limits.events_queued_max == host.lost()


# ---------------------------------------------------------------- the disk


def test_disk_full_at_any_write_of_events_is_felt_by_nobody(small_host: Host) -> None:
    """A host on a disk that is full at one place or another ends as ever, and each event is logged or counted."""
    folder = small_host.state.parent
    for room in range(0, 400_000, 32768):
        for path in folder.iterdir():
            subprocess.run(["rm", "-rf", str(path)], check=True)
        with (folder / "filler").open("wb") as filler, contextlib.suppress(OSError):
            filler.write(bytes(400_000 - room))

        small_host.run("for n in range(2000):\n    log(n)")

        # Of an append that failed half-way a part is in the log, and is counted too. Else there was no room to say so.
        assert 2000 <= len(small_host.logged()) + small_host.lost() or small_host.lost() == 0


def test_disk_that_has_room_again_gets_what_waited(small_host: Host) -> None:
    """A disk that was full for a while costs nothing that the queue could hold, nor an index."""
    filler = small_host.state.parent / "filler"
    small_host.run(
        f"""
        log(0)
        settle(1)
        with open({str(filler)!r}, "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(512))
            except OSError:
                pass
        for n in range(1, 300):
            log(n)
        until(lambda: telemetry._events.writer.trouble is not None)
        assert "No space left" in telemetry.status()["events"]
        for n in range(300, 600):
            log(n)
        os.unlink({str(filler)!r})
        drain()
        assert telemetry._events.writer.trouble is None
        """
    )

    assert [[*range(600)]] == small_host.sessions()
    assert 0 == small_host.lost()


def test_disk_that_stays_full_costs_a_busy_host_little(host: Host) -> None:
    """An append that failed is not made again with every event: the host's processor is the host's."""
    host.run(
        f"""
        log(0)
        settle(1)
        disk.full = True
        begin, n = time.monotonic(), 1
        while n < 200 or time.monotonic() < begin + 0.3:
            log(n)
            n += 1
            time.sleep(0.001)
        assert disk.appends <= 3 + (time.monotonic() - begin) / {limits.append_retry_seconds}, disk.appends
        disk.full = False
        drain()
        """
    )

    (session,) = host.sessions()
    assert [*range(len(session))] == session
    assert len(session) >= 200
    assert 0 == host.lost()


@pytest.mark.parametrize("removed", ["events/*.jsonl", "events", "private", ""])
def test_log_or_folder_that_is_removed_under_the_process_begins_a_new_session(host: Host, removed: str) -> None:
    """Whatever somebody removed is gone, and what comes then is logged."""
    host.run(
        f"""
        import glob, shutil
        log(0)
        settle(1)
        (path,) = glob.glob(os.path.join(telemetry._directory.path, {removed!r}))
        os.unlink(path) if path.endswith(".jsonl") else shutil.rmtree(path)
        log(1)
        drain()
        log(2)
        drain()
        """
    )

    assert [[0], [1, 2]][removed != "private" :] == host.sessions()
    assert 0 == host.lost()


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("jump", [-86400 * 3, -1, 3600, 86400 * 400, -86400 * 400])
def test_clock_that_jumps_costs_nothing(host: Host, jump: int) -> None:
    """Forth or back, by a second or a year: each event is logged once, and nobody waits for the old time to come."""
    host.run(
        f"""
        log(0)
        settle(1)
        clock.sleep({jump})
        for n in range(1, 50):
            log(n)
        settle(50)
        clock.sleep({-jump})
        for n in range(50, 60):
            log(n)
        drain()
        """
    )

    assert [*range(60)] == host.logged()
    assert 0 == host.lost()


def test_session_goes_on_over_midnight(host: Host) -> None:
    """A session is a run of a process, not of a day."""
    host.run(
        """
        clock.set("2026-11-19T23:59:59Z")
        log(0)
        settle(1)
        clock.set("2026-11-20T00:00:00Z")
        log(1)
        drain()
        """
    )

    assert [[0, 1]] == host.sessions()
    (path,) = Path(host.directory.events).iterdir()
    assert ["2026-11-19", "2026-11-20"] == [event["at"][:10] for event in events_in(path)]
