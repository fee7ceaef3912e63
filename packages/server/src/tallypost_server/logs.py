"""The log: one line an entry on standard error, in UTC, for people or for machines.

Takes   entries of the logging module.
Gives   text, or an object in a line.
Never   a payload or an address of a sender: nobody hands one in.
"""

from __future__ import annotations

import logging
import sys
import time

import msgspec

from .settings import LogFormat


class _Text(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime


class _Json(_Text):
    """An object in a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": self.formatTime(record, self.datefmt),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def log_to_stderr(form: LogFormat = "text") -> None:
    """One line an entry on standard error, in UTC; from uvicorn only what is amiss."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
