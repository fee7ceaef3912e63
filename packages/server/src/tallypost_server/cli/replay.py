"""``replay``: the documents of segments, or of the quarantine, are posted again into a running server.

Takes   files: sealed or open segments from anywhere, files of a quarantine; the server's address.
Gives   exit 0 only if every document in them has a receipt; progress on standard error.
Never   changes or removes what it reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import limits
from ..beside import stored_documents
from ..clock import Clock, SystemClock
from ..errors import NoTallypost, StillBusy, WrongUse
from ..posting import Document, post_over_http
from ..settings import Listen, Settings
from .numbers import above_0

HELP = "Post the documents of segments or of the quarantine again, into a running server; exit 0 if all have receipts."
EXAMPLE = "tallypost-server replay backup/documents-*.jsonl.zst --to https://telemetry.example.org"
SETTINGS = frozenset({"listen"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, and where they go."""
    parser.add_argument(
        "files",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="A sealed segment (.jsonl.zst), an open one (.open), or a file of a quarantine (.json).",
    )
    add_destination(parser)


def add_destination(parser: argparse.ArgumentParser) -> None:
    """Where documents are posted, and how long a server that takes nothing is waited for."""
    parser.add_argument(
        "--to", metavar="URL", default=None, help="The server, or unix:PATH; by default what --listen says."
    )
    parser.add_argument(
        "--patience",
        metavar="S",
        type=above_0,
        default=600.0,
        help="Give up when the server took nothing for so many seconds (default 600).",
    )


def destination(to: str | None, settings: Settings) -> str | Listen:
    """Where documents go.

    Raises:
        WrongUse: it is no address.
    """
    if to is None:
        return settings.listen
    if to.startswith("unix:") and to != "unix:":
        return Listen("", 0, to.removeprefix("unix:"))
    if not to.startswith(("http://", "https://")):
        raise WrongUse(f"--to is {to!a:.80}, allowed is http://HOST:PORT, https://HOST or unix:PATH")
    return to


class Account:
    """What became of the documents, and how far it is."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._told_at = clock, clock.monotonic()
        self.documents = self.with_receipt = self.refusals = self.unreadable = 0

    def stored(self, document: Document) -> None:
        """One more has its receipt."""
        self.with_receipt += 1
        self._tell()

    def refused(self, document: Document, why: str) -> None:
        """One more is refused for good."""
        self.refusals += 1
        if self.refusals <= limits.problems_told_max:
            say(f"{document.place}: refused: {why}")
        elif self.refusals == limits.problems_told_max + 1:
            say("more are refused, and only counted from here on")

    def waiting(self, seconds: float, why: str) -> None:
        """The server takes nothing just now."""
        self._tell(f", waiting {seconds:g} s: {why}")

    def cannot_read(self, place: str, why: str) -> None:
        """One more is no document."""
        self.unreadable += 1
        if self.unreadable <= limits.problems_told_max:
            say(f"{place}: not posted: {why}")

    def counted(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The same documents, counted."""
        for document in documents:
            self.documents += 1
            yield document

    def facts(self) -> dict[str, int]:
        """What `--json` prints."""
        left = self.documents - self.with_receipt - self.refusals
        return {
            "stored": self.with_receipt,
            "refused": self.refusals,
            "unreadable": self.unreadable,
            "without_answer": left,
        }

    def _tell(self, more: str = "") -> None:
        if self._clock.monotonic() - self._told_at >= limits.progress_seconds:
            self._told_at = self._clock.monotonic()
            say(f"{self.with_receipt} stored, {self.refusals} refused{more}")


def say(text: str) -> None:
    """A line about what is under way."""
    print(f"tallypost-server: {text}", file=sys.stderr, flush=True)


def post(documents: Iterable[Document], account: Account, settings: Settings, arguments: argparse.Namespace) -> bool:
    """Post them; whether the server stored or refused every one."""
    clock, to = SystemClock(), destination(arguments.to, settings)
    try:
        asyncio.run(
            post_over_http(account.counted(documents), account, to=to, clock=clock, patience_seconds=arguments.patience)
        )
    except (StillBusy, NoTallypost) as failure:
        say(str(failure))
        return False
    return True


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Post everything, a file after the other."""
    account = Account(SystemClock())
    read = stored_documents()
    for file in arguments.files:
        read.must_be_one(file)
    documents = (document for file in arguments.files for document in read.documents(file, account.cannot_read))
    ended = post(documents, account, settings, arguments)
    facts = account.facts()
    if arguments.json:
        print(json.dumps(facts))
    else:
        told = f"{facts['stored']} stored, {facts['refused']} refused, {facts['unreadable']} unreadable"
        print(told if ended else f"{told}; not all were posted")
    return 0 if ended and facts["stored"] == account.documents and not facts["unreadable"] else 1
