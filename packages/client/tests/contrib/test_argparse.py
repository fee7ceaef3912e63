from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost import Telemetry
from tallypost.contrib.argparse import count_arguments

Read = Callable[..., dict[str, int]]


def program(action: type[argparse.Action] | None = None) -> argparse.ArgumentParser:
    """A program with commands and options of each kind; options with values are of the action given."""
    kind: dict[str, Any] = {"action": action} if action is not None else {}
    parser = argparse.ArgumentParser(prog="tool")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    parser.add_argument("-q", action="store_true")
    parser.add_argument("-l", "--level", **kind)
    parser.add_argument("place")
    commands = parser.add_subparsers(dest="command")
    db = commands.add_parser("db", aliases=["d"])
    below = db.add_subparsers(dest="below")
    migrate = below.add_parser("migrate")
    migrate.add_argument("-n", "--dry-run", action="store_true")
    migrate.add_argument("--color", action=argparse.BooleanOptionalAction)
    migrate.add_argument("--steps", type=int, default="3", **kind)
    export = commands.add_parser("export")
    export.add_argument("--format", nargs="?", **kind)
    export.add_argument("--size", nargs=2, **kind)
    export.add_argument("-x", nargs="*", **kind)
    export.add_argument("files", nargs="*")
    return parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("here", {"command:none": 1}),
        ("here export", {"command:export": 1}),
        ("export export", {"command:export": 1}),
        ("-vvq here", {"command:none": 1, "option:verbose": 1, "option:q": 1}),
        ("-v -v here -v", {"command:none": 1, "option:verbose": 1}),
        ("--verb here", {"command:none": 1, "option:verbose": 1}),
        ("--level export here db migrate", {"command:db.migrate": 1, "option:level": 1}),
        ("--level=db here d migrate", {"command:db.migrate": 1, "option:level": 1}),
        ("-lexport here", {"command:none": 1, "option:level": 1}),
        ("-vlexport here", {"command:none": 1, "option:level": 1, "option:verbose": 1}),
        ("-vl export here", {"command:none": 1, "option:level": 1, "option:verbose": 1}),
        ("here d migrate -n", {"command:db.migrate": 1, "option:db.migrate.dry-run": 1}),
        ("here db migrate --no-color", {"command:db.migrate": 1, "option:db.migrate.color": 1}),
        ("here db migrate --steps -1", {"command:db.migrate": 1, "option:db.migrate.steps": 1}),
        ("here db", {"command:db": 1}),
        ("here export --format pdf a", {"command:export": 1, "option:export.format": 1}),
        ("here export --size 1 2 --format", {"command:export": 1, "option:export.format": 1, "option:export.size": 1}),
        ("here export -x 1 2 3 -- --format", {"command:export": 1, "option:export.x": 1}),
        ("-v -- here", {"command:none": 1, "option:verbose": 1}),
        ("-v -- here export", {"command:export": 1, "option:verbose": 1}),
        ("-1 export", {"command:export": 1}),
    ],
)
def test_words_each_count_command_and_options(
    words: str, expected: dict[str, int], telemetry: Telemetry, counted: Read
) -> None:
    """As argparse understands them, and nothing of what they are given."""
    parser = program()
    parser.parse_args(words.split())

    count_arguments(telemetry, parser, words.split())

    assert expected == {name.removeprefix("cli/"): n for name, n in counted().items() if ":" in name}


def wrapper(places: int, action: type[argparse.Action] | None = None) -> argparse.ArgumentParser:
    """A program that hands the rest of its words to another one, and has long options behind one dash."""
    kind: dict[str, Any] = {"action": action} if action is not None else {}
    parser = argparse.ArgumentParser(prog="tool")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    parser.add_argument("-depth", **kind)
    for number in range(places):
        parser.add_argument(f"place-{number}")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser


@pytest.mark.parametrize(
    ("places", "words", "expected"),
    [
        (0, "-v other -v -depth 3", {"command:none": 1, "option:verbose": 1}),
        (0, "other -v", {"command:none": 1}),
        (1, "here other --verbose", {"command:none": 1}),
        (2, "here -v there -depth 3", {"command:none": 1, "option:verbose": 1}),
        (1, "-dep 3 here", {"command:none": 1, "option:depth": 1}),
        (1, "-depth=3 here", {"command:none": 1, "option:depth": 1}),
    ],
)
def test_words_for_another_program_are_not_counted(
    places: int, words: str, expected: dict[str, int], telemetry: Telemetry, counted: Read
) -> None:
    """What stands behind the last word of its own may look like an option, and is none."""
    parser = wrapper(places)
    parser.parse_args(words.split())

    count_arguments(telemetry, parser, words.split())

    assert expected == {name.removeprefix("cli/"): n for name, n in counted().items() if ":" in name}


