from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallypost_server.testing import FaultyDisk

REPORT = "0f" * 16
SESSION = "ab" * 16


def test_archivist_that_slept_between_its_look_and_its_commit_writes_nothing(
    archive: Any, disk: FaultyDisk, report: Callable[..., bytes]
) -> None:
    """Its lease was lost and another has done its task: the handle that was looked at refuses the commit."""
    archive.seal(report())
    sleeper, other = archive.archivist(), archive.archivist()
    others = []

    def sleep() -> None:
        disk.kill_at("before_seal")  # The other one does not sleep here.
        archive.clock.advance(121)
        others.append(archive.work(other))

    disk.kill_at("before_table_commit", sleep)
    sleeper.round()

    assert [1] == others
    assert {REPORT: 1} == archive.reports()
    assert {"waiting": 0, "running": 0, "failed": 0} == archive.coordinator().counts().tasks
    assert [] == archive.segments()


def test_archivist_that_slept_while_its_task_was_split_writes_nothing(
    archive: Any, disk: FaultyDisk, report: Callable[..., bytes]
) -> None:
    """The halves have written the rows, under other names: what the sleeper commits would double them."""
    reports = {format(number, "032x"): 1 for number in range(2)}
    archive.seal(*(report(id=name) for name in reports))
    sleeper, other = archive.archivist(), archive.archivist()

    def sleep() -> None:
        disk.kill_at("before_seal")
        archive.clock.advance(121)
        coordinator = archive.coordinator()
        assert coordinator.hold("lane-0", "one that splits")
        task = coordinator.claim(0, "one that splits", 2**60, batch_seconds=0)
        assert task is not None
        archive.tables().spend("reports", 0, task.mark)
        coordinator.split(task, "one that splits", 0, archive.token)
        coordinator.let_go("lane-0", "one that splits")
        assert archive.work(other) == 2

    disk.kill_at("before_table_commit", sleep)
    sleeper.round()

    assert reports == archive.reports()
    assert {"waiting": 0, "running": 0, "failed": 0} == archive.coordinator().counts().tasks


def test_two_archivists_in_turn_write_each_row_once(
    archive: Any, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """Whoever works, each goes on where the other has left off."""
    first, second = archive.archivist(), archive.archivist()
    for number in range(4):
        name = format(number, "032x")
        archive.seal(report(id=name), batch(2, session=name, terminal=1))
        archive.work(first if number % 2 else second)

    assert {format(number, "032x"): 1 for number in range(4)} == archive.reports()
    assert {(format(number, "032x"), index): 1 for number in range(4) for index in range(2)} == archive.events()
    assert [] == archive.segments()
