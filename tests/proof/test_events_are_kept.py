"""The short form of the proof: some ten sessions."""

from __future__ import annotations

from pathlib import Path

from .events_are_kept import prove


def test_sessions_killed_at_random_instants_are_whole_on_the_server(tmp_path: Path) -> None:
    """Each index of each session is stored or named as lost, whoever is killed; for longer see the proof."""
    found = prove(tmp_path, seconds=15, seed=1, sessions=10)

    assert found["sessions"] >= 10
    assert found["processes_killed"] > 0
    assert 0 == found["events_named_as_lost"]  # So few are not evicted.
