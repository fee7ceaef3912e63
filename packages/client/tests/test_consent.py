from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost.consent import MODES, WHO, Decision, ModeLine, decide, is_test_runner, parse_mode_line

# The same examples on every run, no database, no clock.
repeatable = settings(deadline=None, derandomize=True, database=None)
ON, LOCAL, OFF = "on 2026-11-20 1 user\n", "local 2026-11-20 1 user\n", "off 2026-11-20 1 user\n"
_LINE = re.compile(r"(on|local|off) ([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{1,16}) (user|application|administrator)\n?")


def decided(
    *,
    default: str = "local",
    system: str | None = None,
    environ: dict[str, str] | None = None,
    runner: bool = False,
    mode_file: str | None = None,
    version: int | None = 1,
) -> Decision:
    """What is decided where nothing is said but what is given."""
    return decide(
        default=default,
        system_file=system,
        environ=environ or {},
        test_runner=runner,
        mode_file=mode_file,
        consent_version=version,
    )


def is_whole_line(text: str) -> bool:
    """Whether `text` is one whole line of the four fields, by another way than the code's."""
    match = _LINE.fullmatch(text)
    if match is None or not 1 <= int(match[3]) < 2**53:
        return False
    try:
        datetime.date.fromisoformat(match[2])
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Said:
    """One combination of what can be said."""

    default: str
    system: str | None
    track: str | None
    said: str | None
    ci: str | None
    runner: bool
    mode_file: str | None
    version: int | None


# What each line of the documentation's table means, by another way than the code's.
LINES: dict[str, Callable[[Said], bool]] = {
    'the application passes `default="off"`': lambda it: it.default == "off",
    "`/etc/tallypost/mode` says anything but `on` or `local`": lambda it: it.system not in (None, "on", "local\n"),
    "`DO_NOT_TRACK` is set": lambda it: it.track == "1",
    "`TALLYPOST` is any word but `on` or `local`": lambda it: it.said in ("off", "maybe"),
    "`CI` is set, `TALLYPOST` is not": lambda it: it.ci == "true" and it.said is None,
    "pytest or unittest runs this, `TALLYPOST` is not set": lambda it: it.runner and it.said is None,
    "the mode file says `off`, or is anything but one whole line of its four fields": lambda it: (
        it.mode_file not in (None, ON, LOCAL)
    ),
    "`/etc/tallypost/mode` says `local`": lambda it: it.system == "local\n",
    "`TALLYPOST` is `local`, or is `on` where there is no mode file": lambda it: (
        it.said == "local" or (it.said == "on" and it.mode_file is None)
    ),
    "there is no mode file": lambda it: it.mode_file is None,
    "the mode file says `on`, to an older consent version than the declaration's": lambda it: (
        it.mode_file == ON and it.version == 2
    ),
    "the mode file says `local`": lambda it: it.mode_file == LOCAL,
    "the mode file says `on`": lambda it: it.mode_file == ON,
}


def documented() -> list[tuple[str, str, str]]:
    """The lines of the table in ``docs/client/consent.md``: when, mode, source."""
    page = Path(__file__).parents[3] / "docs" / "client" / "consent.md"
    rows = [line.strip("|").split("|") for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[1].strip(), row[2].strip()) for row in rows[1:]]


def test_decide_over_all_combinations_lets_any_off_win() -> None:
    """Every combination of what can be said gives the mode and the source that the documentation's table has."""
    combinations = itertools.product(
        ("local", "off"),
        (None, "on", "local\n", "off", "", "yes please"),
        (None, "1", "0"),
        (None, "on", "local", "off", "maybe"),
        (None, "true", "false"),
        (False, True),
        (None, ON, LOCAL, OFF, "", "on\n"),
        (None, 1, 2),
    )

    table = documented()
    assert list(LINES) == [when for when, _, _ in table]
    reached = set()
    for combination in combinations:
        it = Said(*combination)
        told = {"DO_NOT_TRACK": it.track, "TALLYPOST": it.said, "CI": it.ci}
        decision = decided(
            default=it.default,
            system=it.system,
            environ={variable: value for variable, value in told.items() if value is not None},
            runner=it.runner,
            mode_file=it.mode_file,
            version=it.version,
        )

        when, mode, source = next(line for line in table if LINES[line[0]](it))
        reached.add(when)
        assert (mode, source) == (decision.mode, decision.source), it
    assert set(LINES) == reached


@pytest.mark.parametrize("mode_file", [None, LOCAL, OFF, "", "on", "off\n"])
def test_decide_with_tallypost_on_without_a_saved_yes_is_never_on(mode_file: str | None) -> None:
    """The variable alone is no consent."""
    decision = decided(environ={"TALLYPOST": "on"}, mode_file=mode_file)

    assert "on" != decision.mode


def test_decide_with_tallypost_on_overrides_ci_and_test_runner_alone() -> None:
    """Set on purpose, the variable lets tests and CI count, and post under a saved yes."""
    decision = decided(environ={"TALLYPOST": "on", "CI": "1"}, runner=True, mode_file=ON)

    assert ("on", "mode file") == (decision.mode, decision.source)


@pytest.mark.parametrize(
    ("value", "mode"), [("", "local"), ("0", "local"), ("false", "local"), ("FALSE", "local"), (" ", "local")]
)
def test_decide_with_do_not_track_unset_in_words_is_no_off(value: str, mode: str) -> None:
    """Empty, 0 and false say nothing."""
    decision = decided(environ={"DO_NOT_TRACK": value})

    assert mode == decision.mode


