"""``config --check``: the settings in force, with where each came from.

Takes   settings.
Gives   a line each on standard output.
Never   starts anything.
"""

from __future__ import annotations

import argparse
import json

from ..settings import DECLARED, Settings

HELP = "Print the settings in force, with where each came from; exit 2 if any is unknown or does not fit."
EXAMPLE = "tallypost-server --config /etc/tallypost/server.toml config --check"
SETTINGS = frozenset(setting.name for setting in DECLARED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The word that says what to do with the settings."""
    parser.add_argument("--check", action="store_true", required=True, help="Check the settings and print them.")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the settings."""
    shown = settings.shown()
    if arguments.json:
        print(json.dumps(shown))
    else:
        for name, setting in shown.items():
            print(f"{name} = {json.dumps(setting['value'])}  # {setting['source']}")
    return 0
