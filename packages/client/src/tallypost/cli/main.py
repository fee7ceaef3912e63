"""The command's words: which command, for which application, in which form.

Takes   arguments.
Gives   an exit status: 0 done, 1 it failed, 2 wrong use, 3 something is left to send.
Never   knows how a thing is done (``daily.py``), nor how it looks (``commands.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from tallypost_schema import names

from ..clock import SystemClock
from ..errors import NoApplication, TallypostError
from ..installed import daily_of, only_application
from ..state_directory import base_directory
from . import commands, declared
from .watch import SECONDS

# Ten years: further back than reports are kept, and near enough for the calendar.
DAYS_MAX = 3650
# Quicker than this is work for nothing: nobody reads so fast. Slower than a day is another command.
SECONDS_MIN, SECONDS_MAX = 0.1, 86_400.0

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
    if given.command == "show" and given.follow and not given.events:
        parser.error("--follow is for --events; --watch shows counts again and again")
    if given.command == "show" and given.events and given.watch is not None:
        parser.error("--watch is for counts; --follow shows each new event as it comes")
    try:
        if given.command in ("check", "docs"):
            return declared.run(given, clock=SystemClock(os.environ))
        base = given.dir or base_directory(os.environ)
        application = given.app or only_application(base)
        clock = SystemClock(os.environ)
        daily = daily_of(base, application, environ=os.environ, clock=clock)
        if given.command == "show" and given.events:
            return commands.events(
                daily, as_json=given.json, clock=clock, name=given.name, days=given.days, follow=given.follow
            )
        if given.command == "show":
            return commands.show(
                daily, as_json=given.json, clock=clock, name=given.name, days=given.days, every=given.watch
            )
        return int(getattr(commands, given.command.replace("-", "_"))(daily, as_json=given.json))
    except NoApplication as problem:
        print(f"tallypost: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read this (`head`, a pager) has enough. Closed here, or the interpreter would complain at its end.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 1
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
        if name == "show":
            _add_show(word)
        elif name in ("check", "docs"):
            declared.add_arguments(name, word)
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


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="only names that contain this")
    parser.add_argument(
        "--days",
        type=_days,
        metavar="N",
        help="the last N days instead of the week: up to 7 with a column each, more as a sum",
    )
    parser.add_argument(
        "--watch",
        type=_seconds,
        metavar="SECONDS",
        nargs="?",
        const=SECONDS,
        help=f"show it again every so many seconds ({SECONDS:g}), until Ctrl-C",
    )
    parser.add_argument("--events", action="store_true", help="the events instead of the counts, a line each")
    parser.add_argument(
        "--follow", action="store_true", help="with --events: each new one as it comes, too, until Ctrl-C"
    )


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= DAYS_MAX):
        raise argparse.ArgumentTypeError(f"it is {text[:20]!a}, allowed are whole numbers from 1 to {DAYS_MAX}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(
            f"it is {text[:20]!a}, allowed are numbers from {SECONDS_MIN:g} to {SECONDS_MAX:g}; a NAME comes before it"
        )
    return seconds


def _application(text: str) -> str:
    """An application's name: it is a path of folders too, and must not lead out of them."""
    if not names.is_application(text):
        raise argparse.ArgumentTypeError(f"it is {text[:80]!a}, allowed are {names.APPLICATION_RULE}")
    return text


if __name__ == "__main__":
    sys.exit(main())
