"""Wires what commands use beside a server, without what only a server needs: they start in a fraction of its time.

Takes   settings.
Gives   a `SegmentReader` on the data folder.
Never   takes the lock, makes a folder, or imports uvicorn and Starlette.
"""

from __future__ import annotations

from .disk import OsDisk
from .errors import FolderMissing
from .segments.reader import SegmentReader
from .settings import Settings


def reader(settings: Settings) -> SegmentReader:
    """What reads the data folder's segments.

    Raises:
        FolderMissing: no server has ever worked here.
    """
    if not settings.data.is_dir():
        raise FolderMissing("the data folder", settings.data)
    return SegmentReader(settings.data / "segments", disk=OsDisk())
