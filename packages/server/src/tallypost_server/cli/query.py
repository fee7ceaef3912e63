"""``query``: asks the archive in SQL.

Takes   a statement, and where the archive lies.
Gives   its rows on standard output: a table, a line of JSON a row, or CSV.
Never   holds all rows; never writes into the archive.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import decimal
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from .. import archiving
from ..errors import WrongUse
from ..settings import Settings

HELP = "Ask the archive in SQL (DuckDB): the views reports, counters, stacks, events, sessions."
EXAMPLE = 'tallypost-server query "SELECT day, name, sum(value) FROM counters GROUP BY ALL ORDER BY ALL"'
SETTINGS: frozenset[str] = frozenset({"archive"})

_NUMBERS = (int, float, decimal.Decimal, type(None))
_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The statement."""
    parser.add_argument("sql", metavar="SQL", help="What to ask; it can only read.")
    parser.add_argument("--csv", action="store_true", default=False, help="Print the rows as CSV.")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what the statement gives."""
    if arguments.csv and arguments.json:
        raise WrongUse("--csv and --json are two forms of the same rows: choose one")
    with archiving.views(settings) as views:
        answer = views.ask(arguments.sql)
        batches = (list(zip(*columns, strict=True)) for columns in answer.batches)
        if arguments.json:
            _print_json(answer.columns, batches)
        elif arguments.csv:
            _print_csv(answer.columns, batches)
        else:
            _print_table(answer.columns, batches)
    return 0


def _print_json(columns: list[str], batches: Iterator[list[tuple[Any, ...]]]) -> None:
    for rows in batches:
        for row in rows:
            sys.stdout.buffer.write(_encode(dict(zip(columns, row, strict=True))) + b"\n")
    sys.stdout.flush()


def _print_csv(columns: list[str], batches: Iterator[list[tuple[Any, ...]]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for rows in batches:
        writer.writerows(map(_text, row) for row in rows)


def _print_table(columns: list[str], batches: Iterator[list[tuple[Any, ...]]]) -> None:
    heads: list[str] = columns
    for rows in batches:
        cells = [[_plain(_text(value)) for value in row] for row in rows]
        # Numbers stand right, so that they can be compared.
        right = [all(isinstance(row[at], _NUMBERS) for row in rows) for at in range(len(columns))]
        widths = [max(len(row[at]) for row in (columns, *cells)) for at in range(len(columns))]
        for line in (heads, *cells) if heads else cells:
            padded = zip(line, widths, right, strict=True)
            print("  ".join(cell.rjust(width) if by else cell.ljust(width) for cell, width, by in padded).rstrip())
        heads = []
    if heads:
        print("  ".join(heads))


def _text(value: Any) -> str:
    """A value as it stands in a cell; nothing for a null."""
    if value is None:
        return ""
    if isinstance(value, (str, datetime.date)) and not isinstance(value, datetime.datetime):
        return str(value)
    return _encode(value).decode().strip('"')


def _plain(text: str) -> str:
    """Text in one line of a terminal: whoever posted a document chose some of it."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
