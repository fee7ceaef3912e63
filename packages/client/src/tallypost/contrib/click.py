"""Counts the runs of a click command or group.

Takes   a command, with all that is below it.
Gives   ``cli/command:db.migrate``, ``cli/option:db.migrate.dry-run``, ``cli/exit:0``.
Never   counts a value, an argument or what somebody typed; never changes output, exit code or order of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from . import bounded
from .command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..telemetry import Telemetry

    AnyCommand = TypeVar("AnyCommand", bound=click.Command)


def count_runs(
    telemetry: Telemetry, *, prefix: str = "cli", limit: int = bounded.buckets_max
) -> Callable[[AnyCommand], AnyCommand]:
    """A decorator, put above ``@click.command()`` or ``@click.group()``: each run of the program is counted.

    Raises:
        WrongUse: the prefix is outside the grammar.
    """
    line = CommandLine(telemetry, prefix=prefix, limit=limit)

    def counted(command: AnyCommand) -> AnyCommand:
        if isinstance(command, click.Command):  # Else it stands below @click.command(), and there is no command yet.
            line.attach(command)
        return command

    return counted
