from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

import tallypost.testing

PUBLIC = [
    *("Counted", "FakeBlock", "FakeClock", "FakeDisk", "FakeLock", "FakeRandom", "FakeTransport", "FakeWritten"),
    *("Faults", "FaultyDisk", "Undeclared", "capture", "instant", "main", "tallypost_capture"),
]


def run(code: str) -> list[str]:
    """Run code in a process of its own; the lines that it prints."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("name", PUBLIC)
def test_name_each_is_had_from_the_package_whatever_was_loaded_before(name: str) -> None:
    """No module within has a name of the package's own, which loading it would put in that name's place."""
    found = getattr(tallypost.testing, name)

    assert not isinstance(found, ModuleType)
    assert name in dir(tallypost.testing)
    assert f"tallypost.testing.{name}" not in sys.modules


def test_name_that_is_not_there_is_an_error_as_in_any_module() -> None:
    """Whether it is asked for as an attribute or imported."""
    with pytest.raises(AttributeError, match=r"tallypost\.testing.*capturing"):
        tallypost.testing.capturing  # noqa: B018  # What the test is about.
    with pytest.raises(ImportError, match="capturing"):
        from tallypost.testing import capturing  # type: ignore[attr-defined]  # noqa: F401  # As above.


def test_testing_is_imported_without_pytest_and_without_the_network() -> None:
    """Neither is needed for counts."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import tallypost.testing as testing\n"
        "testing.capture, testing.FakeDisk, testing.FakeTransport\n"
        "print({'httpx', 'asyncio'} & sys.modules.keys(), hasattr(testing, 'capturing'))\n"
        "try: testing.tallypost_capture\n"
        "except ImportError as error: print(error.name)\n"
    )

    assert ["set() False", "pytest"] == run(code)


def test_testing_loads_of_itself_what_is_asked_for() -> None:
    """A clock brings neither a disk nor a transport, nor what looks into reports."""
    code = (
        "import sys; from tallypost.testing import FakeClock\n"
        "print(*sorted(name for name in sys.modules if name.startswith('tallypost.testing')))\n"
    )

    assert ["tallypost.testing tallypost.testing.clock"] == run(code)
