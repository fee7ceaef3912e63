"""The quarantine as commands see it: what was refused, one file at a time, beside a server that adds and drops.

Takes   the folder ``quarantine/``.
Gives   its files with their bodies; what is damaged of them; for a document what `accept` would say of it now.
Never   writes, or takes away what has no receipt; never counts on a file to be there a moment later.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast, get_args

import msgspec

from tallypost_schema.outcomes import CODES

from .. import limits
from ..clock import moment_of
from ..disk import Disk
from ..errors import Declined, KeptDamaged, Refused
from ..segments.check import Checked, Problem
from .accept import accept
from .applications import Declared
from .body import Coding, Decoder
from .head import KINDS
from .quarantine import DAMAGED, KEPT_ENDING, Kept

_TORN = "torn_frame"
_decoder = msgspec.json.Decoder(Kept)


class KeptFile(NamedTuple):
    """A file of the quarantine, and the bytes that were refused."""

    name: str
    kept: Kept
    body: bytes

    @property
    def is_document(self) -> bool:
        """Whether it was posted; else it is a damaged stretch of a segment."""
        return self.kept.code != _TORN


class Judged(NamedTuple):
    """A document as it would be taken now: why not (None: it would be accepted), and which application it names."""

    refused: Declined | None
    document: bytes | None
    application: str | None


class KeptReader:
    """Reads what lies in the quarantine."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._folder, self._disk = folder, disk

    def names(self) -> list[str]:
        """The names of what is kept, oldest first."""
        return [name for name in self._disk.names(self._folder) if name.endswith(KEPT_ENDING)]

    def damaged(self) -> list[str]:
        """The names of the damaged files that were put aside whole."""
        return self._disk.names(self._folder / DAMAGED)

    def read(self, name: str) -> KeptFile:
        """One file.

        Raises:
            FileNotFoundError: it was dropped meanwhile, or never was.
            KeptDamaged: it is none.
        """
        path = self._folder / name
        size = self._disk.stat(path).size
        if size > limits.kept_bytes_max:
            raise KeptDamaged(
                name, f"it has {size} bytes, a file of the quarantine has {limits.kept_bytes_max} at most"
            )
        try:
            kept = _decoder.decode(self._disk.read(path))
            body = base64.b64decode(kept.body, validate=True)
            moment_of(kept.at)
        except (msgspec.MsgspecError, ValueError, RecursionError) as failure:
            raise KeptDamaged(name, f"it is no file of the quarantine: {failure}") from failure
        if kept.code != _TORN and not (
            kept.code in CODES and kept.source in KINDS and kept.encoding in get_args(Coding) and kept.offset is None
        ):
            raise KeptDamaged(name, "it does not say what was refused, where and why")
        return KeptFile(name, kept, body)

    def settle(self, name: str) -> None:
        """Take away what the server has stored meanwhile."""
        self._disk.unlink(self._folder / name)

    def check(self) -> Iterator[Checked]:
        """Each file, and what is wrong with it."""
        for name in self.names():
            path, problems = self._folder / name, []
            try:
                self.read(name)
            except FileNotFoundError:
                continue
            except KeptDamaged as damage:
                problems = [Problem(damage.reason)]
            yield Checked(path, "quarantine", 0, problems)


def document_of(file: KeptFile) -> bytes:
    """The document that was posted.

    Raises:
        Refused: there is none in these bytes.
    """
    if not file.is_document:
        raise Refused("malformed", "it is a damaged stretch of a segment, no document")
    return Decoder().decode(file.body, cast(Coding, file.kept.encoding))


def judge(file: KeptFile, *, find: Callable[[str], Declared], now: datetime.datetime) -> Judged:
    """What the server would say of this document now."""
    document = None
    try:
        document = document_of(file)
        accept(document, KINDS[file.kept.source], find=find, received=now)
    except Declined as declined:
        return Judged(declined, document, _application_in(document))
    return Judged(None, document, _application_in(document))


class _Named(msgspec.Struct):
    """Of a document the application alone."""

    app: str


def _application_in(document: bytes | None) -> str | None:
    if document is None:
        return None
    try:
        return msgspec.json.decode(document, type=_Named).app[:200]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
