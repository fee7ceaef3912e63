"""Recovery: what a run before this one left open is sealed before the first document is taken.

Takes   the folder ``segments/open/`` as a crash left it.
Gives   sealed segments, by way of `Sealer.seal`, which puts damage into quarantine.
Never   takes documents; never gives up on the other files because of one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ..disk import Disk
from ..errors import SealFailed
from ..metrics import Metrics
from .format import HALF_MADE_ENDING, OPEN_ENDING, boot_in, is_stem
from .seal import Sealer

_log = logging.getLogger(__name__)


def recover(
    folder: Path,
    *,
    disk: Disk,
    sealer: Sealer,
    metrics: Metrics,
    go_on: Callable[[], bool],
    owns: Callable[[str], bool] = lambda boot: True,
) -> list[str]:
    """Seal every open file; return the stems of those that could not be, to be tried again later.

    `owns` says by the boot in a file's name whether it was left behind: others may be at work beside this one. It ends
    between two files once `go_on` says no: the rest waits for the next start.
    """
    left: list[str] = []
    for name in disk.names(folder / "open"):
        if name.endswith(HALF_MADE_ENDING) and owns(boot_in(name.partition(".")[0])):
            # Made by a sealing that did not end. Its open file is still there, and is sealed anew.
            disk.unlink(folder / "open" / name)
    for name in disk.names(folder / "open"):
        stem = name.removesuffix(OPEN_ENDING)
        if not go_on():
            break
        if not name.endswith(OPEN_ENDING) or not is_stem(stem):
            _log.warning("segments/open/%a is not ours and stays as it is", name)
            continue
        if not owns(boot_in(stem)):
            continue
        try:
            sealer.seal(stem)
        except SealFailed as failure:
            metrics.seal_failures.add()
            _log.error("%s", failure)
            left.append(stem)
    return left
