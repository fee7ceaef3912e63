"""What the detached uploader does to its host: nothing. With real programs that count, and real uploaders."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallypost.state_directory import StateDirectory
from tallypost.uploads.pending import Pending

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

DAY = 86_400
# Where this very code lies: a program that a test starts imports the same.
PLACES = [str(Path(sys.modules[name].__file__ or "").parent.parent) for name in ("tallypost", "tallypost_schema")]

# A program that counts, once `before` was executed, and then waits until its standard input ends.
HOST = """
import os, sys
from tallypost import Telemetry

before, after = sys.argv[1:]
def telemetry(application="example.org/mytool", **more):
    return Telemetry(application, "1.2.3", dir=os.environ["BASE"], endpoint=os.environ["ENDPOINT"], **more)
exec(before)
telemetry().counter("cmd/export").inc()
exec(after)
os.write(1, b"ready\\n")
while os.read(0, 100):
    pass
"""

# What each Python of the test does first; only uploaders tell of themselves, and wait to be told to go on.
SPY = """
import json, os, sys, time
if os.environ.get("TALLYPOST_UPLOADER"):
    folder = os.environ["SPYING"]
    def console():
        try:
            return os.open("/dev/tty", os.O_RDWR)
        except OSError as problem:
            return type(problem).__name__ + str(problem.errno)
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    facts = {
        "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "console": console(),
        "prefix": sys.prefix, "path": sys.path, "blocked": int(status["SigBlk"], 16), "folder": os.getcwd(),
        "open": {name: os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                 if os.path.lexists("/proc/self/fd/" + name)},
    }
    place = os.path.join(folder, "%d.json" % os.getpid())
    with open(place + ".part", "w") as file:
        json.dump(facts, file)
    os.rename(place + ".part", place)
    begin = time.monotonic()
    while not os.path.exists(os.path.join(folder, "go")) and time.monotonic() - begin < 20:
        time.sleep(0.01)
    exec(os.environ.pop("THEN", ""))  # Not again in a program that it runs.
"""


def within(seconds: float, holds: Callable[[], object]) -> bool:
    """Whether something comes to hold within so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, or None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def is_alive(pid: int) -> bool:
    """Whether it still does something; one that has ended and waits for somebody's init does not."""
    found = stat(pid)
    return found is not None and found[0] not in "ZX"


