"""Where an application's files lie on a user's machine, and what each is called.

Takes   an application's name, the environment, the platform.
Gives   paths.
Never   touches the disk.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def base_directory(environ: Mapping[str, str], platform: str = sys.platform) -> str:
    """The folder under which each application's state directory lies.

    ``TALLYPOST_DIR``, or the user's folder for state as ``platformdirs`` has it: it is data that the machine can lose
    without the user losing work, and it is no configuration.
    """
    given = environ.get("TALLYPOST_DIR")
    if given:
        return given
    home = environ.get("HOME") or os.path.expanduser("~")
    if platform == "win32":
        local = environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
        return os.path.join(local, "tallypost")
    if platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "tallypost")
    # A relative path here is to be ignored (XDG base directory specification).
    state = environ.get("XDG_STATE_HOME", "")
    return os.path.join(state if os.path.isabs(state) else os.path.join(home, ".local", "state"), "tallypost")


class StateDirectory:
    """The names of everything in one application's state directory."""

    def __init__(self, base: str, application: str) -> None:
        self.application = application
        self.path = path = os.path.join(os.path.abspath(base), *application.split("/"))
        self.readme = os.path.join(path, "README.txt")
        self.mode = os.path.join(path, "mode")
        self.counts = os.path.join(path, "counts")
        self.events = os.path.join(path, "events")
        self.reports = os.path.join(path, "reports")
        self.pending = os.path.join(path, "uploads", "pending")
        self.sent = os.path.join(path, "uploads", "sent")
        self.refused = os.path.join(path, "uploads", "refused")
        self.private = os.path.join(path, "private")
        self.begins = os.path.join(self.private, "begins")
        self.declarations = os.path.join(self.private, "declarations")
        self.sessions = os.path.join(self.private, "sessions")
        self.last_run = os.path.join(self.private, "last-run")
        self.not_before = os.path.join(self.private, "not-before")
        self.upload_state = os.path.join(self.private, "uploads.json")
        self.upload_config = os.path.join(self.private, "config.json")
        self.uploader_lock = os.path.join(self.private, "uploader.lock")

    def folders(self) -> tuple[str, ...]:
        """Every folder, parents first."""
        return (
            self.path,
            self.counts,
            self.reports,
            os.path.dirname(self.pending),
            self.pending,
            self.sent,
            self.refused,
            self.private,
            self.begins,
            self.declarations,
            self.events,
            self.sessions,
        )

    def local_report(self, day: str) -> str:
        """The path of a day's local report."""
        return os.path.join(self.reports, f"local.{day}.json")

    def session_log(self, session: str) -> str:
        """The path of a session's log."""
        return os.path.join(self.events, f"{session}.jsonl")

    def session_lock(self, session: str) -> str:
        """The path of the lock that a session's process holds for the session's life."""
        return os.path.join(self.sessions, f"{session}.life")

    def append_lock(self, session: str) -> str:
        """The path of the lock that is held for as long as a session's log is appended to, or cut."""
        return os.path.join(self.sessions, f"{session}.append")

    def declared_events(self, key: str) -> str:
        """The path of a declaration's events, as their writer reads them."""
        return os.path.join(self.declarations, f"{key}.events")

    def declaration(self, key: str) -> str:
        """The path of a declaration that some count file was made under, by its CRC and length."""
        return os.path.join(self.declarations, f"{key}.toml")


def documents_in(listing: Iterable[str]) -> list[str]:
    """The names of documents in a folder's listing, without receipts and reasons."""
    return [name for name in listing if name.endswith(".json") and (name.count(".") == 1 or is_batch(name))]


def is_batch(name: str) -> bool:
    """Whether a document's name is that of a batch: ``<session>.<first>.json``."""
    stem, _, rest = name.partition(".")
    first = rest.removesuffix(".json")
    return len(stem) == 32 and first.isascii() and first.isdigit()


README = """\
This folder belongs to {application}, which counts what it does with Tallypost.

Everything here can be read: counts/ holds what is being counted today, reports/ what was counted on each day.
Nothing leaves this machine unless you say yes; uploads/sent/ holds exactly what left.

    tallypost --app {application} status     what is counted, who decided, what was sent
    tallypost --app {application} show       the counts
    tallypost --app {application} off        stop: nothing is counted, nothing is sent
    tallypost --app {application} forget     remove all of this

Without the command: write the word "off" into the file "mode" beside this one.
"""
