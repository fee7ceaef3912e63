"""The head of a request as far as it matters to documents: path, type and encoding of the body, what it announces.

Takes   headers, their names in lower case.
Gives   `Head`, and its coding or the reason why the body is not taken.
Never   reads a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import Refused
from .accept import Kind
from .body import Coding

KINDS: dict[str, Kind] = {"/v1/reports": "report", "/v1/events": "events"}
PATHS: dict[Kind, str] = {kind: path for path, kind in KINDS.items()}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_CODINGS: dict[bytes, Coding] = {b"": "identity", b"identity": "identity", b"zstd": "zstd", b"gzip": "gzip"}


class Head(NamedTuple):
    """What headers say; `request_id` is the proxy's, empty if it gave none that is fit for a log."""

    type: bytes | None
    encoding: bytes
    announced_bytes: int
    expects_continue: bool
    request_id: str

    @property
    def is_taken(self) -> bool:
        """Whether `coding` has one."""
        return (self.type == b"application/json" or _is_json(self.type)) and self._coding is not None

    @property
    def _coding(self) -> Coding | None:
        return _CODINGS.get(self.encoding) or _CODINGS.get(self.encoding.strip().lower())

    def coding(self) -> Coding:
        """The coding of the body.

        Raises:
            Refused: ``unsupported_type``, ``unsupported_encoding``.
        """
        if self.type != b"application/json" and not _is_json(self.type):
            given = "missing" if self.type is None else ascii(self.type.decode("latin-1"))[:100]
            raise Refused("unsupported_type", f"the Content-Type is {given}, allowed is application/json")
        coding = self._coding
        if coding is None:
            given = ascii(self.encoding.decode("latin-1"))[:100]
            raise Refused(
                "unsupported_encoding", f"the Content-Encoding is {given}, allowed are zstd, gzip, identity or none"
            )
        return coding


def head_of(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """What these headers say."""
    kind: bytes | None = None
    encoding, announced_bytes, expects_continue, request_id = b"", 0, False, ""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding":
            encoding = value if not encoding else encoding + b"," + value
        elif name == b"content-length":
            announced_bytes = int(value) if value.isdigit() else 0
        elif name == b"expect":
            expects_continue = value.lower() == b"100-continue"
        elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode()
    return Head(kind, encoding, announced_bytes, expects_continue, request_id)


def _is_json(value: bytes | None) -> bool:
    """``application/json``, in any case, with no parameter but ``charset=utf-8``."""
    if value is None:
        return False
    kind, *parameters = (part.strip().lower() for part in value.split(b";"))
    return kind == b"application/json" and all(
        part in (b"", b"charset=utf-8", b'charset="utf-8"') for part in parameters
    )
