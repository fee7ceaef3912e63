"""The description of the HTTP interface, OpenAPI 3.1: `openapi.json` beside this module, as it is served.

Takes   nothing.
Gives   its bytes.
Never   is made from the code: it is a promise, and tests hold each answer of the server against it.
"""

from __future__ import annotations

from pathlib import Path


def description() -> bytes:
    """The file."""
    return Path(__file__).with_name("openapi.json").read_bytes()
