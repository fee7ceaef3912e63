from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tallypost import Telemetry
from tallypost.contrib.click import count_runs

Read = Callable[..., dict[str, int]]


class Lazy(click.Group):
    """A group that finds a command when it is called, and takes some words that it does not list."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["late"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "late" or cmd_name.startswith("file-"):
            return click.Command(cmd_name, callback=lambda: click.echo("found"))
        return super().get_command(ctx, cmd_name)


def program() -> click.Group:
    """A program with commands of each kind; made anew for each test, as counting attaches to it."""

    @click.group(invoke_without_command=True)
    @click.option("--verbose", "-v", count=True)
    @click.option("--token", envvar="TOKEN")
    @click.option("--shout/--whisper", default=False)
    def tool(**options: object) -> None:
        click.echo(f"tool {options}")

    @tool.group()
    def db() -> None:
        pass

    @db.command("migrate")
    @click.option("-n", "--dry-run", is_flag=True)
    @click.option("--name", prompt=True)
    @click.argument("target")
    def migrate(**given: object) -> None:
        click.echo(f"migrate {given}")

    @tool.command()
    @click.option("--way", type=int)
    @click.pass_context
    def fail(context: click.Context, way: int) -> None:
        if way == 0:
            raise KeyError("secret")
        if way == 1:
            raise click.ClickException("secret")
        if way == 2:
            raise click.Abort
        context.exit(way)

    tool.add_command(Lazy("plugins"))
    tool.add_command(click.Command("internal", params=[click.Option(["--fast"], is_flag=True)]), "renamed")
    tool.add_command(migrate, "move")
    db.add_command(migrate, "up")
    chained = click.Group("chained", chain=True)
    chained.add_command(click.Command("one"))
    chained.add_command(click.Command("two"))
    tool.add_command(chained)
    return tool


CALLS: list[tuple[list[str], dict[str, int]]] = [
    ([], {"command:none": 1, "exit:0": 1}),
    (["-vv", "--whisper"], {"command:none": 1, "option:verbose": 1, "option:shout": 1, "exit:0": 1}),
    (["db", "migrate", "-n", "secret"], {"command:db.migrate": 1, "option:db.migrate.dry-run": 1, "exit:0": 1}),
    (
        ["-v", "db", "migrate", "--name=secret", "secret"],
        {"command:db.migrate": 1, "option:verbose": 1, "option:db.migrate.name": 1, "exit:0": 1},
    ),
    (["db"], {"exit:2": 1}),
    (["secret"], {"exit:2": 1}),
    (["db", "migrate"], {"exit:2": 1}),
    (["--secret"], {"exit:2": 1}),
    (["--help"], {"exit:0": 1}),
    (["db", "--help"], {"exit:0": 1}),
    (["fail", "--way", "0"], {"command:fail": 1, "option:fail.way": 1, "exit:exception": 1}),
    (["fail", "--way", "1"], {"command:fail": 1, "option:fail.way": 1, "exit:1": 1}),
    (["fail", "--way", "2"], {"command:fail": 1, "option:fail.way": 1, "exit:1": 1}),
    (["fail", "--way", "5"], {"command:fail": 1, "option:fail.way": 1, "exit:5": 1}),
    (["plugins", "late"], {"command:plugins.late": 1, "exit:0": 1}),
    (["plugins", "file-secret"], {"command:plugins.other": 1, "exit:0": 1}),
    (["renamed", "--fast"], {"command:renamed": 1, "option:renamed.fast": 1, "exit:0": 1}),
    (["move", "secret", "--name=x"], {"command:move": 1, "option:move.name": 1, "exit:0": 1}),
    (["db", "up", "secret", "--name=x"], {"command:db.migrate": 1, "option:db.migrate.name": 1, "exit:0": 1}),
    (["chained", "one", "two", "one"], {"command:chained.one": 2, "command:chained.two": 1, "exit:0": 1}),
]


@pytest.mark.parametrize(("words", "expected"), CALLS, ids=lambda value: " ".join(value) or "nothing")
def test_run_each_counts_command_options_and_exit(
    words: list[str], expected: dict[str, int], telemetry: Telemetry, counted: Read
) -> None:
    """Names of the author alone: not what stands in the environment, in a prompt, in a value or in an argument."""
    tool = count_runs(telemetry)(program())

    CliRunner().invoke(tool, words, input="secret\n", env={"TOKEN": "secret"})

    found = {name.removeprefix("cli/"): n for name, n in counted().items() if ":" in name}
    # What stands on the command line of the group is counted once, however often a chain comes by.
    assert expected == found


@pytest.mark.parametrize("words", [words for words, _ in CALLS], ids=lambda words: " ".join(words) or "nothing")
def test_run_each_is_as_without_counting(words: list[str], telemetry: Telemetry, broken: Any) -> None:
    """Output, exit code and exception are the same: uncounted, counted, and with a broken telemetry object."""
    runs = [
        CliRunner().invoke(tool, words, input="secret\n")
        for tool in (program(), count_runs(telemetry)(program()), count_runs(broken)(program()))
    ]

    seen = [(run.output, run.exit_code, repr(run.exception)) for run in runs]

    assert [seen[0]] * 3 == seen


def test_run_outside_standalone_mode_returns_and_raises_as_before(telemetry: Telemetry, counted: Read) -> None:
    """A program that is called from Python gets its value, or click's own errors with the codes they stand for."""
    tool = count_runs(telemetry)(program())

    with pytest.raises(click.UsageError):
        tool.main(["secret"], standalone_mode=False)
    with pytest.raises(click.ClickException):
        tool.main(["fail", "--way", "1"], standalone_mode=False)
    returned = tool.main(["fail", "--way", "5"], standalone_mode=False)

    assert 5 == returned
    assert {"cli/exit": 3, "cli/exit:0": 1, "cli/exit:1": 1, "cli/exit:2": 1} == counted("cli/exit")


def test_command_counted_twice_over_is_counted_once(telemetry: Telemetry, counted: Read) -> None:
    """To say it again changes nothing."""
    tool = count_runs(telemetry)(count_runs(telemetry)(program()))

    CliRunner().invoke(tool, ["db", "migrate", "--name", "x", "y"])

    assert {"cli/command": 1, "cli/command:db.migrate": 1} == counted("cli/command")
    assert {"cli/exit": 1, "cli/exit:0": 1} == counted("cli/exit")


def test_completion_in_a_shell_counts_nothing(telemetry: Telemetry, counted: Read) -> None:
    """The shell calls the program at each press of the key; nobody ran it."""
    tool = count_runs(telemetry)(program())
    environ = {"_TOOL_COMPLETE": "bash_complete", "COMP_WORDS": "tool db migrate --", "COMP_CWORD": "3"}

    completed = CliRunner().invoke(tool, prog_name="tool", env=environ)

    assert "plain,--dry-run" in completed.output
    assert {} == counted()


def test_decorator_below_the_command_leaves_the_function_alone(telemetry: Telemetry) -> None:
    """In the wrong order there is no command yet: the program still runs."""

    def function() -> None:
        pass

    assert function is count_runs(telemetry)(function)  # type: ignore[type-var]  # What the test is about.
