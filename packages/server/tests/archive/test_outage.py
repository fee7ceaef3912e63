from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from tallypost_server.archive.store import ObjectStore
from tallypost_server.errors import ArchiveUnusable

REPORT = "0f" * 16
SESSION = "ab" * 16
HOUR = 3600.0


class Refusing:
    """A store that may refuse everything, as one does that is away."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.away = False

    def __getattr__(self, name: str) -> Any:
        if self.away and name != "address":
            if name == "options":
                raise ConnectionRefusedError("the store is away")
            return self._refuse
        return getattr(self._store, name)

    def _refuse(self, *_: Any) -> NoReturn:
        raise ConnectionRefusedError("the store is away")


@pytest.mark.parametrize("from_point", [None, "before_table_commit", "after_table_commit", "between_tables"])
def test_outage_of_the_store_parks_nothing_and_passes_by_itself(
    local: Any, report: Callable[..., bytes], batch: Callable[..., bytes], from_point: Any
) -> None:
    """For an hour it refuses, from any moment on: tasks are tried later, and then done, each row once."""
    store = Refusing(local.store)
    local.seal(report(), batch(3, terminal=2))
    archivist = local.archivist(store=store)
    if from_point is None:
        store.away = True
    else:
        local.disk.kill_at(from_point, lambda: setattr(store, "away", True))
    failed = 0
    for _ in range(60):
        failed += archivist.round().failed
        local.clock.advance(HOUR / 60)
    assert failed >= 4
    assert not (local.data / "parked").exists()
    local.disk.kill_at("before_seal")
    store.away = False
    local.clock.advance(900)

    local.work(archivist)

    assert {REPORT: 1} == local.reports()
    assert {(SESSION, index): 1 for index in range(3)} == local.events()
    assert [] == local.segments()
    assert {"waiting": 0, "running": 0, "failed": 0} == local.coordinator().counts().tasks


def test_start_while_the_store_is_away_says_so(local: Any) -> None:
    """It is tried again, as it is."""
    store = Refusing(local.store)
    store.away = True

    with pytest.raises(ArchiveUnusable, match="the store is away"):
        local.archivist(store=store)
