"""The server's word about a document: a receipt, or an error body.

Takes   bytes of an answer, or facts.
Gives   structs and bytes.
Never   decides what follows from an answer (``outcomes.py``).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

Sha256: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Receipt(Struct, frozen=True):
    """The document with this SHA-256, taken before compression, is on disk."""

    stored: Sha256


class ErrorDetail(Struct, frozen=True):
    """Why there is no receipt; `retry` says whether the same bytes may be sent again."""

    code: str
    message: str
    retry: bool


class ErrorBody(Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def hash_of(document: bytes) -> str:
    """The name by which receipts know a document: the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(document).hexdigest()


def encode_receipt(stored: str) -> bytes:
    """The receipt's bytes."""
    return b'{"stored":"%s"}' % stored.encode("ascii")


def encode_error(code: str, message: str, *, retry: bool) -> bytes:
    """The error body's bytes."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(code, message, retry)))


def is_receipt_of(body: bytes, document: bytes) -> bool:
    """Whether `body` is the receipt of exactly these bytes."""
    try:
        receipt = msgspec.json.decode(body, type=Receipt)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return receipt.stored == hash_of(document)


def error_in(body: bytes) -> ErrorDetail | None:
    """The error that `body` tells in our form, or None: then somebody else answered."""
    try:
        return msgspec.json.decode(body, type=ErrorBody).error
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
