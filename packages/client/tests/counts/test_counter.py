from __future__ import annotations

import dis
import gc
import signal
import sys
import threading
from collections.abc import Callable

import pytest

from tallypost import Telemetry, WrongUse, limits
from tallypost.counts.counter import Counter
from tallypost.testing import FakeClock, FaultyDisk

Start = Callable[..., Telemetry]
Counted = Callable[[], dict[str, dict[str, int]]]


def test_inc_returned_is_in_the_file(application: Start, counted: Counted) -> None:
    """An increment is in the count file the moment it returned, without close or flush."""
    exports = application().counter("cmd/export")

    exports.inc()
    exports.inc(4)

    assert {"2026-11-20": {"cmd/export": 5}} == counted()


def test_inc_with_bucket_counts_bucket_and_plain_name(application: Start, counted: Counted) -> None:
    """A bucket is counted under its own name and in the plain one."""
    exports = application().counter("cmd/export")

    exports.inc(bucket="pdf")
    exports.inc(2, bucket="html")

    assert {"cmd/export": 3, "cmd/export:pdf": 1, "cmd/export:html": 2} == counted()["2026-11-20"]


@pytest.mark.parametrize("bucket", ["a b", "", "ü", "a:b", "x" * 200, 7])
def test_inc_with_bucket_outside_the_grammar_counts_the_plain_name(
    application: Start, counted: Counted, bucket: object
) -> None:
    """A bucket outside the grammar is a named loss, and the plain name is counted."""
    application().counter("cmd/export").inc(bucket=bucket)  # type: ignore[arg-type]  # What the test is about.

    assert {"cmd/export": 1, "tallypost/dropped-buckets": 1} == counted()["2026-11-20"]


@pytest.mark.parametrize("n", [-1, 0.5, "3", None, float("nan"), -(10**30)])
def test_inc_of_what_is_no_count_is_a_named_loss(application: Start, counted: Counted, n: object) -> None:
    """What is no whole number from 0 on raises nothing, counts nothing, and is counted as lost."""
    exports = application().counter("cmd/export")
    exports.inc()

    exports.inc(n)  # type: ignore[arg-type]  # What the test is about.

    assert {"cmd/export": 1, "tallypost/dropped-values": 1} == counted()["2026-11-20"]


def test_inc_over_the_largest_count_saturates(application: Start, counted: Counted) -> None:
    """A counter stops at 2⁵³−1 and never wraps."""
    exports = application().counter("cmd/export")

    for _ in range(3):
        exports.inc(2**63)

    assert {"cmd/export": 2**53 - 1} == counted()["2026-11-20"]


def test_inc_after_midnight_is_in_the_new_days_file(application: Start, counted: Counted, clock: FakeClock) -> None:
    """A warm counter, with nothing else done in between, changes the file at midnight UTC, to the second."""
    exports = application().counter("cmd/export")
    clock.set("2026-11-20T23:59:59.999Z")
    exports.inc()
    exports.inc()

    clock.set("2026-11-21T00:00:00Z")
    exports.inc()

    assert {"2026-11-20": {"cmd/export": 2}, "2026-11-21": {"cmd/export": 1}} == counted()


def test_inc_after_the_clock_was_set_back_is_in_that_days_file(
    application: Start, counted: Counted, clock: FakeClock
) -> None:
    """The day is the clock's, also when it jumps backwards."""
    exports = application().counter("cmd/export")
    exports.inc()

    clock.set("2026-11-18T12:00:00Z")
    exports.inc()
    clock.set("2026-11-20T13:00:00Z")
    exports.inc()

    assert {"2026-11-18": {"cmd/export": 1}, "2026-11-20": {"cmd/export": 2}} == counted()


def test_inc_in_many_threads_gives_the_exact_sum(application: Start, counted: Counted) -> None:
    """Threads that count in one cell lose nothing, though they take no lock."""
    exports = application().counter("cmd/export")
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=lambda: [exports.inc() for _ in range(2000)]) for _ in range(16)]

    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch_interval)

    assert {"cmd/export": 32000} == counted()["2026-11-20"]


def test_inc_with_and_without_bucket_in_threads_gives_the_exact_sum(application: Start, counted: Counted) -> None:
    """The lock's holder and a thread without the lock add to one cell, and lose nothing."""
    exports = application().counter("cmd/export")
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def plain() -> None:
        for _ in range(20000):
            exports.inc()

    def bucket() -> None:
        for n in range(4000):
            exports.inc(bucket=f"b{n}")

    threads = [threading.Thread(target=work) for work in (plain, bucket, plain)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch_interval)

    assert 44000 == counted()["2026-11-20"]["cmd/export"]


