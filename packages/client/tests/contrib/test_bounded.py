from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tallypost import Telemetry, WrongUse
from tallypost.contrib.bounded import BoundedCounter, Seconds
from tallypost.contrib.words import name_of

Read = Callable[..., dict[str, int]]


def test_counter_over_its_limit_counts_other(telemetry: Telemetry, counted: Read) -> None:
    """Names that are one too many are counted as ``other``; those that were known go on."""
    counter = BoundedCounter(telemetry, "cli/command", limit=2)

    for name in ("add", "done", "third", "fourth", "add"):
        counter.inc(name)

    assert {"cli/command": 5, "cli/command:add": 2, "cli/command:done": 1, "cli/command:other": 2} == counted("cli")


def test_counter_of_a_name_outside_the_grammar_counts_other(telemetry: Telemetry, counted: Read) -> None:
    """A name that does not fit, or is too long behind the counter's, is refused whole."""
    counter = BoundedCounter(telemetry, "cli/command")

    counter.inc("two words")
    counter.inc("x" * 195)

    assert {"cli/command": 2, "cli/command:other": 2} == counted()


def test_counter_without_a_name_counts_the_plain_one(telemetry: Telemetry, counted: Read) -> None:
    """Without a name there is no bucket."""
    BoundedCounter(telemetry, "http/exception").inc()

    assert {"http/exception": 1} == counted()


def test_counter_of_names_without_end_remembers_only_some(telemetry: Telemetry, counted: Read) -> None:
    """What somebody feeds in does not grow the process."""
    counter = BoundedCounter(telemetry, "log/level", limit=3, spelled=name_of)

    for number in range(100):
        counter.inc(f"Level {number}")

    assert {"log/level": 100, "log/level:other": 100} == counted()
    assert 12 == len(counter._known)


def test_counter_of_a_broken_telemetry_never_raises(broken: Any) -> None:
    """The host goes on; the reason is kept."""
    counter, seconds = BoundedCounter(broken, "cli/command"), Seconds(broken, "http/seconds", (1.0,))

    counter.inc("add")
    seconds.observe(0.1)

    assert isinstance(counter.problem, (RuntimeError, AttributeError))
    assert isinstance(seconds.problem, (RuntimeError, AttributeError))


def test_counter_of_something_that_is_no_name_never_raises(telemetry: Telemetry) -> None:
    """What an unusual host hands over is not counted, and nothing else happens."""
    counter = BoundedCounter(telemetry, "cli/command")

    counter.inc([])  # type: ignore[arg-type]  # What the test is about.
    counter.inc(7)  # type: ignore[arg-type]  # As above.

    assert counter.problem is not None


def test_counter_with_a_wrong_prefix_raises_where_it_is_made(telemetry: Telemetry) -> None:
    """A prefix is the author's own word, and found wrong in development."""
    with pytest.raises(WrongUse):
        BoundedCounter(telemetry, "My CLI/command")
    with pytest.raises(WrongUse):
        Seconds(telemetry, "http/seconds", (2.0, 1.0))
