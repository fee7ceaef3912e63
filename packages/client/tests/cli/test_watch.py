from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry
from tallypost.cli.watch import watch_changes, watch_terminal
from tallypost.testing import FakeClock


class WatchedClock(FakeClock):
    """A clock on which something happens with each sleep; after the last of it comes Ctrl-C."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        super().__init__("2026-11-24T12:00:00Z")
        self._happenings = list(happenings)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if not self._happenings:
            raise KeyboardInterrupt
        self._happenings.pop(0)()


def test_watch_on_a_terminal_draws_anew_and_gives_the_cursor_back() -> None:
    """Each picture begins at the top and says when it is from; Ctrl-C ends it, and the cursor is there again."""
    shown, out = ["a  1"], io.StringIO()
    clock = WatchedClock(lambda: shown.append("b  2"))

    watch_terminal(lambda width: shown, title="app", seconds=2, clock=clock, out=out, size=lambda: (80, 24))

    before, first, second = out.getvalue().split("\x1b[H\x1b[J")
    assert "\x1b[?25l" == before
    assert "app  2026-11-24T12:00:00Z  every 2 s, Ctrl-C ends\n\na  1\n" == first
    assert "app  2026-11-24T12:00:02Z  every 2 s, Ctrl-C ends\n\na  1\nb  2\n\x1b[?25h" == second
    assert [2, 2] == clock.slept


def test_watch_on_a_terminal_that_is_resized_goes_by_its_new_size() -> None:
    """Lines for which there is no room are counted instead."""
    sizes, widths, out = [(80, 24), (30, 6)], [], io.StringIO()

    def draw(width: int) -> list[str]:
        widths.append(width)
        return [str(n) for n in range(10)]

    watch_terminal(
        draw, title="app", seconds=2, clock=WatchedClock(lambda: None), out=out, size=lambda: sizes[len(widths)]
    )

    picture = out.getvalue().split("\x1b[H\x1b[J")[-1].removesuffix("\x1b[?25h").splitlines()
    assert [80, 30] == widths
    assert ["0", "1", "… 8 more lines"] == picture[2:]
    assert 30 >= len(picture[0])


def test_watch_on_a_terminal_that_fails_gives_the_cursor_back() -> None:
    """Trouble of the disk goes on to the command, from a terminal that is whole."""
    out = io.StringIO()

    def draw(width: int) -> list[str]:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        watch_terminal(draw, title="app", seconds=2, clock=WatchedClock(), out=out, size=lambda: (80, 24))

    assert out.getvalue().endswith("\x1b[?25h")


def test_watch_elsewhere_writes_only_what_has_changed() -> None:
    """A pipe gets a table when there is a new one, and no escape sequence."""
    shown, out = ["a  1"], io.StringIO()
    clock = WatchedClock(lambda: None, lambda: shown.append("b  2"), lambda: None)

    watch_changes(lambda: [*shown], seconds=0.5, clock=clock, out=out)

    assert "a  1\na  1\nb  2\n" == out.getvalue()
    assert [0.5] * 4 == clock.slept


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty there")
def test_watch_command_on_a_terminal_ends_with_ctrl_c_and_exit_0(tmp_path: Path) -> None:
    """The whole way: a terminal, a count that comes while one looks, Ctrl-C."""
    telemetry = Telemetry("example.org/mytool", "1", dir=tmp_path, environ={"TALLYPOST": "on"}, uploader="manual")
    telemetry.counter("cmd/export").inc()
    terminal, other = os.openpty()
    words = ["--dir", str(tmp_path), "show", "export", "--watch", "0.1"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-m", "tallypost", *words]
    watching = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environ)
    os.close(other)

    seen = _read_until(terminal, "cmd/export              1")
    telemetry.counter("cmd/export").inc(41)
    seen += _read_until(terminal, "cmd/export             42")
    watching.send_signal(signal.SIGINT)
    seen += _read_until(terminal, "\x1b[?25h")
    status = watching.wait(20)
    os.close(terminal)
    telemetry.close()

    assert 0 == status
    assert 1 == seen.count("\x1b[?25l")
    assert "Traceback" not in seen


def _read_until(terminal: int, text: str) -> str:
    """What the terminal shows, up to a text; the limit is that of the whole test."""
    seen = ""
    until = time.monotonic() + 20
    while text not in seen and time.monotonic() < until:
        seen += os.read(terminal, 65536).decode()
    assert text in seen, seen
    return seen
