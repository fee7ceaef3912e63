"""``Retry-After``: when a sender may come again, as a server says it (RFC 9110, 10.2.3).

Takes   the header's text, and the moment.
Gives   seconds, or nothing where it says nothing that can be used.
Never   bounds them: that is the sender's policy.
"""

from __future__ import annotations

from datetime import timezone
from email.utils import parsedate_to_datetime


def seconds_in(text: str, now: float) -> float | None:
    """The wish in seconds from `now` (UTC seconds); None where none can be read, or it lies in the past."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        # Of HTTP's three forms one names no zone: all of them are in UTC.
        wish = (at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)).timestamp() - now
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return wish if wish >= 0 else None
