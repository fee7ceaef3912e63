from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost import Telemetry
from tallypost.contrib.pytest import OutcomeCounters

Read = Callable[..., dict[str, int]]

SUITE = """
import pytest

@pytest.fixture
def broken():
    raise KeyError("secret")

@pytest.fixture
def falling():
    yield
    raise KeyError("secret")

def test_passed(): pass
def test_failed(): assert False
def test_skipped_inside(): pytest.skip("secret")
@pytest.mark.skip
def test_skipped_before(): pass
@pytest.mark.xfail
def test_xfailed(): assert False
@pytest.mark.xfail(run=False)
def test_xfailed_before(): pass
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.mark.xfail(strict=True)
def test_failed_because_it_passed(): pass
def test_error_before(broken): pass
def test_error_after(falling): pass
"""
COUNTING = """
class Telemetry:
    def counter(self, name):
        return self
    def histogram(self, name, edges):
        return self
    def inc(self, n=1, bucket=None):
        with open("counted.txt", "a") as file:
            file.write(f"{bucket}\\n")
    def observe(self, value):
        assert value >= 0
        self.inc(bucket="seconds")
telemetry = Telemetry()
"""
REGISTERING = """
from counting import telemetry
from tallypost.contrib.pytest import OutcomeCounters

def pytest_configure(config):
    config.pluginmanager.register(OutcomeCounters(telemetry))
"""
SUBTESTS = """
def test_good(subtests):
    for number in range(3):
        with subtests.test(number=number):
            pass
def test_bad(subtests):
    for number in range(3):
        with subtests.test(number=number):
            assert number
"""


def run(
    folder: Path, *options: str, setting: str = "counting:telemetry", suite: str = SUITE
) -> subprocess.CompletedProcess[str]:
    """Run a suite of its own, with warnings as errors."""
    (folder / "test_suite.py").write_text(suite)
    (folder / "counting.py").write_text(COUNTING)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = .\ntallypost = {setting}\nfilterwarnings = error\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environ = {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # What else is installed here would only take its time.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_outcome_each_is_counted_in_pytests_words(tmp_path: Path) -> None:
    """As many of each kind as pytest itself says at the end."""
    ended = run(tmp_path, "-p", "tallypost.contrib.pytest")

    words = (tmp_path / "counted.txt").read_text().split()
    counted = {word: words.count(word) for word in sorted(set(words))}
    assert "2 failed, 2 passed, 2 skipped, 2 xfailed, 1 xpassed, 2 errors" in ended.stdout
    assert {
        "error": 2,
        "failed": 2,
        "passed": 2,
        "seconds": 7,
        "skipped": 2,
        "xfailed": 2,
        "xpassed": 1,
    } == counted


@pytest.mark.parametrize("way", ["by its name", "registered"])
@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["alone", "in workers"])
def test_outcome_each_is_counted_once_however_many_workers_there_are(
    way: str, workers: tuple[str, ...], tmp_path: Path
) -> None:
    """Workers of xdist report to the process that started them, which counts; so too for what a maker registered."""
    if way == "registered":
        (tmp_path / "conftest.py").write_text(REGISTERING)

    ended = run(tmp_path, *(("-p", "tallypost.contrib.pytest") if way == "by its name" else ("-W", "ignore")), *workers)

    words = (tmp_path / "counted.txt").read_text().split()
    assert "2 failed, 2 passed" in ended.stdout, ended.stdout
    assert (2, 2, 7) == (words.count("failed"), words.count("passed"), words.count("seconds"))


@pytest.mark.skipif(not hasattr(pytest, "Subtests"), reason="subtests are a part of pytest from 9 on")
def test_subtest_each_is_counted_as_in_pytests_summary(tmp_path: Path) -> None:
    """One that fails is counted beside its test; one that passes is not, and none is timed."""
    ended = run(tmp_path, "-p", "tallypost.contrib.pytest", suite=SUBTESTS)

    words = (tmp_path / "counted.txt").read_text().split()
    assert "2 failed, 1 passed" in ended.stdout, ended.stdout
    assert ["failed", "failed", "passed", "seconds", "seconds"] == sorted(words)


def test_suite_without_the_plugin_is_not_counted(tmp_path: Path) -> None:
    """It is not loaded by itself; its options are then unknown, which pytest may say."""
    run(tmp_path, "-W", "ignore")

    assert not (tmp_path / "counted.txt").exists()


def test_setting_that_leads_nowhere_is_told_in_the_header(tmp_path: Path) -> None:
    """The tests run; nothing is counted."""
    ended = run(tmp_path, "-p", "tallypost.contrib.pytest", setting="no.such:thing")

    assert "tallypost: nothing is counted: ModuleNotFoundError" in ended.stdout
    assert "2 failed, 2 passed" in ended.stdout


def report(when: str = "call", outcome: Any = "passed", duration: float = 0.5) -> pytest.TestReport:
    """What pytest tells of a test's part."""
    where = ("secret.py", 1, "test_secret")
    return pytest.TestReport("test_secret", where, {}, outcome, None, when, duration=duration)  # type: ignore[arg-type]  # One of three words.


def test_report_each_is_counted_by_outcome_and_seconds(telemetry: Telemetry, counted: Read) -> None:
    """Only a test's call is timed; what went well before and after it is not told."""
    counters = OutcomeCounters(telemetry, prefix="suite")

    for when in ("setup", "call", "teardown"):
        counters.pytest_runtest_logreport(report(when))

    assert {"suite/outcome": 1, "suite/outcome:passed": 1, "suite/seconds:<=1": 1} == counted()


def test_broken_telemetry_raises_nothing(broken: Any) -> None:
    """The suite runs on."""
    counters = OutcomeCounters(broken)

    counters.pytest_runtest_logreport(report())
