"""How old what is not sealed is, and what is sealed and still here: the numbers that tell that something stands still.

Takes   the folder of segments.
Gives   seconds.
Never   opens a file: a segment's name says when it began.
"""

from __future__ import annotations

from pathlib import Path

from .clock import Clock
from .disk import Disk
from .segments.format import OPEN_ENDING, SEALED_ENDING, is_stem, opened_in


def oldest_unsealed_seconds(segments: Path, *, disk: Disk, clock: Clock) -> float:
    """How long ago the oldest segment began that is not sealed; 0 without one."""
    return _age(segments / "open", OPEN_ENDING, disk, clock)


def oldest_sealed_seconds(segments: Path, *, disk: Disk, clock: Clock) -> float:
    """How long ago the oldest segment began that is sealed and still here; 0 without one."""
    return _age(segments, SEALED_ENDING, disk, clock)


def _age(folder: Path, ending: str, disk: Disk, clock: Clock) -> float:
    stems = [name.removesuffix(ending) for name in disk.names(folder) if name.endswith(ending)]
    moments = [opened_in(stem) for stem in stems if is_stem(stem)]
    return max(0.0, (clock.now() - min(moments)).total_seconds()) if moments else 0.0