def children_of(pid: int) -> list[int]:
    """The processes whose parent it is, ended ones included."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [other for other in pids if (found := stat(other)) is not None and found[1] == pid]


@dataclasses.dataclass
class Place:
    """A machine on which a program counts, and the uploaders that come up on it."""

    base: Path
    spying: Path
    directory: StateDirectory
    environ: dict[str, str]
    hosts: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    def host(self, before: str = "", after: str = "", then: str = "", **more: Any) -> subprocess.Popen[bytes]:
        """Start a program that counts; `then` is what its uploader does before its work."""
        streams = {name: more.pop(name, subprocess.PIPE) for name in ("stdin", "stdout", "stderr")}
        command = [sys.executable, *more.pop("options", ()), "-c", HOST, before, after]
        environ = {**self.environ, "THEN": then, **more.pop("environ", {})}
        self.hosts.append(subprocess.Popen(command, env=environ, **streams, **more))
        return self.hosts[-1]

    def uploaders(self) -> list[dict[str, Any]]:
        """What the uploaders that came up told, in the order of their process ids."""
        return [json.loads(path.read_bytes()) for path in sorted(self.spying.glob("*.json"))]

    def uploader(self) -> dict[str, Any]:
        """The one uploader that comes up."""
        assert within(10, self.uploaders), "no uploader came up"
        (one,) = self.uploaders()
        return one

    def go(self) -> None:
        """Let uploaders go on with their work."""
        (self.spying / "go").touch()

    def is_done(self) -> bool:
        """Whether an uploader did the work: it sets the next try to a day from now."""
        return float(Path(self.directory.not_before).read_text()) > time.time() + DAY - 60


@pytest.fixture
def place(pending: Pending, directory: StateDirectory, base: Path, tmp_path: Path) -> Iterator[Place]:
    """A state directory whose next try has come; at the end nothing that was started is left."""
    spying = tmp_path / "spying"
    spying.mkdir()
    (spying / "sitecustomize.py").write_text(SPY)
    Path(directory.not_before).write_text("0\n")
    hidden = ("PYTEST", "TALLYPOST", "COV_", "CI", "DO_NOT_TRACK", "PYTHON")
    kept = {
        variable: value
        for variable, value in os.environ.items()
        if not variable.startswith(hidden) and not variable.lower().endswith("_proxy")
    }
    told = {
        "BASE": str(base),
        "ENDPOINT": "http://127.0.0.1:9",
        "SPYING": str(spying),
        "PYTHONPATH": os.pathsep.join([str(spying), *PLACES]),
    }
    # The byte code of `sitecustomize.py` would lie among what uploaders write.
    place = Place(base, spying, directory, {**kept, **told, "PYTHONDONTWRITEBYTECODE": "1"})
    yield place
    place.go()
    for host in place.hosts:
        host.kill()
        host.communicate()
    # Told by what it wrote: its id may be another's by now, so it is waited for and not ended.
    assert within(20, lambda: not any(is_alive(one["pid"]) for one in place.uploaders())), "an uploader stays"


def ready(host: subprocess.Popen[bytes]) -> None:
    """Wait until a program has counted."""
    assert host.stdout is not None
    line = host.stdout.readline()
    assert b"ready\n" == line, (line, host.stderr and host.stderr.read())


def test_uploader_leaves_its_host_no_child(place: Place) -> None:
    """The host, which lives on and waits for nobody, never has a child: no uploader, and no zombie of one."""
    host = place.host()
    ready(host)

    uploader = place.uploader()

    assert [] == children_of(host.pid)
    assert host.pid != uploader["parent"]
    place.go()
    assert within(10, place.is_done)
    assert within(10, lambda: not is_alive(uploader["pid"]))
    assert [] == children_of(host.pid)


def test_uploader_of_a_process_that_adopts_orphans_is_taken_away_with_the_next_start(place: Place) -> None:
    """The first process of a container is everybody's parent: it takes its ended uploader away, and nothing else."""
    before = (
        "import ctypes, subprocess\n"
        "assert ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) == 0\n"  # PR_SET_CHILD_SUBREAPER
        "own = subprocess.Popen(['/bin/false'], start_new_session=True)\n"
    )
    after = (
        "os.write(1, b'ready\\n')\n"
        "os.read(0, 1)\n"
        "telemetry('example.org/other', uploader='manual').counter('cmd/export').inc()\n"
        "os.remove(os.path.join(os.environ['BASE'], 'example.org/other/private/not-before'))\n"
        "telemetry('example.org/other').counter('cmd/export').inc()\n"
        "assert own.wait() == 1\n"
    )
    host = place.host(before, after)
    ready(host)
    uploader = place.uploader()
    place.go()
    assert within(10, lambda: stat(uploader["pid"]) == ("Z", host.pid))

    assert host.stdin is not None
    host.stdin.write(b"1")
    host.stdin.flush()
    ready(host)

    assert stat(uploader["pid"]) is None
    assert within(10, lambda: len(place.uploaders()) == 2)


