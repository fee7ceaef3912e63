from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tallypost.telemetry as telemetry_module
from tallypost import TallypostError, Telemetry, WrongUse
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk
from tallypost.uploads.thread import last_trouble, start_thread

APPLICATION = "example.org/mytool"
Start = Callable[..., Telemetry]
Counts = Callable[[], dict[str, dict[str, int]]]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"application": "Example.org/mytool"}, "application"),
        ({"application": "example.org//mytool"}, "application"),
        ({"application": "../mytool"}, "application"),
        ({"application": ""}, "application"),
        ({"program": "my tool"}, "program"),
        ({"program": ""}, "program"),
        ({"version": ""}, "version"),
        ({"version": "1\n2"}, "version"),
        ({"version": "1" * 65}, "version"),
        ({"default": "on"}, "default"),
        ({"uploader": "cron"}, "uploader"),
        ({"endpoint": "telemetry.example.org"}, "endpoint"),
        ({"endpoint": "https://"}, "endpoint"),
        ({"endpoint": "ftp://telemetry.example.org"}, "endpoint"),
        ({"endpoint": ""}, "endpoint"),
    ],
)
def test_telemetry_made_with_what_is_not_allowed_is_wrong_use(words: dict[str, Any], what: str) -> None:
    """A setting that is not allowed raises where it is said, and the message says what is allowed."""
    given = {"application": APPLICATION, "version": "1.2.3", **words}

    with pytest.raises(WrongUse, match=f"{what} is .*, allowed is ") as raised:
        Telemetry(**given)

    assert what == raised.value.what
    assert isinstance(raised.value, (TallypostError, ValueError))


@pytest.mark.parametrize(
    "name", ["", "Cmd", "cmd export", "cmd/", "/cmd", "cmd:pdf", "cmd_export", "a" * 201, "cmd\n", "ümlaut"]
)
def test_counter_of_a_name_outside_the_grammar_is_wrong_use(application: Start, name: str) -> None:
    """A name is checked where it is declared."""
    telemetry = application()

    with pytest.raises(WrongUse, match="counter"):
        telemetry.counter(name)
    with pytest.raises(WrongUse, match="histogram"):
        telemetry.histogram(name, edges=(1, 2))


@pytest.mark.parametrize(
    "edges", [(), (2, 1), (1, 1), (0, 1), (-1, 1), (1, float("inf")), (float("nan"),), (1, 1.0000001)]
)
def test_histogram_with_edges_that_do_not_rise_is_wrong_use(application: Start, edges: tuple[float, ...]) -> None:
    """Edges are positive numbers that rise, also as they are spelled."""
    with pytest.raises(WrongUse, match="edges"):
        application().histogram("export/seconds", edges=edges)


def test_telemetry_made_touches_no_disk(application: Start, base: Path, disk: FaultyDisk) -> None:
    """Making it, its counters and its histograms costs no file, and a disk that is full does not matter."""
    disk.fail(OSError(28, "No space left on device"))
    telemetry = application()

    telemetry.counter("cmd/export")
    telemetry.histogram("export/seconds", edges=(1, 2))

    assert not base.exists()


def test_telemetry_names_its_program_by_the_last_part(application: Start, directory: StateDirectory) -> None:
    """One program is the rule; another name can be given."""
    plain, named = application(), application(program="mytool-worker")

    assert ("mytool", "mytool-worker") == (plain.program, named.program)
    assert "<Telemetry example.org/mytool 1.2.3>" == repr(plain)


def test_telemetry_counting_first_makes_the_state_directory(
    application: Start, directory: StateDirectory, declaration: Path
) -> None:
    """The first count leaves what a user and the commands need: a README, the last run, the declaration."""
    application(endpoint="https://telemetry.example.org").counter("cmd/export").inc()

    assert "tallypost --app example.org/mytool off" in Path(directory.readme).read_text()
    assert "endpoint=https://telemetry.example.org" in Path(directory.last_run).read_text().splitlines()
    [kept] = Path(directory.declarations).iterdir()
    assert declaration.read_bytes() == kept.read_bytes()
    assert 0o700 == os.stat(directory.path).st_mode & 0o777


def test_telemetry_counting_first_starts_nothing_for_a_day(
    application: Start, directory: StateDirectory, clock: FakeClock
) -> None:
    """The process that made the state directory posts nothing, and the next try is a day off."""
    application(uploader="process").counter("cmd/export").inc()

    assert clock.now() + 86_400 == float(Path(directory.not_before).read_text())


