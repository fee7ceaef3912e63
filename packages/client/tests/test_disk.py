"""One set of checks over every disk: the real one, the one with faults, the one in memory by each system's rules."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallypost import Telemetry, limits
from tallypost.daily import Daily, LastRun
from tallypost.disk import OsDisk
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk, FaultyDisk

FULL = OSError(errno.ENOSPC, "No space left on device")
KINDS = ["OsDisk", "FaultyDisk", "FakeDisk linux", "FakeDisk macos", "FakeDisk windows"]


class Bench:
    """A disk, a folder on it that is there, and a way to put files there that is not the disk's own."""

    def __init__(self, disk: Any, root: str, put: Callable[[str, bytes], object]) -> None:
        self.disk, self.root, self._put = disk, root, put

    def path(self, *parts: str) -> str:
        """A path in the folder."""
        return os.path.join(self.root, *parts)

    def put(self, name: str, content: bytes) -> str:
        """A file, written by some other program; its path."""
        path = self.path(name)
        self._put(path, content)
        return path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which disk."""
    return str(request.param)


@pytest.fixture
def bench(kind: str, tmp_path: Path) -> Bench:
    """That disk, with a folder."""
    if not kind.startswith("FakeDisk"):
        disk = OsDisk() if kind == "OsDisk" else FaultyDisk()
        return Bench(disk, str(tmp_path), lambda path, content: Path(path).write_bytes(content))
    fake = FakeDisk(kind.split()[1])  # type: ignore[arg-type]  # One of the three, as `KINDS` has them.
    root = os.path.abspath(os.path.join(os.sep, "bench"))
    fake.make_folder(root)
    return Bench(fake, root, fake.write)


def cannot(request: pytest.FixtureRequest, kind: str, *kinds: str, why: str) -> None:
    """Have the test expected to fail on these disks: strictly, and with the reason."""
    if kind in kinds:
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=why))


# -------------------------------------------------------------------- reading


def test_read_gives_the_whole_file(bench: Bench) -> None:
    """All bytes, whatever they are; also none."""
    content = bytes(range(256)) * 10_000

    assert content == bench.disk.read(bench.put("file", content))
    assert b"" == bench.disk.read(bench.put("empty", b""))


def test_read_of_what_is_no_file_raises(bench: Bench) -> None:
    """A file that is missing is told from one that cannot be read."""
    with pytest.raises(FileNotFoundError):
        bench.disk.read(bench.path("missing"))
    with pytest.raises(FileNotFoundError):
        bench.disk.read(bench.path("missing", "file"))
    with pytest.raises((IsADirectoryError, PermissionError)):
        bench.disk.read(bench.root)
    with pytest.raises((NotADirectoryError, FileNotFoundError)):
        bench.disk.read(os.path.join(bench.put("file", b""), "below"))


def test_names_are_sorted_and_without_unfinished_files(bench: Bench) -> None:
    """Files and folders; what a killed process left is not among them."""
    for name in ("b", "a.json", "c.tmp", "a.count"):
        bench.put(name, b"")
    bench.disk.make_folder(bench.path("d", "e"))

    assert ["a.count", "a.json", "b", "d"] == bench.disk.names(bench.root)
    assert ["e"] == bench.disk.names(bench.path("d"))


def test_names_of_what_is_no_folder_are_none(bench: Bench) -> None:
    """A folder that is not there is as good as an empty one."""
    assert [] == bench.disk.names(bench.path("missing"))
    assert [] == bench.disk.names(bench.put("file", b""))


def test_exists_tells_of_files_and_folders(bench: Bench) -> None:
    """Whatever has the path."""
    assert bench.disk.exists(bench.put("file", b""))
    assert bench.disk.exists(bench.root)
    assert not bench.disk.exists(bench.path("missing"))
    assert not bench.disk.exists(bench.path("file", "below"))


def test_modified_is_when_a_file_was_written(bench: Bench) -> None:
    """In UTC seconds; a file that is missing raises."""
    path = bench.put("file", b"")

    assert abs(time.time() - bench.disk.modified(path)) < 60
    with pytest.raises(FileNotFoundError):
        bench.disk.modified(bench.path("missing"))


# -------------------------------------------------------------------- folders


def test_make_folder_makes_its_parents_and_says_whether_it_was_there(bench: Bench) -> None:
    """True the first time, False after that."""
    path = bench.path("a", "b", "c")

    assert [True, False] == [bench.disk.make_folder(path), bench.disk.make_folder(path)]
    assert not bench.disk.make_folder(bench.path("a", "b"))
    assert bench.disk.is_ours(path)


def test_make_folder_where_a_file_is_raises(bench: Bench) -> None:
    """In its place, and above it."""
    path = bench.put("file", b"x")

    with pytest.raises(FileExistsError):
        bench.disk.make_folder(path)
    with pytest.raises((NotADirectoryError, FileNotFoundError)):
        bench.disk.make_folder(os.path.join(path, "below"))
    assert b"x" == bench.disk.read(path)


def test_is_ours_of_what_is_missing_raises(bench: Bench) -> None:
    """It is nobody's."""
    with pytest.raises(FileNotFoundError):
        bench.disk.is_ours(bench.path("missing"))


