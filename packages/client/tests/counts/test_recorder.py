from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry
from tallypost import limits as client_limits
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk

Start = Callable[..., Telemetry]
Counted = Callable[[], dict[str, dict[str, int]]]


def in_child(work: Callable[[], object]) -> int:
    """Fork, do `work` in the child, end it there without clean-up; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # Whatever it is, the child must not go on as a second test run.
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_fork_gives_the_child_a_file_of_its_own(
    application: Start, counted: Counted, directory: StateDirectory
) -> None:
    """Parent and child count on in two files, and the sum is exact."""
    exports = application().counter("cmd/export")
    exports.inc()

    status = in_child(lambda: [exports.inc() for _ in range(10)])
    exports.inc(100)

    assert 0 == status
    assert {"cmd/export": 111} == counted()["2026-11-20"]
    assert 2 == len(os.listdir(directory.counts))


def test_fork_while_another_thread_holds_the_recorder_counts_in_the_child(
    application: Start, counted: Counted, disk: FaultyDisk
) -> None:
    """A child never waits for a lock whose holder it did not inherit."""
    exports = application().counter("cmd/export")
    exports.inc()
    held, release = threading.Event(), threading.Event()
    other = application().counter("cmd/other")
    disk.at("before_block_link", lambda: (held.set(), release.wait(20)))
    thread = threading.Thread(target=other.inc)
    thread.start()
    assert held.wait(20)
    disk.at("before_block_link", lambda: None)

    status = in_child(lambda: (exports.inc(), other.inc()))
    release.set()
    thread.join()

    assert 0 == status
    assert {"cmd/export": 2, "cmd/other": 2} == counted()["2026-11-20"]


def test_parent_keeps_its_lock_when_a_child_ends(
    application: Start, directory: StateDirectory, disk: FaultyDisk
) -> None:
    """A child that closes its copy of the descriptor does not unlock the parent's file."""
    exports = application().counter("cmd/export")
    exports.inc()
    (name,) = os.listdir(directory.counts)

    in_child(exports.inc)

    assert disk.open_block(os.path.join(directory.counts, name)) is None


def test_file_of_an_ended_process_is_taken_up_again(
    application: Start, counted: Counted, directory: StateDirectory
) -> None:
    """Processes one after the other share one file: as many files as ever counted at once."""
    for _ in range(5):
        telemetry = application()
        telemetry.counter("cmd/export").inc()
        telemetry.close()

    assert {"cmd/export": 5} == counted()["2026-11-20"]
    assert 1 == len(os.listdir(directory.counts))


def test_more_names_than_a_first_file_holds_grow_it(application: Start, counted: Counted) -> None:
    """A file grows with its names, and counters that had a cell before keep theirs."""
    telemetry = application()
    first = telemetry.counter("name/first")
    first.inc()

    for n in range(2000):
        telemetry.counter(f"name/{n}").inc(n + 1)
    first.inc()

    values = counted()["2026-11-20"]
    assert 2 == values.pop("name/first")
    assert {f"name/{n}": n + 1 for n in range(2000)} == values


def test_names_without_end_are_counted_as_lost(application: Start, counted: Counted) -> None:
    """Over the cap of names each increment is a named loss, and what has a name counts on."""
    exports = application().counter("cmd/export")
    exports.inc()

    for n in range(client_limits.names_per_file_max + 50):
        exports.inc(bucket=str(n))
    exports.inc()

    values = counted()["2026-11-20"]
    assert client_limits.names_per_file_max + 52 == values["cmd/export"]
    lost = values["tallypost/dropped-names"]
    assert client_limits.names_per_file_max + 50 == lost + sum(name.startswith("cmd/export:") for name in values)
    assert client_limits.names_per_file_max == len(values) + 3  # The three other counters of losses stand at 0.


