"""Admission: whether a request is taken at all, before a byte of its body is read.

Takes   the server's state, and the bounds on what is under way.
Gives   nothing, or the reason why not: always the server's own trouble, so always 503.
Never   looks at a document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from ..errors import Declined, NotTaking, TooMuchWaiting

State: TypeAlias = Literal["starting", "taking", "stopping"]

_WORDS: dict[str, str] = {
    "starting": "the server is starting; send again in a moment",
    "stopping": "the server is stopping; send again in a moment",
}


class Admission:
    """Counts what is under way, and knows whether the server takes anything. Used in the event loop only."""

    def __init__(self, *, requests_max: int, held_bytes_max: int, trouble: Callable[[], Declined | None]) -> None:
        self._requests_max, self._held_bytes_max, self._trouble = requests_max, held_bytes_max, trouble
        self.state: State = "starting"
        self._requests = 0
        self._held_bytes = 0

    def enter(self) -> None:
        """Begin a request; `leave` ends it.

        Raises:
            NotTaking, TooMuchWaiting: the request has not begun.
        """
        if self.state != "taking":
            raise NotTaking(self.state, _WORDS[self.state])
        if self._requests >= self._requests_max:
            raise TooMuchWaiting("requests", given=self._requests + 1, allowed=self._requests_max)
        self._requests += 1

    @property
    def keeps_connections(self) -> bool:
        """Whether a connection may be used again; while the server stops the next request would be cut off."""
        return self.state != "stopping"

    def leave(self) -> None:
        """End a request."""
        self._requests -= 1

    def hold(self, size: int) -> None:
        """Hold so many bytes more of bodies that are not whole yet; `release` lets them go.

        Raises:
            TooMuchWaiting: they are not held.
        """
        if self._held_bytes + size > self._held_bytes_max:
            raise TooMuchWaiting("bytes of bodies", given=self._held_bytes + size, allowed=self._held_bytes_max)
        self._held_bytes += size

    def release(self, size: int) -> None:
        """Let bytes go."""
        self._held_bytes -= size

    def not_ready(self) -> Declined | None:
        """Why nothing could be stored just now, or None. May block for a moment: it asks the disk."""
        if self.state != "taking":
            return NotTaking(self.state, _WORDS[self.state])
        return self._trouble()