def test_remove_tree_removes_a_folder_and_all_in_it(bench: Bench) -> None:
    """And nothing beside it whose name begins alike."""
    bench.disk.make_folder(bench.path("a", "b"))
    bench.disk.make_folder(bench.path("ab"))
    bench.put(os.path.join("a", "b", "file"), b"")
    bench.put("a.file", b"")

    bench.disk.remove_tree(bench.path("a"))

    assert ["a.file", "ab"] == bench.disk.names(bench.root)
    with pytest.raises(FileNotFoundError):
        bench.disk.remove_tree(bench.path("a"))
    with pytest.raises(NotADirectoryError):
        bench.disk.remove_tree(bench.path("a.file"))


# -------------------------------------------------------------------- files that appear whole


def test_create_puts_a_file_where_none_is(bench: Bench) -> None:
    """The first wins, and what it wrote stays."""
    path = bench.path("file")

    assert [True, False] == [bench.disk.create(path, b"first"), bench.disk.create(path, b"second")]
    assert (b"first", ["file"]) == (bench.disk.read(path), os_names(bench))
    assert not bench.disk.create(bench.root, b"")


def test_create_from_many_threads_has_one_winner(bench: Bench) -> None:
    """The name decides."""
    won: list[bool] = []
    begin = threading.Barrier(8)

    def run(n: int) -> None:
        begin.wait()
        won.append(bench.disk.create(bench.path("file"), b"%d" % n))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (1, 8) == (won.count(True), len(won))
    assert ["file"] == os_names(bench)


@pytest.mark.parametrize("durable", [True, False])
def test_replace_puts_a_file_in_place_of_what_is_there(bench: Bench, durable: bool) -> None:
    """Also where nothing was."""
    path = bench.path("file")

    bench.disk.replace(path, b"first", durable=durable)
    bench.disk.replace(path, b"second", durable=durable)

    assert (b"second", ["file"]) == (bench.disk.read(path), os_names(bench))


def test_move_gives_a_file_another_path(bench: Bench) -> None:
    """What had that path is replaced; a source that is missing changes nothing."""
    source, target = bench.put("source", b"new"), bench.put("target", b"old")

    bench.disk.move(source, target)

    assert (b"new", ["target"]) == (bench.disk.read(target), os_names(bench))
    with pytest.raises(FileNotFoundError):
        bench.disk.move(source, target)
    assert b"new" == bench.disk.read(target)


@pytest.mark.parametrize(
    "change",
    [
        lambda disk, path: disk.create(path, b""),
        lambda disk, path: disk.replace(path, b""),
        lambda disk, path: disk.try_lock(path),
        lambda disk, path: disk.create_block(path, b"", 4096),
        lambda disk, path: disk.open_written(path, b""),
        lambda disk, path: disk.move(os.path.join(os.path.dirname(path), "..", "file"), path),
    ],
    ids=["create", "replace", "try_lock", "create_block", "open_written", "move"],
)
def test_change_in_a_folder_that_is_missing_raises(bench: Bench, change: Callable[[Any, str], object]) -> None:
    """No call makes a folder on its way, and nothing is left."""
    bench.put("file", b"x")

    with pytest.raises(FileNotFoundError):
        change(bench.disk, bench.path("missing", "name"))

    assert ["file"] == os_names(bench)


def test_remove_of_a_file_that_is_missing_does_nothing(bench: Bench) -> None:
    """Twice is as once."""
    path = bench.put("file", b"")

    bench.disk.remove(path)
    bench.disk.remove(path)

    assert [] == os_names(bench)
    with pytest.raises((IsADirectoryError, PermissionError)):
        bench.disk.remove(bench.root)


