"""The endpoint: where documents are posted.

Takes   text.
Gives   yes or no.
Never   opens a connection. It is asked while an application starts, so it imports next to nothing.
"""

from __future__ import annotations

from tallypost_schema import names


def is_endpoint(text: str) -> bool:
    """Whether `text` may be an endpoint: an address such as ``https://telemetry.example.org``."""
    if not text.startswith(("https://", "http://")) or names.has_control(text) or " " in text:
        return False
    return text.split("/", 3)[2] != ""
