"""The command's words: which command, for which application, in which form.

Takes   arguments.
Gives   an exit status: 0 done, 1 it failed, 2 wrong use, 3 something is left to send.
Never   knows how a thing is done (``daily.py``), nor how it looks (``commands.py``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tallypost_schema import names

from ..errors import NoApplication, TallypostError
from ..installed import daily_of, only_application
from ..state_directory import base_directory
from . import commands

_EXAMPLES = """\
examples:
  tallypost status                           what is counted here, who decided, what was sent
  tallypost --app example.org/mytool show    the counts of one application
  tallypost preview                          the exact bytes that would be posted next
  tallypost off                              nothing is counted, nothing is sent
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the entry point."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            return commands.check(given.file, as_json=given.json)
        base = given.dir or base_directory(os.environ)
        application = given.app or only_application(base)
        daily = daily_of(base, application, environ=os.environ)
        return int(getattr(commands, given.command.replace("-", "_"))(daily, as_json=given.json))
    except NoApplication as problem:
        print(f"tallypost: {problem}", file=sys.stderr)
        return 2
    except (TallypostError, OSError) as problem:
        print(f"tallypost: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    _add_global(everywhere)
    parser = argparse.ArgumentParser(
        prog="tallypost",
        description="See and decide what an application counts on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_global(parser)
    parser.set_defaults(app=None, dir=None, json=False)
    words = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (sentence, example) in commands.COMMANDS.items():
        word = words.add_parser(
            name,
            parents=[everywhere],
            help=sentence,
            description=f"{sentence[0].upper()}{sentence[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "check":
            word.add_argument("file", metavar="FILE", help="a telemetry.toml")
    return parser


def _add_global(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--app",
        type=_application,
        metavar="NAME",
        help="the application, such as example.org/mytool; one alone is found",
    )
    parser.add_argument("--dir", metavar="DIR", help="the folder of state directories, as TALLYPOST_DIR")
    parser.add_argument("--json", action="store_true", help="facts as JSON on standard output")


def _application(text: str) -> str:
    """An application's name: it is a path of folders too, and must not lead out of them."""
    if not names.is_application(text):
        raise argparse.ArgumentTypeError(f"it is {text[:80]!a}, allowed are {names.APPLICATION_RULE}")
    return text


if __name__ == "__main__":
    sys.exit(main())
