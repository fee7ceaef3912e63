"""The declaration of what the library counts of itself, ``own.toml``: both sides treat it like the application's.

Takes   nothing.
Gives   `OWN`.
Never   mixes with an application's names: everything here begins with ``tallypost/``.
"""

from __future__ import annotations

from importlib.resources import files

from .declaration import OWN_PREFIX, parse

OWN = parse(files(__package__).joinpath("own.toml").read_text("utf-8"))
PREFIX = OWN_PREFIX