def test_telemetry_in_the_process_that_made_the_directory_starts_no_thread(tmp_path: Path) -> None:
    """The uploader of a server begins with its second start: whoever has just installed it can still say no."""
    code = (
        "import sys, threading, tallypost\n"
        "words = {'dir': sys.argv[1], 'uploader': 'thread', 'environ': {}}\n"
        "telemetry = tallypost.Telemetry('example.org/mytool', '1', **words)\n"
        "telemetry.counter('cmd/export').inc(); telemetry.event('export'); telemetry.close()\n"
        "print([thread.name for thread in threading.enumerate()])\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code, str(tmp_path)]

    said = [subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout for _ in range(2)]

    assert ["['MainThread']\n", "['MainThread', 'tallypost-uploader']\n"] == said


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({"default": "off"}, "constructor"),
        ({"environ": {"DO_NOT_TRACK": "1", "TALLYPOST": "on"}}, "DO_NOT_TRACK"),
        ({"environ": {"TALLYPOST": "off"}}, "TALLYPOST"),
        ({"environ": {"CI": "true"}}, "CI"),
        ({"environ": {"PYTEST_VERSION": "8"}}, "test runner"),
    ],
)
def test_telemetry_in_mode_off_makes_no_file(
    application: Start, base: Path, settings: dict[str, Any], source: str
) -> None:
    """Off is no file, no folder, and no error."""
    telemetry = application(**settings)

    telemetry.counter("cmd/export").inc()
    telemetry.histogram("export/seconds", edges=(1,)).observe(0.5)

    assert "off" == telemetry.mode
    assert source == telemetry.status()["source"]
    assert ([], True) == (telemetry.preview(), telemetry.upload())
    assert not base.exists()


def test_set_mode_is_saved_as_the_applications_and_takes_effect_at_once(
    application: Start, directory: StateDirectory, counted: Counts
) -> None:
    """What is counted after a no is not counted, in this very process; after a yes it is again."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    exports.inc()

    telemetry.set_mode("off")
    exports.inc(10)
    off = Path(directory.mode).read_text()
    telemetry.set_mode("on")
    exports.inc(100)

    assert ("off 2026-11-20 1 application\n", "on") == (off, telemetry.mode)
    assert {"cmd/export": 101} == counted()["2026-11-20"]


def test_set_mode_to_what_is_no_mode_is_wrong_use(application: Start, base: Path) -> None:
    """Anything but on, local and off raises and saves nothing."""
    with pytest.raises(WrongUse, match="mode"):
        application().set_mode("yes")  # type: ignore[arg-type]  # What the test is about.

    assert not base.exists()


def test_mode_of_another_process_is_seen(application: Start, directory: StateDirectory) -> None:
    """The mode is asked for anew each time: a command in another window decides too."""
    telemetry = application()
    telemetry.set_mode("on")

    Path(directory.mode).write_text("off 2026-11-20 1 user\n")

    assert "off" == telemetry.mode


def test_preview_by_the_application_is_that_of_the_command(
    application: Start, clock: FakeClock, directory: StateDirectory
) -> None:
    """The exact bytes, as a list."""
    telemetry = application()
    telemetry.set_mode("on")
    clock.set("2026-11-21T12:00:00Z")
    telemetry.counter("cmd/export").inc()
    clock.set("2026-11-22T12:00:00Z")

    shown = telemetry.preview()

    assert [Path(directory.pending, "2026-11-21.json").read_bytes()] == shown


def test_upload_by_the_application_without_an_endpoint_says_that_something_is_left(
    application: Start, clock: FakeClock
) -> None:
    """True means that nothing is left to send."""
    telemetry = application()
    telemetry.set_mode("on")
    nothing = telemetry.upload()
    clock.set("2026-11-21T12:00:00Z")
    telemetry.counter("cmd/export").inc()
    clock.set("2026-11-22T12:00:00Z")

    left = telemetry.upload()

    assert (True, False) == (nothing, left)


def test_forget_by_the_application_removes_all_and_counting_begins_anew(
    application: Start, directory: StateDirectory, counted: Counts
) -> None:
    """What was counted before is gone; what is counted afterwards is counted."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    exports.inc(5)

    telemetry.forget()
    gone = not Path(directory.path).exists()
    exports.inc(2)

    assert gone
    assert {"cmd/export": 2} == counted()["2026-11-20"]
    assert Path(directory.readme).exists()


def test_status_on_a_full_disk_says_that_it_counts_in_memory(application: Start, disk: FaultyDisk, base: Path) -> None:
    """A process whose counts reach no file says why."""
    telemetry = application()
    disk.fail(OSError(28, "No space left on device"))

    telemetry.counter("cmd/export").inc()

    assert "No space left" in telemetry.status()["memory"]


def test_close_twice_and_counting_after_it_are_fine(application: Start, counted: Counts) -> None:
    """Close is never needed and never final."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    exports.inc()

    telemetry.close()
    telemetry.close()
    exports.inc()

    assert {"cmd/export": 2} == counted()["2026-11-20"]


@pytest.mark.parametrize("given", ["package:telemetry.toml", "package:data/telemetry.toml"])
def test_declaration_in_a_package_is_found(
    application: Start, directory: StateDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """``"package:file"`` is the file beside the package's own, wherever it is installed."""
    name = f"package_{abs(hash(given))}"
    file = given.partition(":")[2]
    (tmp_path / name / "data").mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / file).write_text("contact = 'x'\n")
    monkeypatch.syspath_prepend(tmp_path)

    application(declaration=f"{name}:{file}").counter("cmd/export").inc()

    [kept] = Path(directory.declarations).iterdir()
    assert "contact = 'x'\n" == kept.read_text()


