"""What the tests of the testing module share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tallypost import Telemetry


@pytest.fixture
def off(application: Callable[..., Telemetry]) -> Telemetry:
    """The application as a test runner has it: switched off."""
    return application(environ={"PYTEST_VERSION": "9", "CI": "1"})
