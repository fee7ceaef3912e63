"""Starting the uploader: the first count of a process, once the next try has come, hands the day's work to somebody.

Takes   the kind of uploader, and what ``private/not-before`` says.
Gives   a detached process, or a thread, or nothing.
Never   waits for it, becomes its parent for long, or starts one from a test run, from CI, or from an uploader.
"""

from __future__ import annotations

import os
import sys

from ..clock import SHIFT_VARIABLE
from ..consent import is_set, is_test_runner
from ..disk import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..seams import Disk
    from ..state_directory import StateDirectory

# Told to a detached uploader, so that whatever it imports starts no other one.
UPLOADER_VARIABLE = "TALLYPOST_UPLOADER"
_RETRY_SECONDS = 600
_DAY_SECONDS = 86400.0

# Process groups of uploaders that this process adopted, as the first process of a container does.
_adopted: list[int] = []


def start(
    kind: str,
    directory: StateDirectory,
    *,
    now: float,
    disk: Disk,
    environ: Mapping[str, str],
    work: Callable[[], object],
) -> str | None:
    """Start the uploader of that kind if its time has come. Returns why none was started, or None if one was.

    A process that cannot be started is no reason to count in memory: this raises nothing.
    """
    if kind == "manual":
        return "the application does it itself"
    if not _may_start(environ):
        return "a test run, CI, another clock, or an uploader"
    try:
        if kind == "thread":
            from .thread import start_thread

            start_thread(directory.path, work)
            return None
        if not _is_interpreter(sys.executable):
            return "this program is no Python interpreter"
        if not _is_due(text_of(disk, directory.not_before), now):
            return "the next try is later"
        # Whoever counts next need not start another one while this one is under way.
        disk.replace(directory.not_before, f"{now + _RETRY_SECONDS:.0f}\n".encode(), durable=False)
        base = directory.path[: -len(directory.application) - 1]
        _detach([sys.executable, "-m", "tallypost.cli.uploader", base, directory.application], environ)
    except (OSError, RuntimeError) as problem:  # RuntimeError: no further thread; NotImplementedError is one too.
        return f"{type(problem).__name__}: {problem}"
    return None


def _may_start(environ: Mapping[str, str]) -> bool:
    if environ.get(UPLOADER_VARIABLE) or environ.get(SHIFT_VARIABLE) or is_set(environ, "CI"):
        return False
    return not is_test_runner(environ, sys.modules.get("__main__"))


def _is_interpreter(executable: str | None) -> bool:
    """Whether it runs ``-m``: a frozen or embedding program would start itself again."""
    name = os.path.basename(executable or "").lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


def _is_due(text: str | None, now: float) -> bool:
    try:
        wait = float(text or 0) - now
    except ValueError:
        return True
    # Further off than any delay, and the rounding to a second: from before the clock was set back. Not a number: now.
    return not 0 < wait <= _DAY_SECONDS + 1


def _detach(command: list[str], environ: Mapping[str, str]) -> None:
    """Run a command that is nobody's child: not a zombie, not ended with the terminal, without console or output."""
    environment = {**environ, UPLOADER_VARIABLE: "1"}
    if environ.get("PYTHONPATH"):  # The command runs in another folder.
        places = environ["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(place) for place in places if place)
    if sys.platform == "win32":
        import subprocess

        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        none = subprocess.DEVNULL
        subprocess.Popen(  # noqa: S603  # Our own interpreter, with our own module.
            command,
            env=environment,
            creationflags=flags,
            stdin=none,
            stdout=none,
            stderr=none,
            cwd=os.path.dirname(sys.executable),
        )
        return
    # The shell starts the command behind itself and ends: it is the intermediate whose end makes the uploader an
    # orphan. A fork of the host would copy its threads' locks; importing subprocess would cost the host 10 ms.
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1, 2)]
    closed = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()]
    # Away from the host's folder, which `-m` would else put first among the places to import from.
    shell = ["/bin/sh", "-c", 'cd / && "$@" &', "sh", *command]
    _adopted[:] = [group for group in _adopted if _is_alive(group)]
    # A thread of the host may hold back signals that the uploader has to hear.
    pid = os.posix_spawn(shell[0], shell, environment, file_actions=nowhere + closed, setsid=True, setsigmask=())
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return  # The host reaps its children itself.
    if _is_alive(pid):
        _adopted.append(pid)


def _inheritable() -> list[int]:
    """The descriptors that a child of the host would have: a socket that listens, say, which it would keep occupied."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return []  # The uploader closes what it has, a little later.
    return [descriptor for descriptor in map(int, names) if descriptor > 2 and _is_inheritable(descriptor)]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # Closed meanwhile, as that of the listing is.


def _is_alive(group: int) -> bool:
    """Whether a child of this process lives in a process group; one that has ended is taken away."""
    try:
        return os.waitpid(-group, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False
