"""What hosts do to a library that counts in them: forks of every kind, full tables, file systems that lie."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tallypost
import tallypost_schema
from tallypost import Telemetry
from tallypost import limits as client_limits
from tallypost.counts.memory_cells import MemoryCells
from tallypost.counts.recorder import Recorder
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk

Start = Callable[..., Telemetry]
Counted = Callable[[], dict[str, dict[str, int]]]

PATHS = [os.path.dirname(os.path.dirname(package.__file__ or "")) for package in (tallypost, tallypost_schema)]


def run(tmp_path: Path, body: str, *, first: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """A program that has `telemetry` and does `body`, in a process of its own; it must end with 0 and say nothing."""
    program = (
        first
        + (
            "from tallypost import Telemetry\n"
            "telemetry = Telemetry('example.org/mytool', '1', uploader='manual')\n"
            "counter = telemetry.counter('cmd/export')\n"
        )
        + textwrap.dedent(body)
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    environ = {
        "TALLYPOST_DIR": str(tmp_path / "state"),
        "TALLYPOST": "local",
        "PYTHONPATH": os.pathsep.join([*PATHS, *sys.path[1:]]),
        "PATH": os.environ["PATH"],
        **environ,
    }
    return subprocess.run(
        [sys.executable, str(path)], env=environ, capture_output=True, text=True, timeout=50, check=False
    )


def total(tmp_path: Path, name: str = "cmd/export") -> int:
    """What `tallypost show` tells of a name, of all days."""
    told = subprocess.run(
        [sys.executable, "-m", "tallypost", "--dir", str(tmp_path / "state"), "--json", "show"],
        env={"PYTHONPATH": os.pathsep.join(PATHS), "TALLYPOST": "local"},
        capture_output=True,
        check=True,
    )
    days: list[dict[str, Any]] = json.loads(told.stdout)["days"]
    return sum(program["counters"].get(name, 0) for day in days for program in day["programs"])


def went_well(done: subprocess.CompletedProcess[str]) -> None:
    """The host noticed nothing."""
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_threads_of_64_give_the_exact_sum(application: Start, counted: Counted) -> None:
    """64 threads count 1,000 each; for long forms see the proofs. Why it is certain: see the byte code's test."""
    exports = application().counter("cmd/export")
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=lambda: [exports.inc() for _ in range(1000)]) for _ in range(64)]

    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch_interval)

    assert {"cmd/export": 64_000} == counted()["2026-11-20"]


