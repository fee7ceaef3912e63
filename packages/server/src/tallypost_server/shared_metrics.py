"""Metrics of several workers as one page: each writes its own down now and then, and whoever is asked reads all.

Takes   one worker's metrics, the folder in which the others' lie.
Gives   Prometheus' text, every sample labelled with its worker.
Never   adds numbers up: a worker that is started again begins at 0, and only Prometheus knows what that means.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from .disk import Disk
from .metrics import Metrics

_decoder = msgspec.json.Decoder(dict[str, list[str]])


class SharedMetrics:
    """One worker's view of all workers' metrics."""

    def __init__(self, folder: Path, metrics: Metrics, number: int, *, disk: Disk) -> None:
        self._folder, self._metrics, self._number, self._disk = folder, metrics, number, disk

    def write(self) -> None:
        """Write this worker's down; where the disk refuses the last ones stay."""
        made = self._folder / f"{self._number}.making"
        try:
            self._disk.unlink(made)
            file = self._disk.create(made)
            try:
                file.write(msgspec.json.encode(self._metrics.samples(self._number)))
            finally:
                file.close()
            self._disk.rename(made, self._folder / f"{self._number}.json")
        except OSError:
            return

    def text(self) -> str:
        """All workers' samples: this one's of now, the others' of a moment ago."""
        others = []
        for name in self._disk.names(self._folder):
            if name.endswith(".json") and name != f"{self._number}.json":
                try:
                    others.append(_decoder.decode(self._disk.read(self._folder / name)))
                except (OSError, msgspec.MsgspecError):
                    continue
        return self._metrics.text(self._metrics.samples(self._number), *others)
