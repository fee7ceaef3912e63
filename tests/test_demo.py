"""The demonstration, run as a newcomer runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def start(folder: Path, stderr: int | None = None) -> subprocess.Popen[str]:
    """The demonstration, in that folder."""
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--dir", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8")


def living(folder: Path) -> list[str]:
    """The command lines of processes that name something in that folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # It has ended meanwhile.
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.mark.long
@pytest.mark.timeout(240)
def test_demo_run_twice_checks_every_claim_and_ends_well(tmp_path: Path) -> None:
    """Both runs end with 0 and say what was checked; the second replaces the folder of the first."""
    folder = tmp_path / "demo"
    first, _ = start(folder).communicate(timeout=110)
    (folder / "left-over").touch()

    second = start(folder)
    text, _ = second.communicate(timeout=110)

    assert "All claims hold." in first
    assert 0 == second.returncode
    for sentence in (
        "9/10  Nothing but what was declared has left",
        "ok 27 runs on 8 days: each run, option and exit code was counted, on its day, once",
        "ok what was sent is, byte for byte, what preview had shown",
        "ok the days that were sent are stored, and no other",
        "All claims hold.",
    ):
        assert sentence in text
    assert [] == [line for line in text.splitlines() if len(line) > 100 and tmp_path.name not in line]
    assert not (folder / "left-over").exists()


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_demo_interrupted_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    """The server and the runs of black are ended, with all that they started; the exit code says why."""
    process = start(tmp_path / "demo", stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    before = next(living(tmp_path / "demo") for line in process.stdout if "black --check json" in line)

    process.send_signal(number)
    process.communicate(timeout=60)

    assert any("tallypost-server" in line for line in before)
    assert 130 == process.returncode
    assert [] == living(tmp_path / "demo")


def test_demo_given_a_folder_of_somebody_elses_leaves_it_alone(tmp_path: Path) -> None:
    """A folder that no demonstration made is not replaced."""
    (tmp_path / "precious").write_text("mine")

    process = start(tmp_path, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=30)

    assert 1 == process.returncode
    assert "name another one with --dir" in errors
    assert ["precious"] == [path.name for path in tmp_path.iterdir()]
