from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ..databases import Database, Postgres
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


@pytest.mark.timeout(240)
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


@pytest.mark.postgres
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lanes", [1, 3, 16])
def test_each_index_is_archived_once_whatever_happens_on_a_server(postgres: Postgres, lanes: int) -> None:
    """The same with PostgreSQL, and as many lanes as it gets, or fewer."""
    held(_on(postgres, lanes), examples=6, steps=30)


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lanes", [1, 16])
def test_each_index_is_archived_once_in_many_worlds_on_a_server(postgres: Postgres, lanes: int) -> None:
    """The same for longer."""
    held(_on(postgres, lanes), examples=15, steps=50)


def _on(postgres: Postgres, lanes: int) -> type[Archive]:
    class OnPostgres(Archive):
        def make_database(self) -> Database:
            schema = postgres.schema()
            self.drop = schema.drop
            return schema

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                self.drop()

    OnPostgres.lanes = lanes
    return OnPostgres
