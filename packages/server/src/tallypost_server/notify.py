"""What a service manager is told: that documents are taken, that the loop turns, that the server stops.

Takes   ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC``, as systemd sets them for ``Type=notify``.
Gives   datagrams to that socket; nothing where nobody asked for any.
Never   fails a server: a manager that cannot be told is said once, and time-outs of its own tell it the rest.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

from .clock import Clock

_log = logging.getLogger(__name__)


class Manager:
    """Whoever started the server and wants to know how it does."""

    def __init__(self, environment: Mapping[str, str], *, clock: Clock) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A name without a file begins with a nought byte, which no variable can hold.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._clock = clock
        told = environment.get("WATCHDOG_USEC", "")
        # Twice within the time: one that comes late is no death.
        self._watchdog_seconds = int(told) / 2e6 if told.isascii() and told.isdigit() else 0.0

    def tell(self, *lines: str) -> None:
        """Tell it some ``NAME=value``."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as caller:
                caller.sendto("\n".join(lines).encode(), self._address)
        except OSError as failure:
            _log.warning("the service manager cannot be told: %s", failure)
            self._address = ""

    def tell_alive(self) -> None:
        """Tell the watchdog, if it wants to hear."""
        if self._watchdog_seconds:
            self.tell("WATCHDOG=1")

    async def keep_telling(self) -> None:
        """Tell the watchdog, as long as this loop turns and it wants to hear."""
        while self._address and self._watchdog_seconds:
            self.tell_alive()
            await self._clock.sleep(self._watchdog_seconds)
