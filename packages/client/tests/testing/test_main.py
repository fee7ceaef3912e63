from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tallypost.clock import day_of
from tallypost.testing import instant


def run_at(at: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run words under another clock."""
    return subprocess.run(
        [sys.executable, "-m", "tallypost.testing", "--at", at, "--", *words],
        capture_output=True,
        text=True,
        check=False,
    )


NOW = "import sys; from tallypost.clock import SystemClock; print(SystemClock().now()); sys.exit(len(sys.argv))"


def test_testing_as_a_program_runs_another_one_at_that_instant() -> None:
    """The clock goes on from there; the other program's arguments and exit status are its own."""
    begin = time.monotonic()

    done = run_at("2026-11-20T12:00:00Z", "python", "-c", NOW, "a", "--at", "b")

    assert 4 == done.returncode
    assert "" == done.stderr
    assert 0 <= float(done.stdout) - instant("2026-11-20T12:00:00Z") <= time.monotonic() - begin


def test_testing_as_a_program_within_itself_goes_by_the_inner_time() -> None:
    """A shift within a shift is from the machine's own time."""
    done = run_at(
        "2020-01-01T00:00:00Z",
        "python",
        "-m",
        "tallypost.testing",
        "--at",
        "2021-01-01T00:00:00Z",
        "--",
        "python",
        "-c",
        NOW,
    )

    assert "2021-01-01" == day_of(float(done.stdout))


def test_testing_as_a_program_gives_a_second_pair_of_dashes_on() -> None:
    """Only the first ``--`` is its own."""
    show = "import sys; print(sys.argv[1:])"

    done = run_at("2020-01-01T00:00:00Z", "python", "-c", show, "--", "-x", "--at", "--")

    assert "['--', '-x', '--at', '--']\n" == done.stdout


def test_testing_as_a_program_runs_the_command(tmp_path: Path) -> None:
    """``tallypost`` is this installation's own, at that time."""
    done = run_at(
        "2026-11-20T12:00:00Z", "tallypost", "--dir", str(tmp_path), "--app", "example.org/mytool", "off", "--json"
    )

    assert 0 == done.returncode
    assert "off 2026-11-20 1 user\n" == (tmp_path / "example.org" / "mytool" / "mode").read_text()


@pytest.mark.parametrize("words", [(), ("--at", "soon", "--", "python"), ("--at", "2026-11-20"), ("--", "python")])
def test_testing_as_a_program_used_wrongly_exits_2(words: tuple[str, ...]) -> None:
    """Without a time or a command nothing is run."""
    done = subprocess.run(
        [sys.executable, "-m", "tallypost.testing", *words], capture_output=True, text=True, check=False
    )

    assert (2, "") == (done.returncode, done.stdout)
    assert "usage" in done.stderr
