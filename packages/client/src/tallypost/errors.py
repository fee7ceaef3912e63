"""What can go wrong, grouped by the moment it happens.

    TallypostError
    ├── while declaring       WrongUse            a name, edge or setting that is not allowed (also a ValueError)
    ├── while setting up      NoStateDirectory    the folder cannot be used: another user's, read-only, a file
    │                         NoApplication       the command does not know which application is meant
    └── while posting         NoAnswer            nothing came back that could be an answer; the same bytes go again

Recording raises none of them: what cannot be counted is counted as lost (``losses.py``).
"""

from __future__ import annotations


class TallypostError(Exception):
    """The root; each message says what was given, what is allowed and what to do."""


class WrongUse(TallypostError, ValueError):
    """Raised where something is declared, so that it is found in development."""

    def __init__(self, what: str, given: object, allowed: str) -> None:
        self.what, self.given, self.allowed = what, given, allowed
        super().__init__(f"{what} is {given!a}, allowed is {allowed}")


class NoStateDirectory(TallypostError):
    """The state directory cannot be used; a process that counts goes on in memory."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"the state directory {path} cannot be used: {reason}")


class LogBusy(TallypostError):
    """A session log was held by whoever cuts it for longer than an append waits; its events wait for the next one."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"the session log {path} is held by another process; its events wait")


class NoApplication(TallypostError):
    """A command cannot tell which application is meant."""


class NoAnswer(TallypostError):
    """Name resolution, connection, TLS, time-out, or an answer cut short."""

    retry = True  # Nothing is known of what the server did; a repeat is recognised by its id.

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no answer: {reason}")
