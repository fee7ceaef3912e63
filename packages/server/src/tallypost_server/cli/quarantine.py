"""``quarantine``: what was refused and why, one of it, and what would be taken now, posted again.

Takes   the quarantine of the data folder, beside a server or without one; the declarations in force.
Gives   facts on standard output; with ``replay`` exit 0 only if every document posted has a receipt.
Never   removes a document that has no receipt.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from .. import beside
from ..clock import SystemClock
from ..errors import FolderMissing, KeptDamaged, WrongUse
from ..ingest.applications import Declared
from ..ingest.kept import Judged, KeptFile, KeptReader, judge
from ..posting import Document
from ..settings import Settings
from .replay import Account, add_destination, post, say

HELP = "Print what was refused, with reasons; show NAME prints one, replay posts what would be accepted now."
EXAMPLE = "tallypost-server quarantine replay --to http://127.0.0.1:8080"
SETTINGS = frozenset({"listen", "applications"})
_Find = Callable[[str], Declared]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which of them."""
    parser.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        choices=("list", "show", "replay"),
        default="list",
        help="list (the default), show, or replay: post what would be accepted now, and remove it once it is stored.",
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="*", default=[], help="Of these files alone, as list names them."
    )
    add_destination(parser)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Do it."""
    reader = beside.kept(settings)
    if arguments.action == "show":
        return _show(reader, settings, arguments)
    if arguments.action == "replay":
        return _replay(reader, settings, arguments)
    return _list(reader, settings, arguments)


def _list(reader: KeptReader, settings: Settings, arguments: argparse.Namespace) -> int:
    find, files = _find(settings), []
    for file in _files(reader, arguments.names):
        facts = _facts(file, _judged(file, find))
        files.append(facts)
        if not arguments.json:
            columns = [facts["name"], facts["at"], facts["code"], facts["app"] or "-", f"{facts['bytes']} bytes"]
            columns += ["would be accepted now"] * (facts["now"] == "accepted")
            print("  ".join(map(_plain, columns)) + "\n    " + _plain(facts["message"]))
    if arguments.json:
        print(json.dumps({"files": files, "aside": reader.damaged()}))
    else:
        aside = reader.damaged()
        print(f"{len(files)} refused, {sum(facts['now'] == 'accepted' for facts in files)} would be accepted now")
        if aside:
            print(f"{len(aside)} damaged files put aside whole, in quarantine/damaged/")
    return 0


def _show(reader: KeptReader, settings: Settings, arguments: argparse.Namespace) -> int:
    if len(arguments.names) != 1:
        raise WrongUse("quarantine show takes the name of one file, as quarantine lists it")
    file = reader.read(_own_name(arguments.names[0]))
    judged = _judged(file, _find(settings))
    facts = _facts(file, judged)
    document = None if judged is None or judged.document is None else judged.document.decode("utf-8", "replace")
    if arguments.json:
        print(json.dumps({**facts, "document": document, "body": file.kept.body}))
        return 0
    for key, value in facts.items():
        print(f"{key:<9} {'-' if value is None else _plain(str(value))}")
    readable = document is not None and document.replace("\n", "").isprintable() and "\ufffd" not in document
    print(document if readable else base64.b64encode(file.body).decode("ascii"))
    return 0


def _replay(reader: KeptReader, settings: Settings, arguments: argparse.Namespace) -> int:
    find, settled = beside.applications(settings).find, _Settled(reader)
    waiting = 0

    def documents() -> Iterator[Document]:
        nonlocal waiting
        for file in _files(reader, arguments.names):
            judged = judge(file, find=find, now=SystemClock().now())
            if judged.document is None or judged.refused is not None:
                waiting += 1
            else:
                yield Document(file.name, file.kept.source, judged.document, file.name)

    ended = post(documents(), settled, settings, arguments)
    facts = {**settled.facts(), "would_be_refused": waiting}
    del facts["unreadable"]
    if arguments.json:
        print(json.dumps(facts))
    else:
        print(
            f"{facts['stored']} stored and removed from the quarantine, {facts['refused']} refused again, "
            f"{waiting} would be refused and stay"
        )
    return 0 if ended and settled.with_receipt == settled.documents else 1


class _Settled(Account):
    """Takes away what has its receipt."""

    def __init__(self, reader: KeptReader) -> None:
        super().__init__(SystemClock())
        self._reader = reader

    def stored(self, document: Document) -> None:
        self._reader.settle(document.place)
        super().stored(document)


def _files(reader: KeptReader, names: list[str]) -> Iterator[KeptFile]:
    """The files of these names, or all. What is dropped meanwhile, or damaged, is left out."""
    for name in map(_own_name, names) if names else reader.names():
        try:
            file = reader.read(name)
        except FileNotFoundError:
            if names:
                raise
            continue
        except KeptDamaged as damage:
            say(f"{damage}; see tallypost-server verify")
            continue
        yield file


def _plain(text: str) -> str:
    """Text for a terminal: whoever posted a document chose some of it."""
    return text if text.isprintable() else ascii(text)


def _own_name(name: str) -> str:
    """The name of a file in the quarantine, and of none elsewhere."""
    if "/" in name or not name.endswith(".json"):
        raise WrongUse(f"{name!a:.80} is no name of a file in the quarantine: see tallypost-server quarantine")
    return name


def _find(settings: Settings) -> _Find | None:
    try:
        return beside.applications(settings).find
    except FolderMissing as failure:
        say(f"{failure}; what would be accepted now cannot be told")
        return None


def _judged(file: KeptFile, find: _Find | None) -> Judged | None:
    return None if find is None else judge(file, find=find, now=SystemClock().now())


def _facts(file: KeptFile, judged: Judged | None) -> dict[str, Any]:
    """What is told of one; `now` is what the server would say of it: accepted, or the code of its refusal."""
    now = None
    if judged is not None and file.is_document:
        now = "accepted" if judged.refused is None else judged.refused.code
    return {
        "name": file.name,
        "at": file.kept.at,
        "code": file.kept.code,
        "message": file.kept.message,
        "source": file.kept.source,
        "encoding": file.kept.encoding,
        "app": None if judged is None else judged.application,
        "bytes": len(file.body),
        "now": now,
    }
