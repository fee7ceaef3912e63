"""Counts how tests end and how long they take, for makers of test suites and of plugins.

Takes   reports of tests. ``-p tallypost.contrib.pytest`` and the ini option ``tallypost`` bring it into a suite.
Gives   ``pytest/outcome:passed``, ``pytest/seconds:<=0.1``.
Never   sees a test's name, parameters, output or error; without a telemetry object it does nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from . import bounded

if TYPE_CHECKING:
    from typing import Any

    from ..telemetry import Telemetry

# From a test in memory to one that starts programs.
EDGES = (0.01, 0.1, 1.0, 10.0)


class OutcomeCounters:
    """A plugin, to be registered: ``config.pluginmanager.register(OutcomeCounters(telemetry))``.

    Raises:
        WrongUse: the prefix or the edges are not allowed.
    """

    def __init__(self, telemetry: Telemetry, *, prefix: str = "pytest", edges: tuple[float, ...] = EDGES) -> None:
        self._outcomes = bounded.BoundedCounter(telemetry, f"{prefix}/outcome")
        self._seconds = bounded.Seconds(telemetry, f"{prefix}/seconds", edges)
        self._is_worker = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Know whether this is a worker of xdist: its reports go to the process that started it, and count there."""
        self._is_worker = hasattr(config, "workerinput")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test when it was called, or when it did not come to that."""
        if self._is_worker:
            return
        outcome = outcome_of(report)
        if outcome is not None:
            self._outcomes.inc(outcome)
        if report.when == "call" and not _is_of_a_part(report):
            self._seconds.observe(report.duration)


def outcome_of(report: pytest.TestReport) -> str | None:
    """How a test ended, in pytest's words; None for a report that ends nothing."""
    if _is_of_a_part(report):
        return "failed" if report.outcome == "failed" else None  # As in pytest's own summary.
    if report.when != "call":
        # Set-up and tear-down count where they fail, and set-up where it skips the test.
        if report.outcome == "passed" or (report.outcome == "skipped" and report.when != "setup"):
            return None
        if report.outcome == "failed":
            return "error"
    if hasattr(report, "wasxfail"):
        return {"skipped": "xfailed", "passed": "xpassed"}.get(report.outcome, report.outcome)
    return report.outcome


def _is_of_a_part(report: pytest.TestReport) -> bool:
    """Whether it tells of a subtest."""
    return hasattr(report, "context")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the ini options."""
    parser.addini("tallypost", "the telemetry object that counts outcomes: package.module:name")
    parser.addini("tallypost_prefix", "what the names of the counters begin with", default="pytest")


def pytest_configure(config: pytest.Config) -> None:
    """Bring the counters in, if there is a telemetry object."""
    named = str(config.getini("tallypost"))
    if not named or hasattr(config, "workerinput"):
        return
    try:
        counters = OutcomeCounters(_loaded(named), prefix=str(config.getini("tallypost_prefix")))
    except Exception as problem:  # noqa: BLE001  # Tests run whether they are counted or not; the header says which.
        config.stash[_PROBLEM] = f"tallypost: nothing is counted: {type(problem).__name__}: {problem}"
    else:
        config.pluginmanager.register(counters, "tallypost-outcomes")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what keeps outcomes from being counted, if anything does."""
    return config.stash.get(_PROBLEM, None)


_PROBLEM = pytest.StashKey[str]()


def _loaded(named: str) -> Any:
    module, _, attribute = named.partition(":") if ":" in named else named.rpartition(".")
    return getattr(import_module(module), attribute)