@pytest.mark.parametrize("given", ["no/such/file.toml", "no_such_package:telemetry.toml", None])
def test_declaration_that_is_not_there_lets_everything_be_counted_and_nothing_leave(
    application: Start, clock: FakeClock, counted: Counts, given: str | None
) -> None:
    """Without a declaration nothing ever leaves; counting is for the user."""
    telemetry = application(declaration=given)
    telemetry.set_mode("on")
    clock.set("2026-11-21T12:00:00Z")
    telemetry.counter("cmd/export").inc()
    assert {"cmd/export": 1} == counted()["2026-11-21"]
    clock.set("2026-11-22T12:00:00Z")

    assert ([], True) == (telemetry.preview(), telemetry.upload())


def test_import_loads_nothing_third_party_and_nothing_slow(tmp_path: Path) -> None:
    """What an application pays for the import, and for counting, is a part of the standard library that is cheap."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import tallypost\n"
        "words = {'dir': sys.argv[1], 'environ': {'TALLYPOST': 'local'}, 'uploader': 'manual'}\n"
        "tallypost.Telemetry('example.org/mytool', '1', **words).counter('cmd/export').inc()\n"
        "loaded = set(sys.modules) - before\n"
        "slow = {'json', 'logging', 'pathlib', 'dataclasses', 'typing', 'httpx', 'msgspec', 'zstandard', 'asyncio',\n"
        "        'subprocess', 'threading', 'socket', 'ssl', 'datetime', 'tempfile', 'tallypost.daily'}\n"
        "print(sorted(loaded & slow))\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(tmp_path)], env=environ, capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize(
    "use",
    [
        lambda: Telemetry(None, "1"),  # type: ignore[arg-type]  # What the test is about, as in those below.
        lambda: Telemetry("example.org/mytool", 1),  # type: ignore[arg-type]  # As above.
        lambda: Telemetry("example.org/mytool", "1", endpoint=5),  # type: ignore[arg-type]  # As above.
        lambda: Telemetry("example.org/mytool", "1", default=[]),  # type: ignore[arg-type]  # As above.
        lambda: Telemetry("example.org/mytool", "1").counter(None),  # type: ignore[arg-type]  # As above.
        lambda: Telemetry("example.org/mytool", "1").histogram("a", ("b",)),  # type: ignore[arg-type]  # As above.
        lambda: Telemetry("example.org/mytool", "1").histogram("a", 3),  # type: ignore[arg-type]  # As above.
        lambda: Telemetry("example.org/mytool", "1").histogram("a", ()),
        lambda: Telemetry("example.org/mytool", "1").stack("a", "x"),  # type: ignore[arg-type]  # As above.
    ],
)
def test_argument_of_another_type_is_wrong_use(use: Callable[[], object]) -> None:
    """Whatever is given, an author reads what is allowed."""
    with pytest.raises(WrongUse, match="allowed is"):
        use()


def test_declaration_that_was_swept_is_there_again_with_the_next_count_file(
    application: Start, directory: StateDirectory, disk: FaultyDisk, clock: FakeClock
) -> None:
    """A process may be idle for so long that nothing lies under its declaration any more."""
    telemetry = application()
    telemetry.counter("cmd/export").inc()
    for name in disk.names(directory.declarations):
        disk.remove(os.path.join(directory.declarations, name))
    clock.set("2026-11-25T12:00:00Z")

    telemetry.counter("cmd/export").inc()

    assert 1 == len(disk.names(directory.declarations))


def test_status_tells_why_this_process_started_no_uploader(application: Start) -> None:
    """Nothing is uploaded from a test run, and whoever wonders can know."""
    first = application()
    first.counter("cmd/export").inc()
    first.close()
    telemetry = application(uploader="process", environ={"TALLYPOST": "on", "PYTEST_CURRENT_TEST": "x"})

    telemetry.counter("cmd/export").inc()

    assert "test run" in telemetry.status()["uploader"]
    assert "uploader" not in first.status()


def test_status_tells_what_the_uploaders_thread_failed_with(application: Start, directory: StateDirectory) -> None:
    """Its errors are let out nowhere else."""
    telemetry = application(uploader="thread")
    failed = threading.Event()

    def work() -> None:
        failed.set()
        raise OSError("no space")

    start_thread(directory.path, work)
    assert failed.wait(10)
    while last_trouble(directory.path) is None:
        failed.wait(0.01)

    assert "OSError: no space" == telemetry.status()["uploader"]


def test_fork_waits_for_the_import_of_our_modules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application's own module may begin with our name, and fork while it is imported."""
    locks = sys.modules["_frozen_importlib"]._module_locks
    monkeypatch.setitem(locks, "tallypost_plugin", None)
    beside_a_plugin = telemetry_module._is_loading()
    monkeypatch.setitem(locks, "tallypost.reports", None)

    assert (False, True) == (beside_a_plugin, telemetry_module._is_loading())
