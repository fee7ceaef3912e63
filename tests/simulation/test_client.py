from __future__ import annotations

import pytest

from .client import simulate


def test_client_keeps_its_promises_whatever_happens() -> None:
    """Conservation, one report a day, nothing from before the yes in an upload; the same worlds each time."""
    simulate(examples=10, steps=20)


@pytest.mark.long
def test_client_keeps_its_promises_in_many_worlds() -> None:
    """The same for longer; `python -m tests.simulation --steps 100000` for hours."""
    simulate(examples=60, steps=40, seed=1)
