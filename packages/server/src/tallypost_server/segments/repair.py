"""Repair: a damaged file of ``segments/`` goes to the quarantine, and what can be read of it is sealed anew.

Takes   what ``check.py`` found.
Gives   what was done, in words and numbers.
Never   touches what belongs to a running server: an open file, or a segment whose open file is still there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from ..disk import Disk
from ..errors import FolderLocked, SealFailed
from .check import Checked, SegmentChecker
from .format import HALF_MADE_ENDING, MANIFEST_ENDING, OPEN_ENDING, SEALED_ENDING, Manifest
from .salvage import salvage
from .seal import Sealer, TornKeeper, put_aside
from .write import put_manifest


class Repaired(Struct, frozen=True, omit_defaults=True):
    """What was done with a damaged file. `segment` has its sound lines now; `right`: nothing is left to do."""

    done: str
    right: bool
    segment: str | None = None


class Repairer:
    """Repairs files one by one. Two of them on one folder would take each other's half made files."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk,
        checker: SegmentChecker,
        sealer: Sealer,
        keeper: TornKeeper,
        lock: Callable[[], contextlib.AbstractContextManager[object]],
    ) -> None:
        self._folder, self._disk, self._checker, self._sealer = folder, disk, checker, sealer
        self._keeper, self._lock = keeper, lock

    def repair(self, checked: Checked) -> Repaired:
        """Set right what can be. On an error of the disk the damaged file is where it was."""
        try:
            return self._repair(checked)
        except (OSError, SealFailed) as failure:
            return Repaired(f"not repaired: {failure}", False)

    def _repair(self, checked: Checked) -> Repaired:
        path = checked.path
        if checked.kind == "quarantine":
            put_aside(path, keep=self._keeper.keep_damaged, disk=self._disk)
            return Repaired(f"moved to quarantine/damaged/{path.name}", True)
        stem = path.name.removesuffix(SEALED_ENDING).removesuffix(OPEN_ENDING)
        if stem + OPEN_ENDING in self._disk.names(self._folder / "open"):
            return self._seal(stem)
        if path.name not in self._disk.names(self._folder):
            return Repaired("nothing to repair it from: put the segment back from a backup", False)
        if checked.manifest is not None:
            return self._tell_anew(path, checked.manifest)
        made = salvage(path, disk=self._disk)
        if made is not None and self._is_damaged(made.segment):
            return Repaired(f"not repaired: what was made of it, {made.segment}, is damaged too", False)
        put_aside(path, keep=self._keeper.keep_damaged, disk=self._disk)
        moved = f"moved to quarantine/damaged/{path.name}"
        if made is None:
            return Repaired(f"{moved}; no line of it can be read", True)
        return Repaired(f"{moved}; {made.rows} lines of it are in {made.segment}", True, made.segment)

    def _seal(self, stem: str) -> Repaired:
        """What a start does: whole frames are sealed, damage goes to the quarantine, a segment in the way too."""
        try:
            with self._lock():
                self._sealer.seal(stem)
        except FolderLocked:
            return Repaired("left as it is: it belongs to the running server, which seals it", False)
        name = stem + SEALED_ENDING
        if name not in self._disk.names(self._folder):
            return Repaired("its damage is in quarantine/; no line of it can be read", True)
        if self._is_damaged(name):
            return Repaired(f"not repaired: what was made of it, {name}, is damaged too", False)
        return Repaired(f"its damage is in quarantine/, its lines are in {name}", True, name)

    def _tell_anew(self, path: Path, manifest: Manifest) -> Repaired:
        """Every line is sound, under the checksum of its frame: only what stands beside is wrong."""
        old = path.with_name(path.name + MANIFEST_ENDING)
        with contextlib.suppress(FileNotFoundError):
            self._keeper.keep_damaged(old)
        made = self._folder / "open" / (path.name + MANIFEST_ENDING + HALF_MADE_ENDING)
        put_manifest(self._folder, manifest, made, disk=self._disk)
        self._disk.sync_folder(self._folder)
        return Repaired("its manifest was made anew; the segment itself is sound", True, path.name)

    def _is_damaged(self, name: str) -> bool:
        checked = self._checker.sealed(name.removesuffix(SEALED_ENDING))
        return checked is None or bool(checked.problems)


@contextlib.contextmanager
def held(path: Path, disk: Disk) -> Iterator[None]:
    """Hold a lock while the block lasts.

    Raises:
        FolderLocked: another process holds it.
    """
    lock = disk.lock(path)
    try:
        yield
    finally:
        lock.close()
