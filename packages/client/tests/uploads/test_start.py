from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk
from tallypost.uploads.pending import Pending
from tallypost.uploads.start import start

DAY = 86_400
# Where this very code lies: a child process imports the same.
PLACES = os.pathsep.join(
    str(Path(sys.modules[name].__file__ or "").parent.parent) for name in ("tallypost", "tallypost_schema")
)


def nobody() -> None:
    raise AssertionError("nobody asked for the daily work")


@pytest.mark.parametrize(
    ("kind", "environ", "reason"),
    [
        ("manual", {}, "the application does it itself"),
        ("process", {"PYTEST_VERSION": "8"}, "a test run, CI, another clock, or an uploader"),
        ("thread", {"PYTEST_VERSION": "8"}, "a test run, CI, another clock, or an uploader"),
    ],
)
def test_start_from_a_test_run_or_by_hand_starts_none(
    pending: Pending,
    directory: StateDirectory,
    disk: FaultyDisk,
    clock: FakeClock,
    kind: str,
    environ: dict[str, str],
    reason: str,
) -> None:
    """A run of tests, such as this one, starts no uploader of any kind, and leaves the next try as it is."""
    said = start(kind, directory, now=clock.now(), disk=disk, environ=environ, work=nobody)

    assert reason == said
    assert not Path(directory.not_before).exists()


# What follows runs in an interpreter of its own, which is no test runner: `start` asks what the process is.
HOST = """
import json, os, sys
from tallypost.disk import OsDisk
from tallypost.state_directory import StateDirectory
from tallypost.uploads.start import start

base, now, change = sys.argv[1:]
kind = "process"
exec(change)
directory = StateDirectory(base, "example.org/mytool")
said = start(kind, directory, now=float(now), disk=OsDisk(), environ=os.environ, work=None)
print(json.dumps([said, os.getpid()]))
try:
    while os.wait():
        print("a child was left")
except ChildProcessError:
    pass
"""


def clean(**more: str) -> dict[str, str]:
    """An environment in which an uploader may start."""
    hidden = ("PYTEST_CURRENT_TEST", "PYTEST_VERSION", "CI", "TALLYPOST", "DO_NOT_TRACK", "PYTHONPATH")
    kept = {variable: value for variable, value in os.environ.items() if variable not in hidden}
    return {**kept, "PYTHONPATH": PLACES, **more}


@pytest.fixture
def host(base: Path, clock: FakeClock) -> Callable[..., str | None]:
    """Have a process start the uploader, at the clock's time, after `change` was executed in it."""

    def run(change: str = "", **more: Any) -> str | None:
        done = subprocess.run(
            [sys.executable, "-c", HOST, str(base), str(clock.now()), change],
            env=more.pop("env", clean()),
            capture_output=True,
            text=True,
            check=False,
            **more,
        )
        assert "" == done.stderr
        [line] = done.stdout.splitlines()
        said: str | None = json.loads(line)[0]
        return said

    return run


@pytest.mark.parametrize(
    "told",
    [
        {"CI": "true"},
        {"CI": "1", "TALLYPOST": "on"},
        {"PYTEST_CURRENT_TEST": "x"},
        {"TALLYPOST_UPLOADER": "1"},
        {"TALLYPOST_TESTING_CLOCK_SHIFT": "5"},
    ],
)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_start_where_none_is_wanted_starts_none(
    pending: Pending, directory: StateDirectory, host: Callable[..., str | None], kind: str, told: dict[str, str]
) -> None:
    """CI, children of tests, a shifted clock and uploaders start no other uploader."""
    said = host(f"kind = {kind!r}", env=clean(**told))

    assert "a test run, CI, another clock, or an uploader" == said
    assert not Path(directory.not_before).exists()


@pytest.mark.parametrize("wait", [0.5, 600, DAY, DAY + 0.5])
def test_start_before_the_next_try_starts_none(
    pending: Pending, directory: StateDirectory, host: Callable[..., str | None], clock: FakeClock, wait: float
) -> None:
    """Until then nothing is started, also in the second by which the instant is rounded."""
    Path(directory.not_before).write_text(f"{clock.now() + wait}\n")

    assert "the next try is later" == host()
    assert f"{clock.now() + wait}\n" == Path(directory.not_before).read_text()


# `/bin/true` in place of the interpreter, so that nothing else happens here.
NOTHING = "sys.executable = os.path.join({folder!r}, 'python3')"


@pytest.fixture
def nothing(tmp_path: Path) -> str:
    """A change of the host: an interpreter that does nothing."""
    (tmp_path / "python3").symlink_to("/bin/true")
    return NOTHING.format(folder=str(tmp_path))


@pytest.mark.parametrize("text", [None, "", "0", "1", "soon", "nan", "inf", "1e300", "9" * 400, "a day and a second"])
def test_start_once_due_sets_the_next_try_first(
    pending: Pending,
    directory: StateDirectory,
    host: Callable[..., str | None],
    clock: FakeClock,
    nothing: str,
    text: str | None,
) -> None:
    """Due, or with a damaged or far-off word of when: one is started, and the next ten minutes no other one."""
    if text == "a day and a second":
        text = str(clock.now() + DAY + 2)
    if text is not None:
        Path(directory.not_before).write_text(text)

    assert host(nothing) is None
    assert f"{clock.now() + 600:.0f}\n" == Path(directory.not_before).read_text()
    assert "the next try is later" == host(nothing)


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_start_with_ci_unset_in_words_starts_one(
    pending: Pending, directory: StateDirectory, host: Callable[..., str | None], nothing: str, value: str
) -> None:
    """CI=false is no CI, as for consent."""
    assert host(nothing, env=clean(CI=value)) is None


