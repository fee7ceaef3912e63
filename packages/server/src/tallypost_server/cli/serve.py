"""``serve``: the server in one command.

Takes   settings.
Gives   the exit status of `serving.serve`.
Never   prints on standard output: it has no results.
"""

from __future__ import annotations

import argparse

from ..settings import DECLARED, Settings

HELP = "Take documents over HTTP and store them, until SIGTERM."
EXAMPLE = "tallypost-server serve --data /var/lib/tallypost --listen 127.0.0.1:8080"
SETTINGS = frozenset(setting.name for setting in DECLARED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond its settings."""


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from ..serving import serve  # Other commands start faster without uvicorn and Starlette.

    return serve(settings)
