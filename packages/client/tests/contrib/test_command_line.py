from __future__ import annotations

from collections.abc import Callable

import pytest

from tallypost import Telemetry
from tallypost.contrib.command_line import CommandLine, first_long

Read = Callable[..., dict[str, int]]


@pytest.mark.parametrize(
    ("code", "bucket"), [(None, "0"), (0, "0"), (3, "3"), (256, "0"), (-1, "255"), ("no such file", "1"), (True, "1")]
)
def test_exit_each_is_counted_as_the_system_sees_it(
    code: object, bucket: str, telemetry: Telemetry, counted: Read
) -> None:
    """Whatever `sys.exit` was given; a message is printed, and is never counted."""
    CommandLine(telemetry).count_exit(code)

    assert {"cli/exit": 1, f"cli/exit:{bucket}": 1} == counted()


def test_command_without_a_path_is_none(telemetry: Telemetry, counted: Read) -> None:
    """A program that has no commands, or was called without one."""
    CommandLine(telemetry, prefix="tool").count_command(())

    assert {"tool/command": 1, "tool/command:none": 1} == counted()


@pytest.mark.parametrize(
    ("spellings", "name"),
    [(["-n", "--dry-run"], "dry-run"), (["-n"], "n"), (["--color", "--colour"], "color"), (["/f", "+g"], "f")],
)
def test_option_goes_by_its_first_long_spelling(spellings: list[str], name: str) -> None:
    """However it was written on the command line."""
    assert name == first_long(spellings)