@pytest.mark.parametrize(
    ("typed", "ended_by"), [(None, signal.SIGHUP), (b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)]
)
def test_uploader_lives_on_when_the_terminal_ends_its_host(place: Place, typed: bytes | None, ended_by: int) -> None:
    """A closed window and the keys that end a program end the host, and the uploader does its work all the same."""
    master, slave = os.openpty()
    before = "import fcntl, signal, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    # Whoever runs this may ignore them (nohup, a shell in the background), and a program begins with what it is given.
    before += (
        "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):\n    signal.signal(number, signal.SIG_DFL)\n"
    )
    host = place.host(before, start_new_session=True, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    uploader = place.uploader()
    assert b"ready\r\n" == os.read(master, 100)

    if typed is not None:
        os.write(master, typed)
    else:
        os.close(master)

    assert -ended_by == host.wait(10)
    if typed is not None:
        os.close(master)
    assert is_alive(uploader["pid"])
    assert "OSError6" == uploader["console"]  # ENXIO: it has no terminal.
    place.go()
    assert within(10, place.is_done)


def test_uploader_that_prints_and_fails_shows_nothing_on_its_hosts_terminal(place: Place) -> None:
    """Whatever it or what it imports prints, tracebacks included, is seen by nobody."""
    master, slave = os.openpty()
    before = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    noise = "print('noise', flush=True)\nos.write(2, b'noise')\nraise SystemExit('noise')"
    host = place.host(before, then=noise, start_new_session=True, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    uploader = place.uploader()

    place.go()

    assert within(10, lambda: not is_alive(uploader["pid"]))
    os.write(master, b"\x04")
    assert 0 == host.wait(10)
    assert b"ready\r\n" == _all_of(master)


def _all_of(master: int) -> bytes:
    """All that a terminal whose other side is closed has shown, but for the echo of Ctrl-D."""
    shown = b""
    try:
        while piece := os.read(master, 1000):
            shown += piece
    except OSError:
        pass
    os.close(master)
    return shown.replace(b"^D\x08\x08", b"")


def test_uploader_has_no_descriptor_of_its_hosts(place: Place, tmp_path: Path) -> None:
    """A port on which the host listened is free, and a lock that it held is gone, while its uploader lives."""
    before = (
        "import fcntl, socket\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        f"locked = os.open({str(tmp_path / 'locked')!r}, os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(locked, fcntl.LOCK_EX)\n"
        "os.set_inheritable(listening.fileno(), True)\n"
        "os.set_inheritable(locked, True)\n"
        "high = os.dup2(listening.fileno(), 900, inheritable=True)\n"
        "open_before = [name for name in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + name)]\n"
    )
    after = (
        "now = [name for name in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + name)]\n"
        "print({'.count' in os.readlink('/proc/self/fd/' + name) for name in now if name not in open_before})\n"
        "print(listening.getsockname()[1], flush=True)\n"
    )
    host = place.host(before, after)
    assert host.stdout is not None
    opened, port = host.stdout.readline(), int(host.stdout.readline())
    uploader = place.uploader()

    host.kill()
    host.wait()

    assert b"{True}\n" == opened  # Starting it left the host nothing open but the file that it counts in.
    assert is_alive(uploader["pid"])
    assert {"0": "/dev/null", "1": "/dev/null", "2": "/dev/null"} == uploader["open"]
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
        again.listen()
    with (tmp_path / "locked").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_uploader_that_counts_and_runs_programs_that_count_is_the_only_one(place: Place) -> None:
    """Whatever an uploader imports or runs, for this application or another one, starts no further uploader."""
    counts = (
        "import os; from tallypost import Telemetry; base = os.environ['BASE']\n"
        "for name in ('example.org/mytool', 'example.org/other', 'example.org/other'):\n"
        "    Telemetry(name, '1', dir=base).counter('cmd/export').inc()\n"
        "    os.path.exists(due := os.path.join(base, name, 'private/not-before')) and os.remove(due)\n"
    )
    then = f"exec({counts!r})\nimport subprocess\nsubprocess.run([sys.executable, '-c', {counts!r}], check=True)\n"
    then += "open(os.path.join(folder, 'counted'), 'w')"
    ready(place.host(then=then))
    uploader = place.uploader()

    place.go()

    assert within(20, lambda: not is_alive(uploader["pid"]))
    assert (place.spying / "counted").exists()
    # The program that it ran, which tells of itself as well, and no other.
    assert 2 == len(place.uploaders())


@pytest.mark.parametrize(
    "command", [["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"], ["-m", "unittest", "test_one"]]
)
def test_uploader_is_not_started_by_a_run_of_tests(place: Place, tmp_path: Path, command: list[str]) -> None:
    """The tests of an application, told to count all the same, start nothing, whichever runner runs them."""
    (tmp_path / "test_one.py").write_text(
        "import os, unittest\n"
        "from tallypost import Telemetry\n"
        "class One(unittest.TestCase):\n"
        "    def test_one(self):\n"
        "        telemetry = Telemetry('example.org/mytool', '1', dir=os.environ['BASE'])\n"
        "        telemetry.counter('cmd/export').inc()\n"
    )
    environ = {**place.environ, "TALLYPOST": "on"}

    subprocess.run([sys.executable, *command], env=environ, cwd=tmp_path, check=True, capture_output=True)

    assert 1 == len(list(Path(place.directory.counts).iterdir()))
    assert "0\n" == Path(place.directory.not_before).read_text()
    assert [] == place.uploaders()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "os._exit(0)"),
        ("", "os.kill(os.getpid(), 9)"),
        ("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)", ""),
        ("import signal; signal.signal(signal.SIGCHLD, lambda number, frame: os.waitpid(-1, os.WNOHANG))", ""),
        ("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())", ""),
        ("os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')", ""),
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))", ""),
    ],
    ids=["exit", "kill", "ignored", "handled", "blocked", "removed", "few"],
)
def test_uploader_of_a_peculiar_host_does_the_work(place: Place, tmp_path: Path, before: str, after: str) -> None:
    """A host may end at once, ignore, handle or block signals, or have lost its folder: the work is done."""
    place.host(before, after, cwd=tmp_path)

    uploader = place.uploader()

    assert 0 == uploader["blocked"]
    assert "/" == uploader["folder"]
    place.go()
    assert within(10, place.is_done)