def test_sweep_removes_unfinished_files_by_their_age(bench: Bench) -> None:
    """And no others; in a folder that is missing there is nothing to do."""
    bench.put("old.tmp", b"")
    bench.put("file", b"")

    bench.disk.sweep(bench.root, 0.0)
    kept = os_names(bench)
    bench.disk.sweep(bench.root, time.time() + 60)
    bench.disk.sweep(bench.path("missing"), 0.0)

    assert (["file", "old.tmp"], ["file"]) == (kept, os_names(bench))


# -------------------------------------------------------------------- locks and blocks


def test_lock_is_held_by_one_until_it_is_released(bench: Bench) -> None:
    """Nobody waits; the file is made, and stays."""
    path = bench.path("lock")

    first = bench.disk.try_lock(path)
    second = bench.disk.try_lock(path)
    first.release()
    third = bench.disk.try_lock(path)

    assert (True, None, True) == (first is not None, second, third is not None)
    assert b"" == bench.disk.read(path)
    third.release()


FORKED = """
import os, sys
from tallypost.disk import OsDisk
disk, path = OsDisk(), sys.argv[1]
lock = disk.try_lock(path)
to_child, from_parent = os.pipe()
if os.fork() == 0:
    os.close(from_parent)
    if sys.argv[2] == "releases":
        lock.release()
    else:
        os.read(to_child, 1)  # To the parent's end.
    os._exit(0)
if sys.argv[2] == "releases":
    os.wait()
    assert disk.try_lock(path) is None
lock.release()
assert disk.try_lock(path) is not None
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("child", ["releases", "lives on"])
def test_lock_is_its_owners_whatever_a_forked_child_does(tmp_path: Path, child: str) -> None:
    """A child that gives its copy up leaves the parent's; a child that lives on keeps nothing locked."""
    script = [sys.executable, "-c", FORKED, str(tmp_path / "lock"), child]

    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)

    assert (0, "") == (done.returncode, done.stderr)


def test_written_file_is_there_until_somebody_removes_it(
    request: pytest.FixtureRequest, kind: str, bench: Bench
) -> None:
    """Also where another file has its path since."""
    cannot(request, kind, "FakeDisk windows", why="Windows removes no file that is open")
    path = bench.path("written")
    written = bench.disk.open_written(path, b"begin")

    before = written.is_there()
    bench.disk.remove(path)
    removed = written.is_there()
    again = bench.disk.open_written(path, b"begin")

    assert (True, False, False, True) == (before, removed, written.is_there(), again.is_there())
    written.close()
    again.close()


def test_block_begins_with_its_content_and_has_its_size(bench: Bench) -> None:
    """What is not given is zero; the reader sees what is written to the view at once."""
    path = bench.path("block")

    block = bench.disk.create_block(path, b"begin", 4096)
    block.view[4095] = 7

    assert b"begin" + bytes(4090) + b"\x07" == bench.disk.read(path)
    assert ["block"] == os_names(bench)
    block.close()


def test_block_on_a_path_that_is_taken_is_none(bench: Bench) -> None:
    """What has the path is left as it is, and is not locked."""
    path = bench.put("block", b"x" * 64)

    assert bench.disk.create_block(path, b"", 4096) is None
    assert (b"x" * 64, ["block"]) == (bench.disk.read(path), os_names(bench))
    block = bench.disk.open_block(path)
    assert block is not None
    block.close()


def test_block_that_is_held_is_opened_by_nobody(bench: Bench) -> None:
    """As block or as lock; after its end by the next one, with all that is in it."""
    path = bench.path("block")
    first = bench.disk.create_block(path, b"begin", 4096)
    first.view[8] = 1

    held = bench.disk.open_block(path), bench.disk.try_lock(path)
    first.close()
    second = bench.disk.open_block(path)

    assert (None, None) == held
    assert (b"begin", 1, 4096) == (bytes(second.view[:5]), second.view[8], len(second.view))
    second.close()


def test_block_that_is_missing_is_none(bench: Bench) -> None:
    """There is nothing to lock."""
    assert bench.disk.open_block(bench.path("missing")) is None
    assert bench.disk.open_block(bench.path("missing", "block")) is None


def test_block_of_an_empty_file_is_none(bench: Bench) -> None:
    """What a power cut left: nothing can be mapped there, and that is no trouble of the disk."""
    path = bench.put("block", b"")

    assert bench.disk.open_block(path) is None
    assert bench.disk.try_lock(path) is not None


