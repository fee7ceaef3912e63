"""How old what is not sealed is: the one number that tells that sealing stands still.

Takes   the folder of segments.
Gives   seconds.
Never   opens a file: an open segment's name says when it began.
"""

from __future__ import annotations

from pathlib import Path

from .clock import Clock
from .disk import Disk
from .segments.format import OPEN_ENDING, is_stem, opened_in


def oldest_unsealed_seconds(segments: Path, *, disk: Disk, clock: Clock) -> float:
    """How long ago the oldest segment began that is not sealed; 0 without one."""
    stems = [name.removesuffix(OPEN_ENDING) for name in disk.names(segments / "open") if name.endswith(OPEN_ENDING)]
    moments = [opened_in(stem) for stem in stems if is_stem(stem)]
    return max(0.0, (clock.now() - min(moments)).total_seconds()) if moments else 0.0
