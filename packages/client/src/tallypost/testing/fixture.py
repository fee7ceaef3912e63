"""The fixture of pytest.

Takes   the application's own `Telemetry`, in a test.
Gives   ``tallypost_capture``: `capture` to the end of the test.
Never   imported but by those who ask for the fixture: it alone needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .counted import Counted
from .diversion import capture


@pytest.fixture
def tallypost_capture() -> Iterator[Callable[..., Counted]]:
    """A function that captures what an application counts, to the end of the test."""
    with ExitStack() as captures:
        yield lambda telemetry, **words: captures.enter_context(capture(telemetry, **words))
