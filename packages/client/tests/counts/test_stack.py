from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry, WrongUse
from tallypost.counts.stack import ELSEWHERE

Start = Callable[..., Telemetry]
Counted = Callable[[], dict[str, dict[str, int]]]

STACKS = """
application = "example.org/mytool"
contact = "privacy@example.org"
[stacks."crash/KeyError"]
why = "w"
owner = "o"
expires = "never"
packages = ["mytool"]
[stacks.warn]
why = "w"
owner = "o"
expires = "never"
packages = ["mytool"]
"""


@pytest.fixture
def start(application: Start, tmp_path: Path) -> Start:
    """The application, with two stacks declared for its package `mytool`."""
    path = tmp_path / "stacks.toml"
    path.write_text(STACKS)
    return lambda **settings: application(declaration=path, **settings)


def module(name: str, source: str, **values: object) -> types.ModuleType:
    """A module of that name."""
    made = types.ModuleType(name)
    vars(made).update(values)
    exec(compile(source, f"{name}.py", "exec"), vars(made))
    return made


def test_stack_counts_by_the_declared_packages_frames(start: Start, counted: Counted) -> None:
    """The key has the own frames, the outermost first, with lines from their function's begin; others are left out."""
    warn = start().stack("warn")
    inner = module("mytool.io", "def load():\n    x = 1\n    warn.inc()\n", warn=warn)
    other = module("elsewhere", "def call(function):\n    function()\n")
    outer = module("mytool.cli", "def main():\n    call(load)\n", call=other.call, load=inner.load)

    outer.main()
    outer.main()

    assert {"warn\nmytool.cli:main:+1\nmytool.io:load:+2": 2} == counted()["2026-11-20"]


def test_stack_of_a_depth_has_the_innermost_frames(start: Start, counted: Counted) -> None:
    """Of more frames than the depth the innermost are kept."""
    warn = start().stack("warn", depth=2)
    source = "def go(n):\n    if n:\n        return go(n - 1)\n    warn.inc(5)\n"
    recursive = module("mytool", source, warn=warn)

    recursive.go(9)

    assert {"warn\nmytool:go:+2\nmytool:go:+3": 5} == counted()["2026-11-20"]


def test_stack_outside_of_the_declared_packages_tells_nothing_but_its_name(start: Start, counted: Counted) -> None:
    """A hit in no declared package is counted, and where it was stays untold."""
    start().stack("warn").inc()

    assert {f"warn\n{ELSEWHERE}": 1} == counted()["2026-11-20"]


def test_stack_that_is_not_declared_tells_no_frames(start: Start, counted: Counted) -> None:
    """Without a declaration nobody said whose frames may be told."""
    undeclared = start().stack("undeclared")

    module("mytool", "def go():\n    undeclared.inc()\n", undeclared=undeclared).go()

    assert {f"undeclared\n{ELSEWHERE}": 1} == counted()["2026-11-20"]


def test_stack_of_long_names_loses_its_outermost_frames(start: Start, counted: Counted) -> None:
    """A key keeps within its size."""
    warn = start().stack("warn", depth=32)
    name = "f" * 300
    long = module("mytool", f"def {name}(n):\n    return {name}(n - 1) if n else warn.inc()\n", warn=warn)

    getattr(long, name)(30)

    (key,) = counted()["2026-11-20"]
    assert 4096 - 320 < len(key) <= 4096


def test_exception_in_a_block_is_counted_and_passes_on(start: Start, counted: Counted) -> None:
    """The way of an exception is counted under its kind; who catches it notices nothing."""
    telemetry = start()
    tool = module("mytool", "def load(table):\n    return table['x']\n")

    with pytest.raises(KeyError), telemetry.count_exceptions("crash"):
        tool.load({})

    assert {"crash/KeyError\nmytool:load:+1": 1} == counted()["2026-11-20"]


def test_exit_in_a_block_is_not_counted(start: Start, counted: Counted) -> None:
    """Leaving the program is no crash."""
    telemetry = start()
    telemetry.counter("x").inc()

    with pytest.raises(SystemExit), telemetry.count_exceptions("crash"):
        sys.exit(3)

    assert {"x": 1} == counted()["2026-11-20"]


def test_exception_of_a_decorated_function_and_coroutine_is_counted(start: Start, counted: Counted) -> None:
    """As a decorator it counts what leaves a function, and what leaves a coroutine when it is awaited."""
    telemetry = start()

    @telemetry.count_exceptions("crash")
    def function() -> None:
        raise KeyError("x")

    @telemetry.count_exceptions("crash")
    async def coroutine() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        function()
    with pytest.raises(KeyError):
        asyncio.run(coroutine())

    assert {f"crash/KeyError\n{ELSEWHERE}": 2} == counted()["2026-11-20"]
    assert "function" == function.__name__


def test_crash_counter_counts_and_calls_the_hooks_that_were_there(start: Start, counted: Counted) -> None:
    """Uncaught exceptions of the main thread and of others are counted, and then told as before."""
    told: list[str] = []
    before, before_thread = sys.excepthook, threading.excepthook
    sys.excepthook = lambda kind, error, traceback: told.append(f"main {kind.__name__}")
    threading.excepthook = lambda arguments: told.append(f"thread {arguments.exc_type.__name__}")

    def fail() -> None:
        raise KeyError("x")

    try:
        start().install_crash_counter()
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        sys.excepthook(KeyError, KeyError("y"), None)
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    finally:
        sys.excepthook, threading.excepthook = before, before_thread

    assert ["thread KeyError", "main KeyError", "main KeyboardInterrupt"] == told
    assert {f"crash/KeyError\n{ELSEWHERE}": 2} == counted()["2026-11-20"]


def test_time_as_a_decorator_observes_each_call(start: Start, counted: Counted) -> None:
    """A decorated function is timed whenever it is called, a coroutine until it is done."""
    seconds = start().histogram("work/seconds", (10, 100))

    @seconds.time()
    def function() -> int:
        return 1

    @seconds.time()
    async def coroutine() -> int:
        return 2

    results = [function(), function(), asyncio.run(coroutine())]

    assert [1, 1, 2] == results
    assert {"work/seconds:<=10": 3} == counted()["2026-11-20"]


@pytest.mark.parametrize(("name", "depth"), [("", 8), ("Crash/KeyError", 8), ("a b", 8), ("warn", 0), ("warn", 33)])
def test_stack_of_a_wrong_name_or_depth_raises_where_it_is_declared(start: Start, name: str, depth: int) -> None:
    """Wrong use is found in development."""
    telemetry = start()

    with pytest.raises(WrongUse):
        telemetry.stack(name, depth)
