from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tallypost import Telemetry, WrongUse
from tallypost.clock import day_of
from tallypost.errors import NoAnswer
from tallypost.testing import FakeClock, FakeRandom, FakeTransport, FaultyDisk, Undeclared, capture, instant
from tallypost.uploads.transport import Answer
from tallypost_schema.receipts import is_receipt_of

Start = Callable[..., Telemetry]


def test_fake_clock_stands_until_it_is_set_or_slept_on() -> None:
    """Time goes on only where a test says so."""
    clock = FakeClock("2026-11-20T12:00:00Z")
    begin = clock.now()

    clock.sleep(90)

    assert (begin + 90, [90]) == (clock.now(), clock.slept)
    clock.set("2026-11-20T12:00:00Z")
    assert begin == clock.now()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:01", 60),
    ],
)
def test_instant_is_utc_unless_told_otherwise(text: str, at: float) -> None:
    """The machine's time zone says nothing."""
    assert at == instant(text)


def test_instant_of_what_is_no_time_raises() -> None:
    """A wrong time is wrong use, found where it is given."""
    with pytest.raises(ValueError, match="soon"):
        instant("soon")


def test_fake_random_repeats_its_fraction_and_no_bytes() -> None:
    """Two ids are never the same; the drawn number always is."""
    random = FakeRandom(0.25)

    assert [0.25, 0.25] == [random.fraction(), random.fraction()]
    assert 2 == len({random.bytes(16), random.bytes(16)})
    assert 16 == len(random.bytes(16))


@pytest.mark.parametrize("encoding", [None, "gzip", "zstd"])
def test_fake_transport_answers_with_a_receipt_of_what_was_posted(encoding: str | None) -> None:
    """Whatever the encoding, the receipt is of the document before it."""
    document = b'{"v":1}'
    body = {None: document, "gzip": gzip.compress(document), "zstd": zstandard.compress(document)}[encoding]
    transport = FakeTransport()

    answer = transport.post("https://host/v1/reports", body, encoding)

    assert is_receipt_of(answer.body, document)
    assert [("https://host/v1/reports", encoding, body)] == transport.posted


def test_fake_transport_answers_as_told_in_order() -> None:
    """What a test put there comes first, errors too; after that, receipts."""
    transport = FakeTransport()
    transport.answers = [Answer(503, b"", {}), NoAnswer("down")]

    assert 503 == transport.post("https://host", b"{}", None).status
    with pytest.raises(NoAnswer, match="down"):
        transport.post("https://host", b"{}", None)
    assert 200 == transport.post("https://host", b"{}", None).status


def test_faulty_disk_raises_for_changes_and_for_no_question(tmp_path: Path) -> None:
    """A full disk can still be read."""
    disk = FaultyDisk()
    path = str(tmp_path / "file")
    disk.replace(path, b"before")

    disk.fail(OSError(28, "No space left on device"))

    for change in (
        lambda: disk.replace(path, b"after"),
        lambda: disk.create(f"{path}-2", b""),
        lambda: disk.make_folder(f"{path}-3"),
        lambda: disk.create_block(f"{path}-4", b"", 4096),
    ):
        with pytest.raises(OSError, match="No space"):
            change()
    assert (b"before", ["file"]) == (disk.read(path), disk.names(str(tmp_path)))
    disk.fail(None)
    disk.replace(path, b"after")
    assert b"after" == disk.read(path)


def test_faulty_disk_acts_at_the_fault_points_that_are_named(tmp_path: Path) -> None:
    """A point that is passed is counted; an action there happens before what follows."""
    disk = FaultyDisk()
    there: list[bool] = []
    path = str(tmp_path / "file")
    disk.at("before_link", lambda: there.append(disk.exists(path)))
    disk.at("after_link", lambda: there.append(disk.exists(path)))

    disk.create(path, b"x")

    assert [False, True] == there
    assert (1, 1) == (disk.points["before_link"], disk.points["after_link"])


# -------------------------------------------------------------------- capture


@pytest.fixture
def off(application: Start) -> Telemetry:
    """The application as a test runner has it: switched off."""
    return application(environ={"PYTEST_VERSION": "9", "CI": "1"})