def test_block_that_grows_keeps_what_it_has(bench: Bench) -> None:
    """Cells that were handed out before still reach the file: counters hold them while it grows."""
    path = bench.path("block")
    block = bench.disk.create_block(path, b"begin", 4096)
    numbers = block.view.cast("Q")
    cell = numbers[100:101]

    block.grow(16_384)
    cell[0] = 42

    assert (16_384, 42, b"begin") == (len(block.view), block.view[800], bytes(block.view[:5]))
    assert 42 == bench.disk.read(path)[800]
    for view in (cell, numbers):
        view.release()
    block.close()


def test_block_closed_with_a_cell_still_out_gives_its_lock_up(
    request: pytest.FixtureRequest, kind: str, bench: Bench
) -> None:
    """Somebody may hold a cell for ever: it raises nothing, and the next process takes the file."""
    cannot(request, kind, "OsDisk", "FaultyDisk", why="mmap has a descriptor of its own, and with it the lock")
    path = bench.path("block")
    block = bench.disk.create_block(path, b"", 4096)
    cell = block.view.cast("Q")[1:2]

    block.close()
    cell[0] = 1

    after = bench.disk.open_block(path)
    assert (1, 1) == (after.view[8], bench.disk.read(path)[8])
    after.close()


def test_block_is_removed_with_its_file(bench: Bench) -> None:
    """What the reporter does with a count file; who waits for it gets none."""
    path = bench.path("block")
    block = bench.disk.create_block(path, b"", 4096)

    removed = block.remove(path)

    assert removed
    assert [] == os_names(bench)
    assert bench.disk.open_block(path) is None


def test_block_removed_by_a_path_that_leads_elsewhere_removes_nothing(
    request: pytest.FixtureRequest, kind: str, bench: Bench
) -> None:
    """Another file that has the name by now is another's."""
    cannot(request, kind, "FakeDisk windows", why="Windows moves no file that is open or mapped")
    path = bench.path("block")
    block = bench.disk.create_block(path, b"", 4096)
    bench.disk.move(path, bench.path("moved"))
    bench.put("block", b"another")

    removed = block.remove(path)

    assert not removed
    assert b"another" == bench.disk.read(path)


def test_written_file_has_what_was_written_at_each_place(bench: Bench) -> None:
    """A hole is zeros; a path that is taken is None."""
    path = bench.path("written")

    written = bench.disk.open_written(path, b"begin")
    written.write_at(8, b"later")
    written.write_at(0, b"B")
    written.close()

    assert b"Begin\0\0\0later" == bench.disk.read(path)
    assert bench.disk.open_written(path, b"") is None


# -------------------------------------------------------------------- faults


@pytest.fixture
def faulty(request: pytest.FixtureRequest, kind: str, bench: Bench) -> Iterator[Bench]:
    """A disk on which faults can happen."""
    cannot(request, kind, "OsDisk", why="a real disk fails when it likes")
    yield bench
    bench.disk.fail(None)


def test_fail_raises_for_each_change_and_for_no_question(faulty: Bench) -> None:
    """A full disk can still be read; when there is room again all is well."""
    path = faulty.put("file", b"before")
    faulty.disk.fail(FULL)

    for change in (
        lambda: faulty.disk.replace(path, b"after"),
        lambda: faulty.disk.create(f"{path}-2", b""),
        lambda: faulty.disk.make_folder(f"{path}-3"),
        lambda: faulty.disk.create_block(f"{path}-4", b"", 4096),
        lambda: faulty.disk.open_written(f"{path}-5", b""),
    ):
        with pytest.raises(OSError, match="No space"):
            change()

    assert (b"before", ["file"]) == (faulty.disk.read(path), os_names(faulty))
    faulty.disk.fail(None)
    faulty.disk.replace(path, b"after")
    assert b"after" == faulty.disk.read(path)


def test_at_acts_at_the_fault_points_in_their_order(faulty: Bench) -> None:
    """Each point is passed where a crash would leave something else."""
    seen: list[tuple[str, list[str]]] = []
    for point in ("before_link", "after_link", "before_rename"):
        faulty.disk.at(point, lambda point=point: seen.append((point, faulty.disk.names(faulty.root))))

    faulty.disk.create(faulty.path("a"), b"")
    faulty.disk.replace(faulty.path("b"), b"")

    assert [("before_link", []), ("after_link", ["a"]), ("before_rename", ["a"])] == seen
    assert {"before_link": 1, "after_link": 1, "before_rename": 1} == faulty.disk.points