@pytest.mark.long
def test_threads_of_64_with_100000_each_give_the_exact_sum(application: Start, counted: Counted) -> None:
    """The same in full: 6,400,000 increments."""
    exports = application().counter("cmd/export")

    def work() -> None:
        for _ in range(100_000):
            exports.inc()

    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work) for _ in range(64)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch_interval)

    assert {"cmd/export": 6_400_000} == counted()["2026-11-20"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no page is wiped at a fork")
def test_fork_made_from_c_gives_the_child_a_file_of_its_own(
    application: Start, counted: Counted, directory: StateDirectory
) -> None:
    """A fork that Python never heard of is found at the next increment."""
    exports = application().counter("cmd/export")
    exports.inc()
    fork = ctypes.PyDLL(None).fork  # Without giving up the GIL: the child has it.

    child = fork()
    if child == 0:
        exports.inc(10)
        exports.inc(10, bucket="pdf")
        os._exit(0)
    os.waitpid(child, 0)
    exports.inc(100)

    assert {"cmd/export": 121, "cmd/export:pdf": 10} == counted()["2026-11-20"]
    assert 2 == len(os.listdir(directory.counts))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pool_counts_in_every_worker(tmp_path: Path, method: str) -> None:
    """Workers of a pool, however they are started, count each in a file of its own, and nothing is lost."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no such start method")

    done = run(
        tmp_path,
        f"""
        import multiprocessing

        def work(n):
            counter.inc(n)
            return n

        if __name__ == "__main__":
            counter.inc(1000)
            with multiprocessing.get_context({method!r}).Pool(4) as pool:
                assert sum(pool.map(work, range(100))) == 4950
                pool.close()
                pool.join()
            counter.inc(1000)
        """,
    )

    went_well(done)
    assert 6950 == total(tmp_path)


def test_process_ended_by_os_exit_keeps_its_counts(tmp_path: Path) -> None:
    """Nothing is done at exit, so nothing is missed by an exit without clean-up."""
    done = run(tmp_path, "import os\ncounter.inc(3)\nos._exit(0)")

    went_well(done)
    assert 3 == total(tmp_path)


def test_counts_at_interpreter_shutdown_are_kept(tmp_path: Path) -> None:
    """Counting in `atexit`, and in destructors while modules are taken down, is counting as ever."""
    done = run(
        tmp_path,
        """
        import atexit

        class Late:
            def __del__(self, counter=counter):
                counter.inc(5)

        late = Late()
        atexit.register(counter.inc, 7)
        """,
    )

    went_well(done)
    assert 12 == total(tmp_path)


def test_preforking_server_counts_in_its_workers(tmp_path: Path) -> None:
    """A server that counts before it forks its workers, and goes on, as gunicorn does."""
    done = run(
        tmp_path,
        """
        import os
        counter.inc()
        workers = []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                for _ in range(1000):
                    counter.inc()
                os._exit(0)
            workers.append(pid)
        for _ in range(1000):
            counter.inc()
        assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in workers)
        """,
    )

    went_well(done)
    assert 9001 == total(tmp_path)


def test_asyncio_program_counts(tmp_path: Path) -> None:
    """Tasks of an event loop count like anybody."""
    done = run(
        tmp_path,
        """
        import asyncio

        async def work():
            for _ in range(10):
                counter.inc()
                await asyncio.sleep(0)

        async def main():
            await asyncio.gather(*(work() for _ in range(50)))

        asyncio.run(main())
        """,
    )

    went_well(done)
    assert 500 == total(tmp_path)


def test_reload_of_the_library_does_no_harm(tmp_path: Path) -> None:
    """Old counters count on after a reload, and new ones beside them."""
    done = run(
        tmp_path,
        """
        import importlib, sys
        counter.inc()
        for name in sorted(name for name in sys.modules if name.startswith("tallypost")):
            importlib.reload(sys.modules[name])
        counter.inc()
        again = sys.modules["tallypost"].Telemetry("example.org/mytool", "1", uploader="manual").counter("cmd/export")
        again.inc()
        """,
    )

    went_well(done)
    assert 3 == total(tmp_path)


def test_interpreter_without_a_global_lock_counts_under_the_recorders(clock: FakeClock) -> None:
    """Where an increment is no single step no cell is handed out: each increment takes the recorder's lock."""
    cells = MemoryCells()
    recorder = Recorder(take=lambda now: cells, clock=clock, gil=False)
    counter = recorder.counter("cmd/export")
    threads = [threading.Thread(target=lambda: [counter.inc(bucket="pdf") for _ in range(500)]) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counter._cell is None
    assert {"cmd/export": 4000, "cmd/export:pdf": 4000} == {name: cell[0] for name, cell in cells.cells.items()}


@pytest.mark.parametrize("patched", ["before", "after"])
def test_greenlets_and_their_threads_count(tmp_path: Path, patched: str) -> None:
    """A program that gevent has patched, before or after it loaded the library, counts right."""
    patch = "from gevent import monkey; monkey.patch_all()\n"
    body = """
        import gevent, threading
        from gevent.threadpool import ThreadPool

        def work():
            for _ in range(100):
                counter.inc(bucket="pdf")
                gevent.sleep(0)

        pool = ThreadPool(4)
        real = [pool.spawn(lambda: [counter.inc() for _ in range(1000)]) for _ in range(4)]
        gevent.joinall([gevent.spawn(work) for _ in range(20)])
        gevent.joinall(real)
        """

    done = run(
        tmp_path, (patch if patched == "after" else "") + textwrap.dedent(body), first=patch * (patched == "before")
    )

    went_well(done)
    assert 6000 == total(tmp_path)


def test_subinterpreter_does_no_harm(tmp_path: Path) -> None:
    """A second interpreter in the process counts in a file of its own, or not at all, and harms neither."""
    name = next((name for name in ("_interpreters", "_xxsubinterpreters") if _is_there(name)), None)
    if name is None:
        pytest.skip("this Python has no module for them")

    done = run(
        tmp_path,
        f"""
        import os, sys
        import {name} as interpreters
        counter.inc()
        other = interpreters.create()
        code = "from tallypost import Telemetry\\n" \\
               "Telemetry('example.org/mytool', '1', uploader='manual').counter('cmd/export').inc(10)\\n"
        interpreters.run_string(other, code)
        interpreters.destroy(other)
        counter.inc()
        """,
    )

    assert 0 == done.returncode, done.stderr
    assert total(tmp_path) in (2, 12)


def test_process_without_descriptors_left_counts_in_memory(tmp_path: Path) -> None:
    """Where no file can be opened any more the host notices nothing, and `status` says why."""
    done = run(
        tmp_path,
        """
        import os, resource
        telemetry.mode  # Modules are loaded before there is nothing to load them with.
        import tallypost.counts.slots, mmap, fcntl, zlib
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for _ in range(1000):
            counter.inc()
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        assert "Too many open files" in telemetry._recorder.memory_reason, telemetry._recorder.memory_reason
        """,
    )

    went_well(done)


def test_file_system_that_is_not_trusted_gets_a_file_written_to(
    application: Start, counted: Counted, directory: StateDirectory, disk: FaultyDisk, clock: FakeClock
) -> None:
    """On a network file system a process writes its own file, without mapping and lock; nothing else changes."""
    disk.trusted = False
    telemetry = application()
    exports = telemetry.counter("cmd/export")

    exports.inc()
    exports.inc(4, bucket="pdf")
    for n in range(500):
        telemetry.counter(f"name/{n}").inc(n)

    values = counted()["2026-11-20"]
    assert (5, 4, 499) == (values["cmd/export"], values["cmd/export:pdf"], values["name/499"])
    assert 1 == len(os.listdir(directory.counts))


def test_counts_in_memory_reach_a_written_file(
    application: Start, counted: Counted, disk: FaultyDisk, clock: FakeClock
) -> None:
    """Several names that were counted in memory are carried over there too."""
    disk.trusted = False
    exports = application().counter("cmd/export")
    disk.fail(OSError(28, "No space left on device"))
    exports.inc(bucket="pdf")
    disk.fail(None)
    clock.sleep(client_limits.memory_seconds_max)

    exports.inc()

    assert {"cmd/export": 2, "cmd/export:pdf": 1} == counted()["2026-11-20"]


def test_written_file_is_folded_after_two_days_of_silence(
    application: Start, directory: StateDirectory, disk: FaultyDisk, clock: FakeClock
) -> None:
    """Without a lock only silence tells that its owner has ended; then it is folded, once, and removed."""
    disk.trusted = False
    telemetry = application()
    telemetry.counter("cmd/export").inc(5)
    telemetry.close()
    (name,) = os.listdir(directory.counts)
    path = os.path.join(directory.counts, name)
    os.utime(path, (clock.now(), clock.now()))
    daily = application()._daily()
    clock.set("2026-11-22T11:59:00Z")
    early = daily.report()

    clock.set("2026-11-22T12:00:00Z")
    made = [daily.report(), daily.report()]

    assert [] == early
    assert [["2026-11-20"], []] == made
    assert [] == os.listdir(directory.counts)
    assert 5 == daily.show()["days"][0]["programs"][0]["counters"]["cmd/export"]


def test_written_file_that_was_removed_is_followed_by_another(
    application: Start, directory: StateDirectory, disk: FaultyDisk, clock: FakeClock
) -> None:
    """A clock was two days ahead for a while: a process that seemed to have ended counts on, in a file that is read."""
    disk.trusted = False
    telemetry = application()
    telemetry.counter("cmd/export").inc(5)
    (name,) = os.listdir(directory.counts)
    os.utime(os.path.join(directory.counts, name), (clock.now(), clock.now()))
    daily = application()._daily()
    clock.set("2026-11-22T12:00:00Z")
    daily.report()
    clock.set("2026-11-20T13:00:00Z")

    telemetry.counter("cmd/export").inc(2)

    counted = [row["counters"]["cmd/export"] for day in daily.show()["days"] for row in day["programs"]]
    assert 7 == sum(counted)


def test_fork_with_a_written_file_gives_the_child_one_of_its_own(
    application: Start, counted: Counted, directory: StateDirectory, disk: FaultyDisk
) -> None:
    """Parent and child never write to one file, mapped or not."""
    disk.trusted = False
    exports = application().counter("cmd/export")
    exports.inc()

    child = os.fork()
    if child == 0:
        exports.inc(10)
        os._exit(0)
    os.waitpid(child, 0)
    exports.inc(100)

    assert {"cmd/export": 111} == counted()["2026-11-20"]
    assert 2 == len(os.listdir(directory.counts))


def test_disk_full_at_any_write_is_felt_by_nobody(tmp_path: Path) -> None:
    """A host on a disk of a few KiB, full at one place or another, ends as ever: no signal, no output, exit code 0."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only a machine's administrator can make a small disk")
    try:
        for room in range(0, 200_000, 8192):
            for path in folder.iterdir():
                subprocess.run(["rm", "-rf", str(path)], check=True)
            with (folder / "filler").open("wb") as filler, contextlib.suppress(OSError):
                filler.write(bytes(200_000 - room))

            body = "for n in range(2000):\n    telemetry.counter(f'name/{n}').inc()\ncounter.inc(3)"
            done = run(tmp_path, body, TALLYPOST_DIR=str(folder / "state"))

            went_well(done)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_many_short_processes_leave_as_many_files_as_ran_at_once(tmp_path: Path) -> None:
    """Short processes, eight at a time, leave at most eight files, and every count."""
    with ProcessPoolExecutor(8) as pool:
        ended = [pool.submit(_short_process, str(tmp_path)) for _ in range(40)]
        codes = [one.result() for one in ended]

    assert [0] * 40 == codes
    assert 40 == total(tmp_path)
    assert len(list((tmp_path / "state" / "example.org" / "mytool" / "counts").iterdir())) <= 8


@pytest.mark.long
def test_short_processes_200_at_once_count_each_in_a_file_of_its_own_or_one_after_the_other(tmp_path: Path) -> None:
    """However many start at once, no count is lost, and there are no more files than processes."""
    program = (
        "from tallypost import Telemetry\n"
        "Telemetry('example.org/mytool', '1', uploader='manual').counter('cmd/export').inc()"
    )
    environ = {"TALLYPOST_DIR": str(tmp_path / "state"), "TALLYPOST": "local", "PYTHONPATH": os.pathsep.join(PATHS)}

    processes = [subprocess.Popen([sys.executable, "-c", program], env=environ) for _ in range(200)]
    codes = {process.wait() for process in processes}

    assert {0} == codes
    assert 200 == total(tmp_path)
    assert len(list((tmp_path / "state" / "example.org" / "mytool" / "counts").iterdir())) <= 200


def _short_process(folder: str) -> int:
    program = (
        "from tallypost import Telemetry\n"
        "Telemetry('example.org/mytool', '1', uploader='manual').counter('cmd/export').inc()"
    )
    environ = {
        "TALLYPOST_DIR": f"{folder}/state",
        "TALLYPOST": "local",
        "PYTHONPATH": os.pathsep.join(PATHS),
    }
    return subprocess.run([sys.executable, "-c", program], env=environ, check=False).returncode


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def test_limits_of_a_host_are_those_that_the_tests_know() -> None:
    """The machine allows what these tests need."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 64
    assert client_limits.slots_max >= 200