def test_capture_under_a_test_runner_has_what_was_counted_since_its_begin(off: Telemetry, base: Path) -> None:
    """By name, with buckets and histograms; the machine's own folders are not touched."""
    exports = off.counter("cmd/export")
    exports.inc(100)

    with capture(off) as counted:
        exports.inc(bucket="pdf")
        off.histogram("export/seconds", edges=(0.1, 1)).observe(0.5)

        assert (1, 1, 0) == (counted["cmd/export"], counted["cmd/export:pdf"], counted["cmd/other"])
    exports.inc(100)

    assert {"cmd/export": 1, "cmd/export:pdf": 1, "export/seconds:<=1": 1} == counted
    assert ("cmd/export" in counted, "cmd/other" in counted, len(counted)) == (True, False, 3)
    assert "'cmd/export': 1" in repr(counted)
    assert not base.exists()


def test_capture_of_an_application_that_counts_leaves_its_files_as_they_were(
    application: Start, counted: Callable[[], dict[str, dict[str, int]]]
) -> None:
    """What came before and what comes after is in them, and nothing of what came between."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    exports.inc()

    with capture(telemetry) as captured:
        exports.inc(10)
    exports.inc(100)

    assert {"cmd/export": 10} == captured
    assert {"2026-11-20": {"cmd/export": 101}} == counted()


def test_capture_within_a_capture_has_its_own_part(off: Telemetry) -> None:
    """The outer one has all of it."""
    exports = off.counter("cmd/export")

    with capture(off) as outer:
        exports.inc()
        with capture(off) as inner:
            exports.inc(10)
        exports.inc(100)

    assert ({"cmd/export": 111}, {"cmd/export": 10}) == (dict(outer), dict(inner))
    assert "off" == off.mode


def test_capture_ended_before_the_one_within_it_leaves_that_one_whole(off: Telemetry) -> None:
    """As where two threads capture one application: the last to end restores it."""
    exports = off.counter("cmd/export")
    first, second = capture(off), capture(off)

    early = first.__enter__()
    late = second.__enter__()
    exports.inc()
    first.__exit__(None, None, None)
    exports.inc(10)
    mode = off.mode
    second.__exit__(None, None, None)

    assert ("local", "off") == (mode, off.mode)
    assert ({"cmd/export": 1}, {"cmd/export": 11}) == (dict(early), dict(late))


def test_capture_has_what_threads_count(off: Telemetry) -> None:
    """Exactly, whichever thread it is."""
    exports = off.counter("cmd/export")

    with capture(off) as counted:
        threads = [threading.Thread(target=lambda: [exports.inc(bucket="pdf") for _ in range(500)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {"cmd/export": 4000, "cmd/export:pdf": 4000} == counted


def test_capture_begun_and_ended_while_threads_count_loses_nothing(
    application: Start, counted: Callable[[], dict[str, dict[str, int]]]
) -> None:
    """Each increment is in the capture or in the application's own file."""
    telemetry = application()
    exports = telemetry.counter("cmd/export")
    threads = [threading.Thread(target=lambda: [exports.inc() for _ in range(5000)]) for _ in range(4)]
    captured = 0

    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with capture(telemetry) as one:
            telemetry.counter("cmd/other").inc()
        captured += one["cmd/export"]

    assert 20_000 == captured + counted()["2026-11-20"].get("cmd/export", 0)


def test_capture_goes_over_midnight(off: Telemetry, clock: FakeClock) -> None:
    """Days make no difference to it, nor whether they were reported meanwhile."""
    exports = off.counter("cmd/export")

    with capture(off) as counted:
        exports.inc()
        clock.set("2026-11-21T12:00:00Z")
        off.preview()
        exports.inc(10)

    assert {"cmd/export": 11} == counted


def test_capture_of_a_body_that_raises_restores_all_the_same(off: Telemetry, base: Path) -> None:
    """The body's own exception is what is seen."""

    @capture(off, declared_only=True)
    def body() -> None:
        off.counter("cmd/forgotten").inc()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        body()

    off.counter("cmd/export").inc()
    assert "off" == off.mode
    assert not base.exists()


def test_capture_lets_the_application_ask_for_its_mode_and_change_it(
    off: Telemetry, base: Path, clock: FakeClock
) -> None:
    """A dialogue about consent can be tested: the answer is saved in memory, and nothing is ever posted."""
    with capture(off) as counted:
        modes = [off.mode]
        for mode in ("on", "off", "on"):
            off.set_mode(mode)  # type: ignore[arg-type]  # Each is a mode.
            off.counter("cmd/export").inc()
            modes.append(off.mode)
        clock.set("2026-11-22T12:00:00Z")
        off.counter("cmd/export").inc()
        clock.set("2026-11-23T12:00:00Z")
        left = off.preview(), off.upload()
        off.forget()

    assert ["local", "on", "off", "on"] == modes
    assert (1, False) == (len(left[0]), left[1])
    assert {} == counted
    assert not base.exists()


