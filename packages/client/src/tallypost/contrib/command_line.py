"""Runs of commands of click's kind, be they click's own or those that typer brings along.

Takes   a command, and what its context says while it runs.
Gives   counts of the command's path, of the options on the command line, and of the exit code.
Never   looks at a value, at an argument, or at what was typed: commands and options go by the names their author gave.
"""

from __future__ import annotations

from . import bounded
from .words import NONE, OTHER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..telemetry import Telemetry

EXCEPTION = "exception"
# Kept in the command's own dictionary: a command is counted once, whatever leads to it.
_MARK = "_tallypost"


class CommandLine:
    """The counters of a command line: ``cli/command``, ``cli/option``, ``cli/exit``."""

    def __init__(self, telemetry: Telemetry, *, prefix: str = "cli", limit: int = bounded.buckets_max) -> None:
        self._commands = bounded.BoundedCounter(telemetry, f"{prefix}/command", limit=limit)
        self._options = bounded.BoundedCounter(telemetry, f"{prefix}/option", limit=limit)
        self._exits = bounded.BoundedCounter(telemetry, f"{prefix}/exit", limit=limit)

    def count_command(self, path: tuple[str, ...]) -> None:
        """Count a command by its path: ``db.migrate``; ``none`` for the program without a command."""
        self._commands.inc(".".join(path) or NONE)

    def count_options(self, path: tuple[str, ...], names: list[str]) -> None:
        """Count each option that was given, behind the path of its command: ``db.migrate.dry-run``."""
        for name in names:
            self._options.inc(".".join((*path, name)))

    def count_exit(self, code: object) -> None:
        """Count an exit code as the system will see it."""
        if code is None:
            code = 0
        elif not isinstance(code, int):
            code = 1  # Python prints it, and exits with 1.
        self._exits.inc(str(int(code) & 0xFF))

    def count_exception(self) -> None:
        """Count a run that an exception ended."""
        self._exits.inc(EXCEPTION)

    # ---------------------------------------------------------------- commands of click's kind

    def attach(self, command: Any) -> None:
        """Count each run of a command, and of the commands below it, however they are found.

        The methods are put around those that the command has, on this one object: its class stays as it is.
        """
        if _MARK not in vars(command):
            self._attach_main(command)
            self._attach_invoke(command)

    def _attach_main(self, command: Any) -> None:
        main, make_context, runs = command.main, command.make_context, 0

        def counted_make_context(*arguments: Any, **named: Any) -> Any:
            # Completion in a shell calls the program too, and asks it to be resilient: that is no run of it.
            nonlocal runs
            runs += not named.get("resilient_parsing", False)
            return make_context(*arguments, **named)

        def counted_main(*arguments: Any, **named: Any) -> Any:
            before = runs
            try:
                result = main(*arguments, **named)
            except BaseException as error:
                if runs > before:
                    self._count_end(error)
                raise
            if runs > before:
                self.count_exit(0)
            return result

        command.make_context, command.main = counted_make_context, counted_main

    def _count_end(self, error: BaseException) -> None:
        # Without standalone mode an error of click's own carries the code that it stands for.
        code = getattr(error, "exit_code", None)
        if isinstance(error, SystemExit):
            self.count_exit(error.code)
        elif isinstance(code, int):
            self.count_exit(code)
        else:
            self.count_exception()

    def _attach_invoke(self, command: Any) -> None:
        if _MARK in vars(command):
            return
        setattr(command, _MARK, True)
        invoke: Callable[[Any], Any] = command.invoke
        get_command: Callable[..., Any] | None = getattr(command, "get_command", None)

        def counted_invoke(context: Any) -> Any:
            self._note_options(context)
            if get_command is None:
                self._note_command(context)
                return invoke(context)
            error: BaseException | None = None
            try:
                return invoke(context)
            except BaseException as raised:
                error = raised
                raise
            finally:
                # A group is counted if it did the work itself: no command was named, and that was no wrong use.
                if getattr(context, "invoked_subcommand", None) is None and getattr(error, "exit_code", 0) != 2:
                    self._note_command(context)

        command.invoke = counted_invoke
        if get_command is not None:
            command.get_command = self._attached(get_command)

    def _attached(self, get_command: Callable[..., Any]) -> Callable[..., Any]:
        def counted_get_command(*arguments: Any, **named: Any) -> Any:
            found = get_command(*arguments, **named)
            if found is not None:
                try:
                    self._attach_invoke(found)
                except Exception as problem:  # noqa: BLE001  # A command that cannot be watched still runs.
                    self._commands.problem = problem
            return found

        return counted_get_command

    def _note_command(self, context: Any) -> None:
        try:
            self.count_command(_path(context))
        except Exception as problem:  # noqa: BLE001  # A context of another shape: the command still runs.
            self._commands.problem = problem

    def _note_options(self, context: Any) -> None:
        try:
            self.count_options(_path(context), list(_given(context)))
        except Exception as problem:  # noqa: BLE001  # As above.
            self._options.problem = problem


def first_long(spellings: list[str]) -> str:
    """The name of an option among its spellings: ``dry-run`` of ``-n``, ``--dry-run``."""
    long = [spelling for spelling in spellings if spelling[:2] in ("--", "++", "//")]
    return (long or spellings)[0].lstrip("-+/")


def _given(context: Any) -> Iterator[str]:
    """The names of the options that stood on the command line; not those from the environment or a prompt."""
    for parameter in context.command.params:
        if parameter.param_type_name != "option":
            continue
        # By its name: typer brings another enumeration than click.
        source = context.get_parameter_source(parameter.name)
        if getattr(source, "name", None) == "COMMANDLINE":
            yield first_long(parameter.opts)


def _path(context: Any) -> tuple[str, ...]:
    """The names of the commands from below the program down to this one."""
    names: list[str] = []
    while context.parent is not None:
        names.append(_known_name(context))
        context = context.parent
    return tuple(reversed(names))


def _known_name(context: Any) -> str:
    """The command's name, if its group tells it; a group may take any word for a command, and those are not counted."""
    group = context.parent.command
    # Its own name first: the group may know it by several, or by another one alone.
    for name in (context.command.name, context.info_name):
        if name in getattr(group, "commands", ()) or name in group.list_commands(context.parent):
            return str(name)
    return OTHER
