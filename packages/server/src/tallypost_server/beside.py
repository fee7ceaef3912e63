"""Wires what commands use beside a server, without what only a server needs: they start in a fraction of its time.

Takes   settings.
Gives   readers, checkers and a repairer on the data folder.
Never   takes the server's lock but for a repair, or imports uvicorn and Starlette.
"""

from __future__ import annotations

from .clock import SystemClock
from .disk import OsDisk
from .erased import Erased
from .errors import FolderMissing
from .ingest.applications import Applications
from .ingest.kept import KeptReader
from .ingest.quarantine import Quarantine
from .ingest.stored import StoredDocuments
from .metrics import Metrics
from .segments.check import SegmentChecker
from .segments.reader import SegmentReader
from .segments.repair import Repairer, held
from .segments.seal import Sealer
from .settings import Settings


def reader(settings: Settings) -> SegmentReader:
    """What reads the data folder's segments.

    Raises:
        FolderMissing: no server has ever worked here.
    """
    _must_be_there(settings)
    return SegmentReader(settings.data / "segments", disk=OsDisk())


def checker(settings: Settings) -> SegmentChecker:
    """What checks the data folder's segments; raises as `reader`."""
    _must_be_there(settings)
    disk = OsDisk()
    return SegmentChecker(settings.data / "segments", disk=disk, serving=lambda: disk.is_locked(settings.data / "lock"))


def kept(settings: Settings) -> KeptReader:
    """What reads the quarantine; raises as `reader`."""
    _must_be_there(settings)
    return KeptReader(settings.data / "quarantine", disk=OsDisk())


def stored_documents() -> StoredDocuments:
    """What reads documents out of files, wherever they lie."""
    return StoredDocuments(disk=OsDisk())


def applications(settings: Settings) -> Applications:
    """Who is registered, as a server that starts now would have it.

    Raises:
        FolderMissing: the applications folder is not there.
    """
    found = Applications(settings.applications, disk=OsDisk())
    found.scan()
    return found


def repairer(settings: Settings) -> Repairer:
    """What repairs the data folder's segments and quarantine; raises as `reader`."""
    _must_be_there(settings)
    disk, metrics, segments = OsDisk(), Metrics(), settings.data / "segments"
    quarantine = Quarantine(
        settings.data / "quarantine",
        disk=disk,
        clock=SystemClock(),
        metrics=metrics,
        token=lambda size: "0" * 2 * size,  # Only refused documents need one, and a repair refuses none.
        in_thread=lambda job: job(),
    )
    return Repairer(
        segments,
        disk=disk,
        checker=checker(settings),
        sealer=Sealer(
            segments,
            disk=disk,
            metrics=metrics,
            torn_keeper=quarantine,
            erased=Erased(settings.data / "erased", disk=disk),
        ),
        keeper=quarantine,
        lock=lambda: held(settings.data / "lock", disk),
    )


def _must_be_there(settings: Settings) -> None:
    if not settings.data.is_dir():
        raise FolderMissing("the data folder", settings.data)