def test_at_that_raises_before_the_link_leaves_an_unfinished_file(faulty: Bench) -> None:
    """As a process that was killed there; no final name is half-written."""

    def end() -> None:
        raise KeyboardInterrupt

    faulty.disk.at("before_link", end)

    with pytest.raises(KeyboardInterrupt):
        faulty.disk.create(faulty.path("file"), b"content")

    assert [] == faulty.disk.names(faulty.root)
    assert [True] == [name.endswith(".tmp") for name in os_names(faulty)]


def test_trusted_is_as_the_test_says(faulty: Bench) -> None:
    """A network file system is one word away."""
    faulty.disk.trusted = False

    assert not faulty.disk.is_trusted(faulty.root)


# -------------------------------------------------------------------- the rules of other systems, in memory


def test_windows_removes_and_replaces_no_file_that_is_open() -> None:
    """Locked, mapped, written to, or seen through a view that is left over; when that has ended it does."""
    disk = FakeDisk("windows")
    disk.write("/bench/target", b"x" * 64)
    holders: list[Callable[[], Callable[[], object]]] = [
        lambda: disk.try_lock("/bench/target").release,  # type: ignore[union-attr]  # Nobody else has it.
        lambda: disk.open_block("/bench/target").close,  # type: ignore[union-attr]  # As above.
        lambda: _view_left_over(disk, "/bench/target"),
    ]

    for hold in holders:
        give_up = hold()
        for change in (
            lambda: disk.remove("/bench/target"),
            lambda: disk.replace("/bench/target", b""),
            lambda: disk.move("/bench/target", "/bench/moved"),
            lambda: disk.remove_tree("/bench"),
        ):
            with pytest.raises(PermissionError):
                change()
        give_up()
    disk.sweep("/bench", float("inf"))

    disk.remove("/bench/target")
    assert [] == disk.names("/bench")


def _view_left_over(disk: FakeDisk, path: str) -> Callable[[], object]:
    block = disk.open_block(path)
    assert block is not None
    cell = block.view[:8]
    block.close()
    return cell.release


def test_windows_reads_no_range_that_is_locked() -> None:
    """Why the lock lies far behind the content: one on the first byte would keep every reader out."""
    far, near = FakeDisk("windows"), FakeDisk("windows", lock_at=0)
    for disk in (far, near):
        disk.write("/bench/file", b"content")
        assert disk.try_lock("/bench/file") is not None

    assert b"content" == far.read("/bench/file")
    with pytest.raises(PermissionError):
        near.read("/bench/file")


@pytest.mark.parametrize(("rules", "size"), [("linux", 4096), ("macos", 10_240), ("windows", 10_240)])
def test_reservation_that_fails_leaves_a_part_where_it_is_made_by_writing(rules: Any, size: int) -> None:
    """Without ``posix_fallocate`` a full disk is met half-way; the block is as it was."""
    disk = FakeDisk(rules)
    disk.write("/bench/other", b"")
    block = disk.create_block("/bench/block", b"begin", 4096)
    assert block is not None
    disk.fail(FULL)

    with pytest.raises(OSError, match="No space"):
        block.grow(16_384)

    assert (4096, size) == (len(block.view), len(disk.read("/bench/block")))


def test_block_in_memory_has_a_largest_size() -> None:
    """That of a count file: more is never asked for."""
    disk = FakeDisk()
    block = disk.create_block(f"{os.sep}block", b"", 4096)
    assert block is not None

    with pytest.raises(OSError, match="large"):
        block.grow(limits.count_file_bytes_max + 1)


def test_folder_of_another_user_is_told_where_there_are_users() -> None:
    """A test names it."""
    for rules, is_ours in (("linux", False), ("macos", False), ("windows", True)):
        disk = FakeDisk(rules)  # type: ignore[arg-type]  # One of the three.
        disk.write("/bench/file", b"")
        disk.of_another_user.add(os.path.abspath("/bench"))

        assert is_ours == disk.is_ours("/bench")


def test_fake_disk_by_a_fake_clock_knows_when_files_were_written() -> None:
    """Time on it is the test's."""
    clock = FakeClock("2026-11-20T12:00:00Z")
    disk = FakeDisk(clock=clock)
    disk.write("/bench/file", b"")
    written = disk.open_written("/bench/written", b"")
    assert written is not None
    begin = clock.now()

    clock.sleep(60)
    written.write_at(0, b"x")

    assert (begin, begin + 60) == (disk.modified("/bench/file"), disk.modified("/bench/written"))


