"""The command line: global options before and after the command, one module a command.

Takes   arguments and the environment.
Gives   an exit status: 0 done, 1 it failed, 2 wrong use.
Never   does a command's work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from .. import __version__
from ..errors import ServerError, SettingsInvalid, WrongUse
from ..settings import DECLARED, load
from . import archive, config, erase, load_test, quarantine, query, replay, serve, show, status, verify

COMMANDS: dict[str, ModuleType] = {
    "serve": serve,
    "archive": archive,
    "status": status,
    "show": show,
    "verify": verify,
    "quarantine": quarantine,
    "erase": erase,
    "replay": replay,
    "query": query,
    "load-test": load_test,
    "config": config,
}
_GLOBAL = ("data",)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run one command; return its exit status."""
    given = vars(parser().parse_args(arguments))
    command, settings_file = given.pop("command"), given.pop("config", None)
    flags = {setting.name: given.pop(setting.name) for setting in DECLARED if setting.name in given}
    try:
        settings = load(flags, os.environ if environment is None else environment, settings_file)
        status: int = COMMANDS[command].run(settings, argparse.Namespace(json=given.pop("json", False), **given))
    except SettingsInvalid as failure:
        for problem in failure.problems:
            print(f"tallypost-server: {problem}", file=sys.stderr)
        return 2
    except WrongUse as failure:
        print(f"tallypost-server: {failure}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever reads has seen enough, as `head` has. Closed here, or the interpreter would complain at its end.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 1
    except (ServerError, OSError) as failure:
        print(f"tallypost-server: {failure}", file=sys.stderr)
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """The whole grammar; every command's help ends with an example."""
    # Suppressed defaults: an option given before the command must not be undone by its absence after it.
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    options.add_argument(
        "--config", type=Path, metavar="FILE", help="A TOML file with settings; or TALLYPOST_SERVER_CONFIG."
    )
    for setting in DECLARED:
        if setting.name in _GLOBAL:
            options.add_argument(setting.flag, metavar=setting.given_as, help=setting.sentence)
    options.add_argument("--json", action="store_true", help="Print facts as JSON.")
    top = argparse.ArgumentParser(
        "tallypost-server",
        description="The makers' side of Tallypost: takes telemetry documents and stores them durably.",
        epilog="example: tallypost-server --data /var/lib/tallypost serve --listen 127.0.0.1:8080",
        parents=[options],
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"tallypost-server {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example: {module.EXAMPLE}",
            parents=[options],
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        for setting in DECLARED:
            if setting.name in module.SETTINGS and setting.name not in _GLOBAL:
                if setting.given_as:
                    command.add_argument(setting.flag, metavar=setting.given_as, help=setting.sentence)
                else:
                    command.add_argument(setting.flag, action="store_true", help=setting.sentence)
        module.add_arguments(command)
    return top