@pytest.mark.parametrize("function", [Counter.inc, Counter.add, Counter.attach])
def test_inc_reads_and_writes_its_value_without_a_call_in_between(function: Callable[..., None]) -> None:
    """Why threads lose nothing: an interpreter with a GIL switches at calls and backward jumps only, and none is there.

    Each sequence from the load of a value to its last store is looked at in the byte code of this Python.
    """
    instructions = list(dis.get_instructions(function))
    stores = [place for place, one in enumerate(instructions) if one.opname == "STORE_ATTR" and one.argval == "_value"]
    assert stores

    for store in stores:
        read = ("_value", "COUNT_MAX", "cell")
        load = max(place for place, one in enumerate(instructions[:store]) if one.argval in read)
        between = [one.opname for one in instructions[load : store + 1]]
        assert not [name for name in between if "CALL" in name or "JUMP" in name or "RESUME" in name]


@pytest.mark.parametrize("function", [Counter.inc, Counter.add])
def test_inc_writes_its_cell_before_its_value(function: Callable[..., None]) -> None:
    """A cell that is void or full raises before the value that stands for it has changed."""
    instructions = list(dis.get_instructions(function))
    values = [place for place, one in enumerate(instructions) if one.opname == "STORE_ATTR" and one.argval == "_value"]
    cells = [place for place, one in enumerate(instructions) if one.opname.startswith("STORE_SUBSCR")]

    assert len(values) == len(cells)
    for cell, value in zip(cells, values, strict=True):
        between = [one.opname for one in instructions[cell + 1 : value]]
        assert cell < value
        assert all(name.startswith(("LOAD_FAST", "CACHE", "EXTENDED_ARG")) for name in between)


def test_inc_by_a_whole_number_of_another_type_is_counted(application: Start, counted: Counted) -> None:
    """A count of a numeric library is a whole number too; what it is made of does not stay in the counter."""

    class Whole:
        def __index__(self) -> int:
            return 5

        def __radd__(self, other: object) -> object:
            raise AssertionError

    exports = application().counter("cmd/export")

    exports.inc(Whole())  # type: ignore[arg-type]  # What the test is about.
    exports.inc(True)
    exports.inc()

    assert {"cmd/export": 7} == counted()["2026-11-20"]


def test_inc_after_names_were_dropped_counts_every_loss(application: Start, counted: Counted) -> None:
    """The counter of losses is added to by the recorder and by itself, and neither takes anything from the other."""
    telemetry = application()
    dropped = telemetry.counter("tallypost/dropped-names")
    dropped.inc()
    for n in range(limits.names_per_file_max):
        telemetry.counter(f"name{n}").inc()
    before = counted()["2026-11-20"]["tallypost/dropped-names"]

    for name in ("a", "b", "c"):
        telemetry.counter(name).inc()
        dropped.inc()

    assert before + 6 == counted()["2026-11-20"]["tallypost/dropped-names"]


def test_inc_in_a_signal_handler_during_a_slow_increment_is_counted(
    application: Start, counted: Counted, disk: FaultyDisk
) -> None:
    """A handler that counts while the same thread is opening the file neither waits for ever nor loses its count."""
    telemetry = application()
    exports, signals = telemetry.counter("cmd/export"), telemetry.counter("signals")
    disk.at("before_link", lambda: signal.raise_signal(signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, lambda number, frame: signals.inc())

    try:
        exports.inc()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert 1 == counted()["2026-11-20"]["cmd/export"]
    assert 1 <= counted()["2026-11-20"]["signals"]


def test_inc_in_a_destructor_is_counted(application: Start, counted: Counted) -> None:
    """An object that counts when the collector takes it is counted."""
    destroyed = application().counter("objects/destroyed")

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            destroyed.inc()

    Cycle()
    gc.collect()

    assert {"objects/destroyed": 1} == counted()["2026-11-20"]


@pytest.mark.parametrize("name", ["", "Cmd", "cmd//x", "cmd/x:y", "cmd x", "-cmd", "cmd/", "c" * 201, "crash\n"])
def test_counter_with_a_name_outside_the_grammar_raises_where_it_is_declared(application: Start, name: str) -> None:
    """Wrong use is found in development, with what was given and what is allowed."""
    telemetry = application()

    with pytest.raises(WrongUse, match="allowed is") as caught:
        telemetry.counter(name)

    assert name == caught.value.given


def test_counter_asked_for_twice_is_one_object(application: Start) -> None:
    """The same name is the same counter, so that its cell is one."""
    telemetry = application()

    assert telemetry.counter("cmd/export") is telemetry.counter("cmd/export")
