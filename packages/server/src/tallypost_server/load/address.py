"""Where a load goes.

Takes   a URL: ``http://…``, ``https://…``, or ``unix:PATH`` as the server itself listens on.
Gives   an `Address`.
Never   looks a name up.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

RULE = "http://HOST[:PORT][/PREFIX], https://HOST[:PORT][/PREFIX] or unix:PATH"


class Address(NamedTuple):
    """A host and port, or the path of a socket."""

    host: str
    port: int
    path: str
    tls: bool
    prefix: str  # What stands before the paths of the interface.
    name: str  # As the Host header has it.

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{'https' if self.tls else 'http'}://{self.name}{self.prefix}"


def address_of(url: str) -> Address:
    """The address that a URL names.

    Raises:
        ValueError: it names none.
    """
    if url.startswith("unix:") and url != "unix:":
        return Address("", 0, url.removeprefix("unix:"), False, "", "localhost")
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username is not None
        or parts.query
        or parts.fragment
        or not all("!" <= letter <= "~" for letter in url)
    ):
        raise ValueError(RULE)
    return Address(parts.hostname, parts.port or (443 if tls else 80), "", tls, parts.path.rstrip("/"), parts.netloc)
