from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tallypost import Telemetry
from tallypost.contrib.typer import count_runs

Read = Callable[..., dict[str, int]]


class Own(typer.core.TyperGroup):
    """A group of the application's own kind."""


def single() -> typer.Typer:
    """A program that is one command."""
    app = typer.Typer()

    @app.command()
    def greet(name: str, loud: bool = False) -> None:
        typer.echo(f"{name} {loud}")
        if name == "nobody":
            raise typer.Exit(7)
        if name == "crash":
            raise KeyError(name)

    return app


def nested() -> typer.Typer:
    """A program of groups, with a callback and a group class of its own."""
    app, below = typer.Typer(cls=Own), typer.Typer()

    @app.callback()
    def everywhere(verbose: bool = False) -> None:
        """Before each command."""

    @app.command("say-it")
    def say(word: str = "") -> None:
        typer.echo(word)

    @below.command()
    def migrate(dry_run: bool = False) -> None:
        typer.echo(f"migrate {dry_run}")

    app.add_typer(below, name="db")
    return app


CALLS: list[tuple[Callable[[], typer.Typer], list[str], dict[str, int]]] = [
    (single, ["you"], {"command:none": 1, "exit:0": 1}),
    (single, ["you", "--no-loud"], {"command:none": 1, "option:loud": 1, "exit:0": 1}),
    (single, ["nobody"], {"command:none": 1, "exit:7": 1}),
    (single, ["crash"], {"command:none": 1, "exit:exception": 1}),
    (single, [], {"exit:2": 1}),
    (single, ["--help"], {"exit:0": 1}),
    (nested, ["say-it", "--word", "secret"], {"command:say-it": 1, "option:say-it.word": 1, "exit:0": 1}),
    (
        nested,
        ["--verbose", "db", "migrate", "--dry-run"],
        {"command:db.migrate": 1, "option:verbose": 1, "option:db.migrate.dry-run": 1, "exit:0": 1},
    ),
    (nested, ["secret"], {"exit:2": 1}),
    (nested, [], {"exit:2": 1}),
]


@pytest.mark.parametrize(
    ("make", "words", "expected"), CALLS, ids=lambda value: " ".join(getattr(value, "keys", str)())
)
def test_run_each_counts_command_options_and_exit(
    make: Callable[[], typer.Typer], words: list[str], expected: dict[str, int], telemetry: Telemetry, counted: Read
) -> None:
    """As for click, though typer brings commands of its own."""
    app = make()
    count_runs(app, telemetry)

    CliRunner().invoke(app, words)

    assert expected == {name.removeprefix("cli/"): n for name, n in counted().items() if ":" in name}


@pytest.mark.parametrize(("make", "words"), [call[:2] for call in CALLS])
def test_run_each_is_as_without_counting(
    make: Callable[[], typer.Typer], words: list[str], telemetry: Telemetry, broken: Any
) -> None:
    """Output, exit code and exception are the same: uncounted, counted, and with a broken telemetry object."""
    apps = [make(), make(), make()]
    count_runs(apps[1], telemetry)
    count_runs(apps[2], broken)

    runs = [CliRunner().invoke(app, words) for app in apps]

    seen = [(run.output, run.exit_code, repr(run.exception)) for run in runs]
    assert [seen[0]] * 3 == seen


def test_app_called_directly_counts_and_keeps_typers_hook(telemetry: Telemetry, counted: Read) -> None:
    """`app()` is typer's own, with its way of showing exceptions."""
    app = single()
    count_runs(app, telemetry)
    hook = sys.excepthook

    try:
        with pytest.raises(SystemExit) as ended:
            app(["you"])
        assert typer.main.except_hook is sys.excepthook
    finally:
        sys.excepthook = hook

    assert 0 == ended.value.code
    assert {"cli/exit": 1, "cli/exit:0": 1} == counted("cli/exit")


def test_completion_in_a_shell_counts_nothing(telemetry: Telemetry, counted: Read) -> None:
    """As for click."""
    app = nested()
    count_runs(app, telemetry)
    environ = {"_TOOL_COMPLETE": "complete_bash", "COMP_WORDS": "tool say-it --", "COMP_CWORD": "2"}

    completed = CliRunner().invoke(app, prog_name="tool", env=environ)

    assert "--word" in completed.output
    assert {} == counted()


def test_app_counted_twice_over_is_counted_once(telemetry: Telemetry, counted: Read) -> None:
    """To say it again changes nothing."""
    app = nested()
    count_runs(app, telemetry)
    count_runs(app, telemetry)

    CliRunner().invoke(app, ["db", "migrate"])

    assert {"cli/command": 1, "cli/command:db.migrate": 1} == counted("cli/command")
    assert {"cli/exit": 1, "cli/exit:0": 1} == counted("cli/exit")
