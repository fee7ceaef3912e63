"""One JSON object out of bytes, or the reason why there is none.

Takes   bytes, decompressed and within the size.
Gives   the object, as plain dicts, lists and scalars.
Never   accepts what two readers could read differently: duplicate keys, NaN, lone surrogates, trailing bytes.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from . import limits
from .errors import Malformed

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_TO_ROUND = bytes.maketrans(b"{}[]", b"()()")


def decode(body: bytes) -> dict[str, Any]:
    """The one JSON object that `body` is.

    Raises:
        Malformed: `body` is not one UTF-8 JSON object, repeats a key, or is nested too deep.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Malformed(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed(f"the document is a JSON {_kind(value)}, allowed is one object")
    # msgspec keeps the last of two equal keys in silence, so the keys are counted in the text as well:
    # outside of strings every colon belongs to one key.
    structure = _STRING.sub(b"", body)
    depth = _depth(structure)
    if depth > limits.nesting_max:
        raise Malformed(f"nested deeper than the {limits.nesting_max} levels allowed")
    if structure.count(b":") != _keys(value):
        raise Malformed("an object has the same key twice")
    return value


def _depth(structure: bytes) -> int:
    """How deep brackets are nested; counting ends one above the limit."""
    brackets = structure.translate(_TO_ROUND, _NO_BRACKETS)
    depth = 0
    while brackets and depth <= limits.nesting_max:
        brackets = brackets.replace(b"()", b"")
        depth += 1
    return depth


def _keys(value: dict[str, Any] | list[Any]) -> int:
    keys, waiting = 0, [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            keys += len(value)
            waiting += [item for item in value.values() if isinstance(item, (dict, list))]
        else:
            waiting += [item for item in value if isinstance(item, (dict, list))]
    return keys


def _kind(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
