"""Counts the command and the options that a program was called with, where argparse reads them.

Takes   a parser, and the words of the command line or what the parser made of them.
Gives   ``cli/command:db.migrate``, ``cli/option:db.migrate.dry-run``.
Never   counts a word that the parser does not know as a command or an option; never parses, prints or exits.
"""

from __future__ import annotations

import argparse
import math
import sys

from . import bounded
from .command_line import CommandLine, first_long
from .words import OTHER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..telemetry import Telemetry

    Parser = argparse.ArgumentParser


def count_arguments(
    telemetry: Telemetry,
    parser: Parser,
    given: Sequence[str] | argparse.Namespace | None = None,
    *,
    prefix: str = "cli",
    limit: int = bounded.buckets_max,
) -> None:
    """Count a call, after ``parser.parse_args()``; `given` are its words, those of the command line if left out.

    A namespace will do too, with less to see: an option counts as given if it is not at its default, and a command
    is known if ``add_subparsers`` was told a `dest`; else it is counted as ``other``.

    Raises:
        WrongUse: the prefix is outside the grammar.
    """
    line = CommandLine(telemetry, prefix=prefix, limit=limit)
    calls: list[tuple[tuple[str, ...], list[str]]] = []
    try:
        if isinstance(given, argparse.Namespace):
            _read_namespace(parser, given, (), calls)
        else:
            _read_words(parser, list(sys.argv[1:] if given is None else given), (), calls)
    except Exception:  # noqa: BLE001  # A parser of another make: its command is one that has no name here.
        calls = [((OTHER,), [])]
    for path, options in calls:
        line.count_options(path, options)
    line.count_command(calls[-1][0])


def _read_namespace(parser: Parser, given: argparse.Namespace, path: tuple[str, ...], calls: list[Any]) -> None:
    options = [action for action in parser._actions if action.option_strings and _is_set(parser, action, given)]
    calls.append((path, _names(options)))
    commands = _commands_of(parser)
    if commands is None:
        return
    if commands.dest == argparse.SUPPRESS:
        calls.append(((*path, OTHER), []))
        return
    word = getattr(given, commands.dest, None)
    if word in commands.choices:
        below = commands.choices[word]
        _read_namespace(below, given, (*path, _canonical(commands, below)), calls)


def _is_set(parser: Parser, action: argparse.Action, given: argparse.Namespace) -> bool:
    value = getattr(given, action.dest, action.default)
    default = parser.get_default(action.dest) if action.default is None else action.default
    # A default that is a string is parsed like a word, so it may have become a number.
    return value != default and not (isinstance(default, str) and str(value) == default)


def _read_words(parser: Parser, words: list[str], path: tuple[str, ...], calls: list[Any]) -> None:
    """Walk over the words as argparse does: past the values of options, into the parser of a command."""
    options: list[argparse.Action] = []
    calls.append((path, []))
    commands = _commands_of(parser)
    before_command = _positionals_before(parser, lambda action: action is commands)
    before_rest = _positionals_before(parser, lambda action: action.nargs == argparse.REMAINDER)
    at, positionals, no_more_options = 0, 0, False
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--" and not no_more_options:
            no_more_options = True
            continue
        found = None if no_more_options else _options_in(parser, word)
        if found is not None:
            options += found[0]
            if found[1] is not None:
                at += _values(parser, found[1], words[at:])
            continue
        positionals += 1
        if commands is not None and positionals > before_command and word in commands.choices:
            below = commands.choices[word]
            calls[-1] = (path, _names(options))
            _read_words(below, words[at:], (*path, _canonical(commands, below)), calls)
            return
        if positionals >= max(before_rest, 1):
            break  # What follows belongs to another program.
    calls[-1] = (path, _names(options))


def _options_in(parser: Parser, word: str) -> tuple[list[argparse.Action], argparse.Action | None] | None:
    """The options in one word, and the one of them whose values follow it; None if the word is no option."""
    known = parser._option_string_actions
    if len(word) < 2 or word[0] not in parser.prefix_chars:
        return None
    if word in known:
        return [known[word]], known[word]
    name, is_joined, _ = word.partition("=")
    if is_joined and name in known:
        return [known[name]], None
    # -vvx: flags until one that takes a value, which is then the rest of the word.
    found: list[argparse.Action] = []
    for place, letter in enumerate(word[1:], start=2):
        flag = known.get(word[0] + letter)
        if flag is None or word[1] in parser.prefix_chars:
            break
        found.append(flag)
        if flag.nargs != 0:
            return found, flag if place == len(word) else None
    if found:
        return found, None
    begun = _begun(parser, name)
    if len(begun) == 1:
        return begun, None if is_joined else begun[0]
    return None if " " in word or _is_negative_number(parser, word) else ([], None)


def _begun(parser: Parser, name: str) -> list[argparse.Action]:
    """The options that may be abbreviated to `name`."""
    if not parser.allow_abbrev:
        return []
    spelled = parser._option_string_actions.items()
    return list({id(action): action for spelling, action in spelled if spelling.startswith(name)}.values())


def _values(parser: Parser, option: argparse.Action, words: list[str]) -> int:
    """How many of the words that follow an option are its values."""
    most = {None: 1, argparse.OPTIONAL: 1}.get(option.nargs) if not isinstance(option.nargs, int) else option.nargs
    if option.nargs in (argparse.REMAINDER, argparse.PARSER):
        return len(words)
    count = 0
    for word in words:
        if count == most or word == "--" or _options_in(parser, word) is not None:
            break
        count += 1
    return count


def _is_negative_number(parser: Parser, word: str) -> bool:
    return not parser._has_negative_number_optionals and parser._negative_number_matcher.match(word) is not None


def _commands_of(parser: Parser) -> Any:
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def _positionals_before(parser: Parser, is_it: Callable[[argparse.Action], bool]) -> float:
    """How many words certainly stand before a positional; of those that may be any number none is certain."""
    count = 0
    for action in parser._actions:
        if not action.option_strings:
            if is_it(action):
                return count
            count += action.nargs if isinstance(action.nargs, int) else action.nargs is None
    return math.inf  # There is none.


def _canonical(commands: Any, parser: Parser) -> str:
    """The first name under which a command was added: the others are its aliases."""
    return str(next(name for name, below in commands.choices.items() if below is parser))


def _names(options: list[argparse.Action]) -> list[str]:
    """The names of options, each once, in the order in which they came."""
    return list(dict.fromkeys(first_long(list(action.option_strings)) for action in options))