@pytest.mark.parametrize("value", ["1", "true", "yes", "no", "off", "2", "00"])
def test_decide_with_do_not_track_of_any_other_value_is_off(value: str) -> None:
    """Any value but empty, 0 and false is a no."""
    decision = decided(environ={"DO_NOT_TRACK": value}, mode_file=ON)

    assert ("off", "DO_NOT_TRACK") == (decision.mode, decision.source)


def test_decide_by_the_mode_file_names_its_line_and_day() -> None:
    """A saved answer decides under its own line, and says since when."""
    decision = decided(mode_file=ON)

    assert ("on 2026-11-20 1 user", "2026-11-20") == (decision.line, decision.since)


def test_decide_by_something_else_gives_a_line_that_no_file_can_hold() -> None:
    """What is counted under an imposed mode can never pass for what was counted under a saved yes."""
    lines = [
        decided().line,
        decided(environ={"TALLYPOST": "local"}, mode_file=ON).line,
        decided(environ={"TALLYPOST": "on"}).line,
        decided(system="local", mode_file=ON).line,
    ]

    assert [None] * 4 == [parse_mode_line(line) for line in lines]


def test_decide_under_a_grown_consent_version_is_local_until_asked_again() -> None:
    """A yes to version 1 is none to version 2; a yes to version 2 is one to version 1."""
    asked_anew = decided(mode_file=ON, version=2)
    asked_before = decided(mode_file="on 2026-11-20 2 user\n", version=1)

    assert ("local", "mode file") == (asked_anew.mode, asked_anew.source)
    assert "on" == asked_before.mode


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "on",
        "on 2026-11-20 1",
        "on 2026-11-20 1 user extra",
        "on 2026-11-20 1 user\n\n",
        "on 2026-11-20 1 user\non 2026-11-20 1 user\n",
        "on 2026-11-20 1 user\r\n",
        " on 2026-11-20 1 user",
        "on  2026-11-20 1 user",
        "on\t2026-11-20\t1\tuser",
        "ON 2026-11-20 1 user",
        "on 2026-11-20 0 user",
        "on 2026-11-20 -1 user",
        "on 2026-11-20 1.0 user",
        "on 2026-11-20 ² user",
        "on 2026-11-20 ١ user",
        f"on 2026-11-20 {2**53} user",
        f"on 2026-11-20 {'1' * 5000} user",
        "on 2026-11-20 1 root",
        "on 2026-11-20 1 \ufffduser",
        "on 2026-13-01 1 user",
        "on 2026-02-29 1 user",
        "on 2026-04-31 1 user",
        "on 2026-11-00 1 user",
        "on 0000-11-20 1 user",
        "on 2026/11/20 1 user",
        "on ٢٠٢٦-11-20 1 user",
        "\x00" * 21,
    ],
)
def test_decide_with_a_damaged_mode_file_is_off(text: str) -> None:
    """A mode file that is anything but one whole line of the four fields means off."""
    decision = decided(mode_file=text, environ={"TALLYPOST": "on"})

    assert ("off", "mode file") == (decision.mode, decision.source)


@repeatable
@given(text=st.text(max_size=40) | st.binary(max_size=40).map(lambda content: content.decode("utf-8", "replace")))
def test_decide_with_any_text_for_a_mode_file_is_off(text: str) -> None:
    """What nobody wrote as a mode line is no yes."""
    assert "off" == decided(mode_file=text).mode or is_whole_line(text)


@repeatable
@given(
    line=st.builds(
        "{} {} {} {}\n".format,
        st.sampled_from(MODES),
        st.dates().map(str),
        st.integers(1, 2**53 - 1),
        st.sampled_from(WHO),
    ),
    at=st.integers(0, 60),
    cut=st.integers(0, 60),
    put=st.text(alphabet="on local 0123456789-\n\r\x00user", max_size=6),
)
def test_decide_with_a_mode_line_changed_anywhere_is_off_unless_it_is_whole(
    line: str, at: int, cut: int, put: str
) -> None:
    """Cut, overwritten or grown at any place, a mode line is off, or says what it then says in four whole fields."""
    changed = line[:at] + put + line[at + cut :]

    decision = decided(mode_file=changed)

    if is_whole_line(changed):
        assert changed.split()[0] == decision.mode
    else:
        assert ("off", "mode file") == (decision.mode, decision.source)


@repeatable
@given(
    mode=st.sampled_from(MODES), day=st.dates().map(str), version=st.integers(1, 2**53 - 1), who=st.sampled_from(WHO)
)
def test_parse_mode_line_of_what_was_written_gives_it_back(mode: str, day: str, version: int, who: str) -> None:
    """A mode line survives the file."""
    written = ModeLine(mode, day, version, who)  # type: ignore[arg-type]  # One of MODES.

    assert written == parse_mode_line(f"{written}\n")
    assert hash(written) == hash(parse_mode_line(str(written)))


class Main:
    """A stand-in for the module that a process runs."""

    def __init__(self, package: str | None) -> None:
        self.__package__ = package


@pytest.mark.parametrize(
    ("environ", "main", "expected"),
    [
        ({}, None, False),
        ({}, Main(None), False),
        ({}, Main(""), False),
        ({}, Main("mytool"), False),
        ({}, Main("pytest"), True),
        ({}, Main("unittest"), True),
        ({"PYTEST_VERSION": "8.2"}, Main(None), True),
        ({"PYTEST_CURRENT_TEST": "test_x (call)"}, Main("mytool"), True),
    ],
)
def test_is_test_runner_knows_pytest_and_unittest(environ: dict[str, str], main: object, expected: bool) -> None:
    """The runner is known by its module, and what it starts by the environment."""
    assert expected is is_test_runner(environ, main)
