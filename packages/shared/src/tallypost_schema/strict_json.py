"""One JSON object out of bytes, or the reason why there is none.

Takes   bytes, decompressed and within the size.
Gives   the object, as plain dicts, lists and scalars.
Never   accepts what two readers could read differently: duplicate keys, NaN, lone surrogates, trailing bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import limits
from .errors import Malformed

_NO_MARKS = bytes(set(range(256)) - set(b'{}[]:"'))
_TO_ROUND = bytes.maketrans(b"{}[]", b"()()")

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def decode(body: bytes) -> dict[str, Any]:
    """The one JSON object that `body` is.

    Raises:
        Malformed: `body` is not one UTF-8 JSON object, repeats a key, is nested too deep or has too many containers.
    """
    opened = body.count(b"{") + body.count(b"[")
    # With so few brackets nothing can be too deep or too many. Else those in strings are left out.
    marks = _marks(body) if opened > limits.nesting_max else b""
    containers = marks.count(b"{") + marks.count(b"[")
    if containers > limits.containers_max:
        raise Malformed(f"{containers} objects and arrays, allowed are {limits.containers_max} in one document")
    try:
        value = _decoder.decode(body)
        if _is_too_deep(marks):
            raise RecursionError
        again = _encoder.encode(value)
    except RecursionError as error:
        raise Malformed(f"nested deeper than the {limits.nesting_max} levels allowed") from error
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: bytes that are not UTF-8, too many digits.
        raise Malformed(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed(f"the document is a JSON {_kind(value)}, allowed is one object")
    # Of two equal keys the decoder keeps the last in silence, and then what it read is shorter than the text: outside
    # of strings every colon belongs to one key. Our own clients' documents come back byte for byte.
    if again != body and _marks(again).count(b":") != _marks(body).count(b":"):
        raise Malformed("an object has the same key twice")
    return value


def _marks(text: bytes) -> bytes:
    """The braces, brackets and colons of a JSON text that stand outside of strings, in their order."""
    if b"\\" in text:  # Only strings hold backslashes. Without these pairs every quote begins or ends a string.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes side by side may go, also as the end of one string and the begin of the next: what stands before and
    # behind them stays inside or outside. A regular expression for strings takes ten times as long.
    marks = text.translate(None, _NO_MARKS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2])


def _is_too_deep(marks: bytes) -> bool:
    """Whether brackets, each with its partner, are nested deeper than allowed."""
    brackets = marks.translate(_TO_ROUND, b":")
    for _ in range(limits.nesting_max):
        if not brackets:
            return False
        brackets = brackets.replace(b"()", b"")  # The innermost level of each branch.
    return bool(brackets)


def _kind(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