# -------------------------------------------------------------------- counting and folding, by each system's rules


class Machine:
    """A machine in memory on which an application runs, with the daily work of its state directory."""

    def __init__(self, rules: Any) -> None:
        self.clock = FakeClock("2026-11-20T12:00:00Z")
        self.disk = FakeDisk(rules, clock=self.clock)
        self.directory = StateDirectory(os.path.join(os.sep, "state"), "example.org/mytool")
        self._seams: dict[str, Any] = {"clock": self.clock, "disk": self.disk, "environ": {"TALLYPOST": "on"}}

    def start(self) -> Telemetry:
        """Start the application once more."""
        return Telemetry("example.org/mytool", "1", dir=os.path.join(os.sep, "state"), uploader="manual", **self._seams)

    def daily(self) -> Daily:
        """The daily work, as the command does it."""
        last_run = LastRun("example.org/mytool", "mytool", "1", "", "none")
        return Daily(self.directory, last_run=last_run, declaration=None, default="local", **self._seams)

    def counts(self) -> dict[str, int]:
        """By day, how often ``cmd/export`` was counted, reported or not."""
        return {
            day["day"]: sum(program["counters"].get("cmd/export", 0) for program in day["programs"])
            for day in self.daily().show()["days"]
        }


@pytest.fixture(params=["linux", "macos", "windows"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """A machine of each kind."""
    return Machine(request.param)


def test_machine_counts_each_day_in_files_of_its_own(machine: Machine) -> None:
    """Two processes, a file that grows, and midnight: the sums are exact."""
    first, second = machine.start(), machine.start()
    exports = first.counter("cmd/export")

    exports.inc(3)
    second.counter("cmd/export").inc(4)
    for n in range(2000):
        first.counter(f"name/{n}").inc()
    exports.inc(10)
    machine.clock.set("2026-11-21T00:00:00Z")
    exports.inc(5)

    assert {"2026-11-20": 17, "2026-11-21": 5} == machine.counts()
    assert 3 == len(machine.disk.names(machine.directory.counts))


def test_machine_takes_up_the_file_of_a_process_that_ended(machine: Machine) -> None:
    """One after the other they share one file."""
    for _ in range(3):
        run = machine.start()
        run.counter("cmd/export").inc(bucket="pdf")
        run.close()

    assert {"2026-11-20": 3} == machine.counts()
    assert 1 == len(machine.disk.names(machine.directory.counts))


def test_machine_reports_what_living_processes_counted_and_takes_the_rest_later(machine: Machine) -> None:
    """Each count is in one report: the file of a living owner is read while it is locked and mapped."""
    run = machine.start()
    exports = run.counter("cmd/export")
    exports.inc(3)
    machine.clock.set("2026-11-21T00:00:01Z")
    made = [machine.daily().report()]
    machine.clock.set("2026-11-20T23:59:59Z")
    exports.inc(4)
    machine.clock.set("2026-11-22T00:00:01Z")

    made += [machine.daily().report(), machine.daily().report()]

    assert [["2026-11-20"], ["2026-11-21"], []] == made
    assert {"2026-11-20": 3, "2026-11-21": 4} == machine.counts()


def test_machine_removes_a_counted_file_when_its_owner_has_closed_it(machine: Machine) -> None:
    """Not before; and the report that has its counts stays."""
    run = machine.start()
    run.counter("cmd/export").inc(3)
    machine.clock.set("2026-11-21T00:00:01Z")
    machine.daily().report()
    held = machine.disk.names(machine.directory.counts)

    run.close()
    machine.daily().report()

    assert (1, []) == (len(held), machine.disk.names(machine.directory.counts))
    assert {"2026-11-20": 3} == machine.counts()


def test_machine_forgets_what_no_process_holds(machine: Machine) -> None:
    """Its own file is given up before."""
    run = machine.start()
    run.counter("cmd/export").inc(3)

    run.forget()

    assert not machine.disk.exists(machine.directory.path)


def os_names(bench: Bench) -> list[str]:
    """All names in the folder, unfinished ones too."""
    if isinstance(bench.disk, FakeDisk):
        return bench.disk._all_names(bench.root)
    return sorted(os.listdir(bench.root))
