from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .model import Archive


def held(machine: type[Archive], *, examples: int, steps: int) -> None:
    logging.disable(logging.CRITICAL)  # What goes wrong here is meant to, and is much.
    try:
        _run(machine, examples, steps)
    finally:
        logging.disable(logging.NOTSET)


def _run(machine: type[Archive], examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # Hypothesis has no types here.
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_each_index_is_archived_once_whatever_happens() -> None:
    """Any order, repetitions, overlaps, contradictions, gaps, two archivists, each killed or asleep anywhere."""
    held(Archive, examples=15, steps=30)


class ManyLanes(Archive):
    """The same with several lanes, whose numbers are counted apart."""

    lanes = 3


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("machine", [Archive, ManyLanes])
def test_each_index_is_archived_once_in_many_worlds(machine: type[Archive]) -> None:
    """The same for longer."""
    held(machine, examples=40, steps=50)