def test_uploader_imports_from_its_hosts_environment(place: Place) -> None:
    """The virtual environment and the places in PYTHONPATH are the host's; its folder is not among them."""
    place.host(cwd=place.base)

    uploader = place.uploader()

    assert sys.prefix == uploader["prefix"]
    assert [str(place.spying), *PLACES] == uploader["path"][:3] or ["", *PLACES] == uploader["path"][1:3]
    assert str(place.base) not in uploader["path"]


def test_uploader_that_hangs_ends_itself(directory: StateDirectory, place: Place) -> None:
    """A disk that does not answer leaves no process behind."""
    os.mkfifo(directory.mode)  # Who reads it waits for a writer that never comes.
    code = "import sys; from tallypost.cli.uploader import main; main(sys.argv[1:], seconds_max=0.5)"

    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(place.base), "example.org/mytool"],
        env=place.environ,
        check=False,
        timeout=20,
        capture_output=True,
    )

    assert (1, b"", b"") == (done.returncode, done.stdout, done.stderr)
    assert time.monotonic() - begin > 0.5


@pytest.mark.long
@pytest.mark.timeout(120)
def test_uploader_whose_server_never_answers_ends_by_itself(
    place: Place, pending: Pending, document: Callable[[str], bytes]
) -> None:
    """A server that takes every connection and says nothing keeps an uploader for a minute at most."""
    Path(place.directory.mode).write_text("on 2026-11-01 1 user\n")
    for ago in range(1, 9):
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - ago * DAY))
        pending.record(f"{day}.json", document(day), "on 2026-11-01 1 user")
    place.go()
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_take_all, args=(listening, taken), daemon=True).start()
        place.host(environ={"ENDPOINT": f"http://127.0.0.1:{listening.getsockname()[1]}"})
        begin = time.monotonic()
        uploader = place.uploader()

        assert within(66, lambda: not is_alive(uploader["pid"]))

        lived_s = time.monotonic() - begin
        listening.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()
    assert 2 <= len(taken)  # The upload config, and a post at least.
    assert 10 < lived_s
    assert 8 == len(pending.names())


def _take_all(listening: socket.socket, taken: list[socket.socket]) -> None:
    try:
        while True:
            taken.append(listening.accept()[0])
    except OSError:
        return