WORDS = ["-v", "-vv", "-q", "-l", "--level", "--lev=x", "here", "db", "d", "migrate", "export", "-n", "--dry-run"]
MORE = ["--color", "--no-color", "--steps", "--steps=3", "2", "-2", "--format", "--size", "-x", "-xy", "-vqlx", "pdf"]


class Noting:
    """A telemetry object that keeps which buckets were counted."""

    def __init__(self) -> None:
        self.found: dict[str, set[str | None]] = {}

    def counter(self, name: str) -> NotingCounter:
        return NotingCounter(self.found.setdefault(name, set()))


class NotingCounter:
    """A counter of it."""

    def __init__(self, found: set[str | None]) -> None:
        self._found = found

    def inc(self, n: int = 1, bucket: str | None = None) -> None:
        self._found.add(bucket)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.sampled_from([*WORDS, *MORE]), max_size=7))
def test_words_of_any_call_are_read_as_argparse_reads_them(words: list[str]) -> None:
    """The options that take values tell themselves that they were met: the same are counted, and the same command."""
    told: set[str] = set()

    class Telling(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, namespace: Any, *more: Any) -> None:
            told.add(self.dest)

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parsed = program(Telling).parse_args(words)
    except SystemExit:
        return  # argparse refuses it, so nobody gets as far as counting.
    noting: Any = Noting()

    count_arguments(noting, program(), words)

    called = [{"d": "db"}.get(name, name) for name in (parsed.command, getattr(parsed, "below", None)) if name]
    counted = {str(bucket).rpartition(".")[2] for bucket in noting.found["cli/option"]}
    assert {".".join(called) or "none"} == noting.found["cli/command"]
    assert told == counted & {"level", "steps", "format", "size", "x"}
    assert bool(parsed.verbose) == ("verbose" in counted)
    assert bool(getattr(parsed, "dry_run", False)) == ("dry-run" in counted)


@settings(max_examples=200, deadline=None)
@given(
    places=st.integers(0, 2),
    words=st.lists(st.sampled_from(["-v", "-vv", "-depth", "-dep", "-depth=1", "a", "b", "3", "--verb"]), max_size=7),
)
def test_words_of_any_call_of_another_program_are_read_as_argparse_reads_them(places: int, words: list[str]) -> None:
    """The options that are met before the rest, and none of the rest."""
    told: set[str] = set()

    class Telling(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, namespace: Any, *more: Any) -> None:
            told.add(self.dest)

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parsed = wrapper(places, Telling).parse_args(words)
    except SystemExit:
        return  # As above.
    noting: Any = Noting()

    count_arguments(noting, wrapper(places), words)

    counted = noting.found["cli/option"]
    assert (bool(parsed.verbose), bool(told)) == ("verbose" in counted, "depth" in counted)


def test_words_left_out_are_those_of_the_command_line(telemetry: Telemetry, counted: Read) -> None:
    """What `parse_args` reads when it is given nothing."""
    parser = argparse.ArgumentParser()

    count_arguments(telemetry, parser)

    assert {"cli/command": 1, "cli/command:none": 1} == counted("cli/command")


def test_namespace_counts_what_is_not_at_its_default(telemetry: Telemetry, counted: Read) -> None:
    """A default that is a string was parsed, and is still the default."""
    parser = program()

    count_arguments(telemetry, parser, parser.parse_args(["-v", "here", "d", "migrate", "--no-color"]))

    assert {
        "cli/command": 1,
        "cli/command:db.migrate": 1,
        "cli/option": 2,
        "cli/option:verbose": 1,
        "cli/option:db.migrate.color": 1,
    } == counted()


def test_namespace_without_a_dest_for_commands_counts_other(telemetry: Telemetry, counted: Read) -> None:
    """Which command it was does not stand in it."""
    parser = argparse.ArgumentParser()
    parser.add_subparsers().add_parser("export")

    count_arguments(telemetry, parser, parser.parse_args(["export"]))

    assert {"cli/command": 1, "cli/command:other": 1} == counted()


def test_parser_of_another_make_counts_other(telemetry: Telemetry, counted: Read) -> None:
    """Something that is no parser of argparse's is no reason to raise."""
    count_arguments(telemetry, object(), ["export"])  # type: ignore[arg-type]  # What the test is about.

    assert {"cli/command": 1, "cli/command:other": 1} == counted()


def test_broken_telemetry_raises_nothing(broken: Any) -> None:
    """The program goes on."""
    count_arguments(broken, program(), ["-v", "here", "export"], prefix="tool")
