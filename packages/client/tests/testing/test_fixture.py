from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

APPLICATION_UNDER_TEST = """
from tallypost import Telemetry

telemetry = Telemetry("example.org/mytool", "1", declaration="telemetry.toml", uploader="manual")
exports = telemetry.counter("cmd/export")


def export(kind):
    exports.inc(bucket=kind)
"""


TESTS_OF_IT = """
import application


def test_one(tallypost_capture):
    counted = tallypost_capture(application.telemetry)
    application.export("pdf")
    assert counted["cmd/export:pdf"] == 1


def test_two(tallypost_capture):
    counted = tallypost_capture(application.telemetry, declared_only=True)
    application.export("odt")
    assert counted == {"cmd/export": 1, "cmd/export:odt": 1}
"""


@pytest.mark.parametrize(
    "conftest", ["from tallypost.testing import tallypost_capture\n", 'pytest_plugins = ["tallypost.testing"]\n']
)
def test_fixture_in_a_test_run_of_its_own_captures_to_the_end_of_each_test(
    tmp_path: Path, declaration: Path, conftest: str
) -> None:
    """Taken by import or as a plugin, with warnings as errors; no state directory is made."""
    (tmp_path / "conftest.py").write_text(f"import tallypost.testing\n{conftest}")
    (tmp_path / "application.py").write_text(APPLICATION_UNDER_TEST)
    (tmp_path / "test_it.py").write_text(TESTS_OF_IT)
    declaration.write_text(declaration.read_text().replace('"pdf", "other"', '"pdf"'))
    home = tmp_path / "home"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TALLYPOST"))}
    environ |= {"HOME": str(home), "XDG_STATE_HOME": "", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "counted, but not declared: cmd/export:odt" in done.stdout
    assert not home.exists()
