"""Counts the runs of a typer application.

Takes   the application, once its commands are registered.
Gives   the same counts as for click: command, options, exit code.
Never   counts a value, an argument or what somebody typed; never changes output, exit code or order of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperGroup
from typer.models import DefaultPlaceholder

from . import bounded
from .command_line import CommandLine

if TYPE_CHECKING:
    from typing import Any

    import typer

    from ..telemetry import Telemetry


def count_runs(
    app: typer.Typer, telemetry: Telemetry, *, prefix: str = "cli", limit: int = bounded.buckets_max
) -> None:
    """Count each run of `app` from now on. To be called when its commands are registered, before it runs.

    typer makes a new command of the application for each run, of the class that stands in `cls`: a class of ours is
    put there, below the one that is there.

    Raises:
        WrongUse: the prefix is outside the grammar.
    """
    line = CommandLine(telemetry, prefix=prefix, limit=limit)
    # The program is a group, of the class that its callback names, else the application; or it is its one command.
    holders: list[tuple[Any, type]] = [(app.info, TyperGroup)]
    if app.registered_callback is not None and _class_in(app.registered_callback) is not None:
        holders.append((app.registered_callback, TyperGroup))
    if len(app.registered_commands) == 1:
        holders.append((app.registered_commands[0], TyperCommand))
    for holder, otherwise in holders:
        holder.cls = _counting(_class_in(holder) or otherwise, line)


def _class_in(holder: Any) -> type | None:
    found = holder.cls
    if isinstance(found, DefaultPlaceholder):
        found = found.value
    return found if isinstance(found, type) else None


def _counting(base: Any, line: CommandLine) -> type:
    """A class of commands that differ from `base` in nothing but that their runs are counted."""

    def counted_init(self: Any, *arguments: Any, **named: Any) -> None:
        base.__init__(self, *arguments, **named)
        line.attach(self)

    return type(
        base.__name__, (base,), {"__init__": counted_init, "__doc__": base.__doc__, "__module__": base.__module__}
    )
