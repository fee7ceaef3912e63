"""The upload config as it was last had: fetched before the fold, kept for when the server cannot be reached.

Takes   an endpoint and the transport.
Gives   what the server asks for now, or the last that it asked for, or None.
Never   widens anything (``reports/narrow.py``); never fetches by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tallypost_schema import upload_config
from tallypost_schema.errors import SchemaError
from tallypost_schema.upload_config import UploadConfig

from ..errors import NoAnswer
from ..seams import Disk
from ..state_directory import StateDirectory
from .worker import Progress

if TYPE_CHECKING:
    from .transport import Transport


class _Kept(msgspec.Struct):
    """The last upload config, the ETag it came with, and the endpoint that gave both."""

    endpoint: str
    etag: str | None
    config: UploadConfig


class KeptConfig:
    """The upload config of one application."""

    def __init__(self, directory: StateDirectory, *, disk: Disk) -> None:
        self._directory, self._disk = directory, disk

    def last(self) -> UploadConfig | None:
        """What was last had, or None."""
        kept = self._kept()
        return kept.config if kept is not None else None

    def fetch(self, endpoint: str, transport: Transport, progress: Progress) -> UploadConfig | None:
        """What the server asks for now; where that cannot be had, the last.

        Raises:
            OSError: it could not be kept.
        """
        kept = self._kept()
        etag = kept.etag if kept is not None and kept.endpoint == endpoint else None
        url = f"{endpoint.rstrip('/')}/v1/config/{self._directory.application}"
        try:
            answer = transport.get(url, etag)
            if answer.status == 200:
                config = upload_config.decode(answer.body)
                content = msgspec.json.encode(_Kept(endpoint, answer.headers.get("etag"), config))
                self._disk.replace(self._directory.upload_config, content, durable=False)
                return config
            if answer.status != 304:
                progress(f"the upload config could not be had (HTTP {answer.status}); the last one holds")
        except (NoAnswer, SchemaError) as error:
            progress(f"the upload config could not be had ({error}); the last one holds")
        return kept.config if kept is not None else None

    def _kept(self) -> _Kept | None:
        try:
            return msgspec.json.decode(self._disk.read(self._directory.upload_config), type=_Kept)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
