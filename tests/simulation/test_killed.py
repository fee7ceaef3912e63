from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost.state_directory import StateDirectory
from tallypost.testing import FaultyDisk
from tallypost_schema import documents

from .client import point_names
from .killed import APPLICATION, BATCHES, DECLARATION

ROOT = Path(__file__).resolve().parents[2]
# Which work meets a fault point first; a new fault point without a line here fails.
MET_BY = {
    "before_block_link": "count",
    "before_link": "count",
    "after_link": "count",
    "before_rename": "count",
    "before_local_report": "daily",
    "after_local_report": "daily",
    "before_count_file_removal": "daily",
    "before_pending": "daily",
    "after_pending": "daily",
    "before_cut": "daily",
    "after_cut": "daily",
    "before_log_removal": "daily",
    "before_locks_removal": "daily",
    "before_sent": "daily",
    "after_sent": "daily",
    "before_refused": "daily, refused",
    "after_refused": "daily, refused",
    "before_evicted": "fill",
    "after_evicted": "fill",
    "before_merged": "fill",
}
Run = Callable[..., int]


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    """A state directory of somebody who said yes on the 20th."""
    directory = StateDirectory(str(tmp_path / "state"), APPLICATION)
    os.makedirs(directory.path)
    Path(directory.mode).write_text("on 2026-11-20 1 user\n")
    (tmp_path / "telemetry.toml").write_text(DECLARATION)
    return directory


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Do some work in a process of its own; its exit status."""

    def work(what: str, at: str, point: str = "-") -> int:
        command = [sys.executable, "-m", "tests.simulation.killed", what, str(tmp_path), point, at]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode in (0, 9), done.stderr
        return done.returncode

    return work


def test_fault_points_all_have_a_process_that_is_ended_there() -> None:
    """A new place of danger is ended at, or this fails."""
    assert set(point_names()) == set(MET_BY)


@pytest.mark.parametrize("point", [point for point, what in MET_BY.items() if what != "fill"])
def test_process_ended_at_a_fault_point_is_completed_by_the_next(
    run: Run, tmp_path: Path, directory: StateDirectory, point: str
) -> None:
    """Totals are exact, each document is sent or refused once with the same bytes, each session is covered."""
    if "refused" in MET_BY[point]:
        (tmp_path / "refuses").touch()
    statuses = [run("count", "2026-11-21T12:00:00Z", point), run("count", "2026-11-21T13:00:00Z")]

    statuses += [run("daily", "2026-11-22T08:00:00Z", point)]
    for hour in (9, 10, 11):
        statuses += [run("daily", f"2026-11-22T{hour:02}:00:00Z")]

    assert 9 in statuses
    returned = len((tmp_path / "returned").read_bytes())
    counted = sum(
        program["counters"].get("cmd/export", 0)
        for path in Path(directory.reports).glob("local.*.json")
        for program in json.loads(path.read_bytes())["programs"]
    )
    assert returned <= counted <= returned + 1  # One was under way, and may count.
    assert [] == os.listdir(directory.pending) + os.listdir(directory.begins)
    assert [] == [name for name in os.listdir(directory.counts) if name.endswith(".count")]
    kept = [json.loads(line) for line in (tmp_path / "kept").read_bytes().splitlines()]
    of_reports = [document for document in kept if document["kind"] == "report"]
    assert len({json.dumps(document) for document in of_reports}) == (0 if (tmp_path / "refuses").exists() else 1)
    if of_reports:
        assert counted == of_reports[0]["programs"][0]["counters"]["cmd/export"]
    require_covered([document for document in kept if document["kind"] == "events"])


@pytest.mark.parametrize("point", [point for point, what in MET_BY.items() if what == "fill"])
def test_process_ended_while_it_makes_room_is_completed_by_the_next(
    run: Run, directory: StateDirectory, point: str
) -> None:
    """Every index that was recorded is still told, as an event or as lost, and no more wait than may."""
    assert 9 == run("fill", "2026-11-21T12:00:00Z", point)

    assert 0 == run("fill", "2026-11-21T12:00:00Z")

    disk = FaultyDisk()
    names = [name for name in disk.names(directory.pending) if name.endswith(".json")]
    batches = [documents.decode_batch(disk.read(os.path.join(directory.pending, name))) for name in names]
    assert sum(bool(batch.events) for batch in batches) <= 250
    for session in ("a" * 32, "b" * 32):
        covered = {
            index for batch in batches if batch.session == session for index in range(batch.first, batch.last + 1)
        }
        assert set(range(BATCHES // 2)) == covered


def require_covered(batches: list[dict[str, Any]]) -> None:
    """Of each session every index up to its terminal one is there or lost, and none has two contents."""
    sessions: dict[str, dict[int, str | None]] = {}
    terminals: dict[str, int] = {}
    for batch in batches:
        found = sessions.setdefault(batch["session"], {})
        for index in range(batch["first"], batch["first"] + batch["lost"]):
            found.setdefault(index, None)
        for place, event in enumerate(batch["events"], batch["first"] + batch["lost"]):
            assert found.get(place) in (None, json.dumps(event))
            found[place] = json.dumps(event)
        if batch["terminal"] is not None:
            assert batch["terminal"] == terminals.setdefault(batch["session"], batch["terminal"])
    for session, found in sessions.items():
        assert set(range(terminals[session] + 1)) == set(found)
