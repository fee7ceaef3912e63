"""What these tests share: declarations as they look in life, and the files in which some stand."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tallypost_schema import declaration
from tallypost_schema.declaration import Declaration

# The same examples on every run, no database, no clock.
repeatable = settings(deadline=None, derandomize=True, database=None)

ROOT = Path(__file__).resolve().parents[4]
TODAY = datetime.date(2026, 11, 24)
HEAD = 'application = "example.org/mytool"\ncontact = "privacy@example.org"\n'
ENTRY = 'why = "Which commands are used"\nowner = "core team"\nexpires = "never"\n'


def table(kind: str, name: str, more: str = "", entry: str = ENTRY) -> str:
    """One table of a declaration."""
    edges = "edges = [0.1, 1]\n" if kind == "histograms" and "edges" not in more else ""
    packages = 'packages = ["mytool"]\n' if kind == "stacks" and "packages" not in more else ""
    return f'[{kind}."{name}"]\n{entry}{edges}{packages}{more}\n'


@pytest.fixture
def today() -> datetime.date:
    """The day that it is in these tests."""
    return TODAY


@pytest.fixture
def declared() -> Callable[..., Declaration]:
    """The declaration of tables, each as kind and name, and maybe more lines."""

    def parse(*tables: tuple[str, ...], head: str = HEAD) -> Declaration:
        return declaration.parse(head + "".join(table(*one) for one in tables))

    return parse