def test_capture_counts_stacks_by_the_declared_packages(
    application: Start, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way has its entry; all of them together are asked for by name."""
    (tmp_path / "other.toml").write_text(f'{STACKS}packages = ["{__name__.partition(".")[0]}"]\n')
    telemetry = application(declaration=tmp_path / "other.toml", environ={"TALLYPOST": "off"})

    with capture(telemetry) as counted:
        for _ in range(2):
            telemetry.stack("crash/KeyError").inc()
        telemetry.stack("crash/KeyError").inc()

    assert (3, 2, 0) == (counted.stack("crash/KeyError"), len(counted), counted.stack("crash"))
    assert all(__name__ in key for key in counted)


STACKS = """
application = "example.org/mytool"
contact = "privacy@example.org"
consent_version = 1

[stacks."crash/KeyError"]
why = "Which crashes to mend first"
owner = "core team"
expires = "never"
depth = 1
"""


def test_capture_declared_only_names_what_the_declaration_forgot(off: Telemetry) -> None:
    """Names, buckets, edges and stacks; what is declared, and the library's own losses, pass."""

    def count() -> None:
        off.counter("cmd/export").inc(bucket="pdf")
        off.counter("cmd/export").inc(bucket="odt")
        off.counter("cmd/export").inc(bucket="no bucket")
        off.counter("cmd/sampled").inc(bucket="pdf")
        off.counter("cmd/forgotten").inc()
        off.histogram("export/seconds", edges=(0.1, 5)).observe(3)
        off.stack("crash/KeyError").inc()

    with pytest.raises(Undeclared) as raised, capture(off, declared_only=True) as counted:
        count()

    forgotten = ["cmd/forgotten", "cmd/sampled:pdf", "crash/KeyError\n?:?:+0", "export/seconds:<=5"]
    assert forgotten == raised.value.names == counted.undeclared()
    assert "cmd/forgotten" in str(raised.value)
    assert "telemetry.toml" in str(raised.value)


def test_capture_declared_only_of_declared_names_is_content(off: Telemetry) -> None:
    """A bucket that leaves as ``other`` is declared enough."""
    with capture(off, declared_only=True) as counted:
        off.counter("cmd/export").inc(bucket="odt")

    assert [] == counted.undeclared()


@pytest.mark.parametrize("declaration", [None, "missing.toml", "problems.toml"])
def test_capture_declared_only_without_a_declaration_is_wrong_use(
    application: Start, tmp_path: Path, declaration: str | None
) -> None:
    """Nothing could be declared: that is found at the begin, and nothing stays captured."""
    (tmp_path / "problems.toml").write_text("[counters.x]\n")
    given = str(tmp_path / declaration) if declaration else None
    telemetry = application(declaration=given, environ={"TALLYPOST": "off"})

    with pytest.raises(WrongUse, match="declaration"), capture(telemetry, declared_only=True):
        raise AssertionError("not reached")

    assert "off" == telemetry.mode


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork there")
def test_capture_in_a_forked_child_touches_no_file(off: Telemetry, base: Path) -> None:
    """What a child counts is its own; nothing of it reaches the machine or the parent."""
    exports = off.counter("cmd/export")

    with capture(off) as counted:
        exports.inc()
        child = os.fork()
        if child == 0:
            exports.inc(10)
            os._exit(0 if counted["cmd/export"] == 11 else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        exports.inc(100)

    assert (0, {"cmd/export": 101}) == (status, dict(counted))
    assert not base.exists()


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


def test_testing_is_imported_without_pytest_and_without_the_network() -> None:
    """Neither is needed for counts; and a name that is not there is an error as in any module."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import tallypost.testing as testing\n"
        "print({'httpx', 'asyncio'} & sys.modules.keys(), hasattr(testing, 'capturing'))\n"
        "try: testing.tallypost_capture\n"
        "except ImportError as error: print(error.name)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run([sys.executable, "-S", "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert ["set() False", "pytest"] == done.stdout.splitlines()


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