@pytest.mark.parametrize(
    "change",
    [
        "sys.frozen = True",
        "sys.executable = '/opt/mytool/mytool'",
        "sys.executable = ''",
        "sys.executable = None",
        "sys.executable = '/usr/sbin/uwsgi'",
    ],
)
def test_start_from_a_frozen_or_embedding_program_starts_none(
    pending: Pending, directory: StateDirectory, host: Callable[..., str | None], change: str
) -> None:
    """A program that is no interpreter would start itself again: it starts nothing."""
    assert "this program is no Python interpreter" == host(change)
    assert not Path(directory.not_before).exists()


@pytest.mark.parametrize(
    "change",
    [
        "os.posix_spawn = lambda *given, **more: (_ for _ in ()).throw(BlockingIOError(11, 'no more processes'))",
        "os.posix_spawn = lambda *given, **more: (_ for _ in ()).throw(NotImplementedError('setsid'))",
        "OsDisk.replace = lambda *given, **more: (_ for _ in ()).throw(OSError(30, 'Read-only file system'))",
    ],
    ids=["processes", "system", "disk"],
)
def test_start_that_the_system_refuses_raises_nothing(
    pending: Pending, host: Callable[..., str | None], change: str
) -> None:
    """Without room for a process counting goes on as it was; the reason is returned."""
    assert "rror" in (host(change) or "")


SPY = """
import json, os, sys, time
if os.environ.get("TALLYPOST_UPLOADER"):
    begin, spied = time.monotonic(), os.environ["SPY"]
    while not os.path.exists(spied + ".go") and time.monotonic() - begin < 5:
        time.sleep(0.01)
    facts = {
        "told": os.path.exists(spied + ".go"),
        "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0),
        "folder": os.getcwd(), "argv": sys.orig_argv,
        "open": {name: os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                 if os.path.lexists("/proc/self/fd/" + name)},
    }
    with open(spied + ".part", "w") as file:
        json.dump(facts, file)
    os.rename(spied + ".part", spied)
"""


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold within so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that waits for somebody's init is not alive either.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_start_detaches_a_process_that_does_the_work_and_ends(
    pending: Pending, directory: StateDirectory, host: Callable[..., str | None], tmp_path: Path, clock: FakeClock
) -> None:
    """The uploader is nobody's child, has no descriptor or folder of the host's, does the work, and ends by itself."""
    spying, spied, kept_open = tmp_path / "spying", tmp_path / "spied.json", tmp_path / "kept-open"
    spying.mkdir()
    (spying / "sitecustomize.py").write_text(SPY)
    kept_open.touch()
    descriptor = os.open(kept_open, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    # The places to import from are relative here: the host's own folder is one of them.
    places = os.pathsep.join(os.path.relpath(place, tmp_path) for place in (str(spying), *PLACES.split(os.pathsep)))

    said = host(
        env=clean(PYTHONPATH=places, SPY=str(spied), PYTHONDONTWRITEBYTECODE="1"), cwd=tmp_path, pass_fds=(descriptor,)
    )
    os.close(descriptor)
    (tmp_path / "spied.json.go").touch()

    assert said is None
    assert within(10, spied.exists), "no uploader came up"
    facts = json.loads(spied.read_text())
    assert facts["told"], "the host waited for its uploader"
    assert ["-m", "tallypost.cli.uploader", str(tmp_path / "state"), "example.org/mytool"] == facts["argv"][-4:]
    assert os.getsid(0) != facts["session"]
    assert os.getpid() != facts["parent"]
    assert "/" == facts["folder"]
    assert {"/dev/null"} == {facts["open"][stream] for stream in "012"}
    # In mode *local* the work is done once the next try is set to a day from now, by the machine's clock.
    assert within(10, lambda: float(Path(directory.not_before).read_text()) > time.time() + DAY - 60)
    assert within(10, lambda: not is_alive(facts["pid"]))


def test_process_closes_what_a_host_left_inheritable(pending: Pending, base: Path, tmp_path: Path) -> None:
    """A lock or a listening socket of the host's is not kept by its uploader, however high its number."""
    held = tmp_path / "held"
    descriptor = os.open(held, os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)
    high = os.dup2(descriptor, 1500) if _descriptors_allowed() > 1500 else descriptor
    code = (
        "import os, sys\n"
        "import tallypost.cli.uploader as process\n"
        "process.main(sys.argv[1:])\n"
        f"for one in ({descriptor}, {high}):\n"
        "    try:\n"
        "        os.fstat(one)\n"
        "    except OSError:\n"
        "        continue\n"
        "    print(one, 'is open still')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(base), "example.org/mytool"],
        env=clean(),
        pass_fds=(descriptor, high),
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(descriptor)
    if high != descriptor:
        os.close(high)

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def _descriptors_allowed() -> int:
    return os.sysconf("SC_OPEN_MAX")


def test_import_of_the_thread_loads_nothing_third_party() -> None:
    """The first count of a server that has its uploader in a thread does not wait for what only the thread needs."""
    code = "import sys, tallypost.uploads.thread; print({'httpx', 'msgspec', 'zstandard'} & sys.modules.keys())"

    done = subprocess.run([sys.executable, "-c", code], env=clean(), capture_output=True, text=True, check=True)

    assert "set()" == done.stdout.strip()
