"""A program with commands and options, read by argparse."""

import argparse
from pathlib import Path

from tallypost import Telemetry
from tallypost.contrib.argparse import count_arguments

telemetry = Telemetry("example.org/notes", "1.0", declaration=Path(__file__).with_name("telemetry.toml"))


def main() -> None:
    """Print a note as a line of a list."""
    parser = argparse.ArgumentParser(prog="notes", description="Print a note as a line of a list.")
    parser.add_argument("-v", "--verbose", action="store_true")
    commands = parser.add_subparsers(required=True)
    add = commands.add_parser("add", aliases=["a"])
    add.add_argument("--tag")
    add.add_argument("text")
    add.set_defaults(line="- {text} ({tag})")
    done = commands.add_parser("done")
    done.add_argument("text")
    done.set_defaults(line="x {text}")
    given = parser.parse_args()
    count_arguments(telemetry, parser)

    print(given.line.format(**vars(given)))


if __name__ == "__main__":
    main()
