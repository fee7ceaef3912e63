from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry, WrongUse
from tallypost.testing import FakeClock, capture
from tallypost.testing.diversion import _Diversion

Start = Callable[..., Telemetry]


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


def test_capture_has_what_is_counted_in_the_instant_it_begins(off: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread, when the application counts there and nobody has looked yet."""
    exports = off.counter("cmd/export")
    exchange = _Diversion.exchange

    def exchange_and_count(diversion: _Diversion, telemetry: Telemetry) -> None:
        exchange(diversion, telemetry)
        exports.inc()

    monkeypatch.setattr(_Diversion, "exchange", exchange_and_count)
    with capture(off) as counted:
        assert {"cmd/export": 1} == counted


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


EVENTS = """
[events.export]
why = "Which formats follow each other"
owner = "export team"
expires = "never"
fields = { format = ["pdf", "html"] }
"""


def test_capture_of_an_application_that_logs_events_touches_none_of_its_logs(
    application: Start, declaration: Path, base: Path
) -> None:
    """An event goes where counts go: before and after the capture to the application's own log, within it to none."""
    declaration.write_text(declaration.read_text() + EVENTS)
    telemetry = application(environ={"TALLYPOST": "local"})

    telemetry.event("export", format="pdf")
    wait_for_events(base, 1)
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    with capture(telemetry) as counted:
        telemetry.event("export", format="html")
        telemetry.close()
        within = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    telemetry.event("export", format="pdf")

    assert before == within
    assert {} == counted
    assert (2, 0) == (wait_for_events(base, 2).count("pdf"), wait_for_events(base, 2).count("html"))


def wait_for_events(base: Path, count: int) -> str:
    """The application's logs, once its thread has written so many events of one format."""
    deadline = time.monotonic() + 20
    while True:
        text = "".join(path.read_text() for path in base.glob("example.org/mytool/events/*"))
        if text.count("pdf") >= count or time.monotonic() > deadline:
            return text
        time.sleep(0.01)


def test_capture_under_a_test_runner_raises_for_an_event_that_does_not_fit(
    application: Start, declaration: Path
) -> None:
    """As it does without a capture."""
    declaration.write_text(declaration.read_text() + EVENTS)
    telemetry = application(environ={"PYTEST_VERSION": "9"})

    with capture(telemetry), pytest.raises(WrongUse):
        telemetry.event("export", format="secret")


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