def test_full_disk_counts_in_memory_and_goes_on_in_a_file_when_there_is_room(
    application: Start, counted: Counted, disk: FaultyDisk, clock: FakeClock
) -> None:
    """A full disk is felt by nobody; what was counted meanwhile, on that day, reaches the file at last."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    disk.fail(OSError(errno.ENOSPC, "No space left on device"))
    exports.inc()
    exports.inc(bucket="pdf")

    in_memory = telemetry.status()["memory"]
    disk.fail(None)
    clock.sleep(client_limits.memory_seconds_max)
    exports.inc()

    assert "No space left" in in_memory
    assert None is telemetry.status().get("memory")
    assert {"cmd/export": 3, "cmd/export:pdf": 1} == counted()["2026-11-20"]


def test_counting_in_memory_is_said_once_at_debug(
    application: Start, disk: FaultyDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Who looks for it finds it in the host's log, once; nobody else hears of it."""
    exports = application().counter("cmd/export")
    disk.fail(OSError(errno.ENOSPC, "No space left on device"))

    with caplog.at_level("DEBUG"):
        for n in range(5):
            exports.inc(bucket=str(n))

    assert ["counting in memory: OSError: [Errno 28] No space left on device"] == caplog.messages
    assert {"DEBUG"} == {record.levelname for record in caplog.records}


@pytest.mark.parametrize("kind", ["a file", "read-only", "missing parent that cannot be made"])
def test_directory_that_cannot_be_used_means_memory(
    tmp_path: Path, application: Start, base: Path, declaration: Path, kind: str
) -> None:
    """Where no file can be made the process counts in memory, and nothing is raised."""
    if kind == "a file":
        base.write_text("in the way")
    else:
        folder = tmp_path / "proc" if kind == "read-only" else Path("/proc/nowhere")
        base = folder
        if kind == "read-only":
            pytest.skip("root writes anywhere") if os.geteuid() == 0 else folder.mkdir(mode=0o500)
    telemetry = Telemetry("example.org/mytool", "1", dir=base, environ={"TALLYPOST": "local"}, uploader="manual")

    telemetry.counter("cmd/export").inc()

    assert "memory" in telemetry.status()


def test_mode_off_makes_nothing(application: Start, base: Path) -> None:
    """In mode off there is no file, whatever is counted."""
    telemetry = application(environ={"TALLYPOST": "off"})

    telemetry.counter("cmd/export").inc(bucket="pdf")
    telemetry.histogram("export/seconds", (0.1, 1)).observe(0.5)

    assert not base.exists()


def test_mode_on_after_off_does_not_carry_over_what_was_counted_before(application: Start, counted: Counted) -> None:
    """What an application counted while it was off is nowhere, also after it was switched on on the same day."""
    environ = {"TALLYPOST": "off"}
    telemetry = application(environ=environ)
    exports = telemetry.counter("cmd/export")
    exports.inc(7)

    environ["TALLYPOST"] = "on"
    telemetry.set_mode("on")
    exports.inc()

    assert {"cmd/export": 1} == counted()["2026-11-20"]


def test_mode_change_starts_a_new_file(application: Start, directory: StateDirectory) -> None:
    """Counts from before and after an answer never share a file."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    exports.inc()

    telemetry.set_mode("on")
    exports.inc()

    assert 2 == len(os.listdir(directory.counts))


def test_folders_and_files_are_for_the_user_alone(application: Start, directory: StateDirectory) -> None:
    """Folders are 0700, files 0600."""
    application().counter("cmd/export").inc()

    modes = {
        stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
        for folder, folders, files in os.walk(directory.path)
        for name in files
    }

    assert {0o600} == modes
    assert {0o700} == {stat.S_IMODE(os.stat(folder).st_mode) for folder, _, _ in os.walk(directory.path)}


def test_recording_loads_no_third_party_module_and_few_of_the_library(tmp_path: Path) -> None:
    """The first increment of a process loads none of the modules that would be felt."""
    program = (
        "import sys; from tallypost import Telemetry\n"
        f"t = Telemetry('example.org/mytool', '1', dir={str(tmp_path)!r}, uploader='manual')\n"
        "t.counter('cmd/export').inc(bucket='pdf'); t.histogram('a/seconds', (1, 2)).observe(1)\n"
        "heavy = {'json', 'logging', 'pathlib', 'dataclasses', 'typing', 're', 'enum', 'threading', 'subprocess',"
        " 'httpx', 'msgspec', 'zstandard', 'inspect', 'functools', 'collections', 'importlib.util'}\n"
        "print(sorted(heavy & set(sys.modules)), len(list(__import__('os').scandir(t._directory.counts))))"
    )

    told = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {_paths()!r}\n{program}"],
        env={"TALLYPOST": "local"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "[] 1\n" == told.stdout


def _paths() -> list[str]:
    import tallypost
    import tallypost_schema

    return [os.path.dirname(os.path.dirname(package.__file__ or "")) for package in (tallypost, tallypost_schema)]
