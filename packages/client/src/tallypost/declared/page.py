"""The page for users: what is counted, why, for how long, who wants it, how to see it, how to stop it.

Takes   a declaration, and the day it is.
Gives   a title and sections of paragraphs, points, tables and examples; or the same as facts, for a page of one's own.
Never   knows how a page is written down (``html.py``, ``markdown.py``), nor what was counted on any machine.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

from tallypost_schema import documents, names, own
from tallypost_schema.declaration import Counter, Declaration, Entry, Event, Histogram, Stack

from . import sample
from .lints import tables_of


@dataclass(frozen=True)
class Code:
    """A word to be read letter by letter."""

    text: str


@dataclass(frozen=True)
class Link:
    """An address, under its own name."""

    text: str
    address: str


Text: TypeAlias = "tuple[str | Code | Link, ...]"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: Text


@dataclass(frozen=True)
class Points:
    """A list."""

    points: tuple[Text, ...]


@dataclass(frozen=True)
class Row:
    """A row of a table, headed by its first cell; one that is `over` holds no more."""

    cells: tuple[Text, ...]
    over: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its caption, the heads of its columns, its rows."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Example:
    """Lines as they stand."""

    text: str


Block: TypeAlias = Paragraph | Points | Table | Example


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """The page; `about` is a sentence for those who look for it."""

    title: str
    about: str
    sections: tuple[Section, ...]


_WEB = re.compile(r"https?://\S+")
_MAILBOX = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
# What an address is made of; anything else in it is written with a percent sign.
_SAFE = ":/?#[]@!$&'()*+,;=%-._~"
_KINDS = {"count": "a whole number", "seconds": "seconds", "bytes": "bytes", "flag": "yes or no"}
_CAPTIONS = {
    "counters": "Counters: how often something was done",
    "histograms": "Histograms: how values are spread",
    "stacks": "Stack counters: where in the program something happened",
    "events": "Events: single occasions, each with its time",
}


def page(declared: Declaration, *, today: datetime.date) -> Page:
    """The page, as things stand on that day."""
    application = declared.application
    return Page(
        f"What {application} counts",
        f"What {application} counts, why, for how long, who wants it, how to see it and how to stop it",
        (
            Section("In short", tuple(_in_short(declared, today))),
            Section("What may leave", tuple(_may_leave(declared, today))),
            Section("What can never leave", tuple(_never_leaves(declared))),
            Section("A whole document, as an example", tuple(_examples(declared, today))),
            Section("How to see it", tuple(_see(declared))),
            Section("How to say yes, and how to stop it", tuple(_decide(application))),
            Section("What the library counts of itself", tuple(_own())),
            Section("Whom to ask", tuple(_ask(declared))),
        ),
    )


def facts(declared: Declaration, *, today: datetime.date) -> dict[str, Any]:
    """What the page says of this declaration, as plain values."""
    made = (sample.report(declared, today=today), sample.batch(declared, today=today))
    return {
        "application": declared.application,
        "contact": declared.contact,
        "about": declared.about,
        "consent_version": declared.consent_version,
        "day": today.isoformat(),
        **{
            table: [{"name": name, **_facts(entry, today)} for name, entry in entries.items()]
            for table, entries in tables_of(declared).items()
        },
        "examples": [json.loads(documents.encode(document)) for document in made if document is not None],
    }


def _facts(entry: Entry, today: datetime.date) -> dict[str, Any]:
    expires = entry.expires.isoformat() if entry.expires is not None else "never"
    return {**dataclasses.asdict(entry), "expires": expires, "expired": entry.expired(today)}


# -------------------------------------------------------------------- sections


def _in_short(declared: Declaration, today: datetime.date) -> Iterator[Block]:
    yield Paragraph(
        (
            Code(declared.application),
            " counts how it is used. The counts lie on your machine, in files that you can read. Nothing leaves it "
            "unless you say yes; then what this page lists may be sent to the makers, once a day.",
        )
    )
    yield Paragraph(
        (
            "The list is the application's declaration, ",
            Code("telemetry.toml"),
            ", which ships in it: what it does not name cannot leave. This page was made from it as things stand on "
            f"{today.isoformat()} (all days are UTC days). Your yes is to consent version {declared.consent_version}: "
            "when the makers ask for more the version grows, and you are asked again. The server that takes it can ask "
            "for less than this, never for more.",
        )
    )


def _may_leave(declared: Declaration, today: datetime.date) -> Iterator[Block]:
    heads = ("Name", "Why", "What leaves", "Who wants it", "Until, not included", "How much of it")
    tables = tables_of(declared)
    if not any(tables.values()):
        yield Paragraph(("Nothing: the declaration names nothing.",))
        return
    for table, entries in tables.items():
        if entries:
            whole = "sessions" if table == "events" else "reports"
            rows = tuple(
                Row(
                    (
                        (Code(name),),
                        (entry.why,),
                        tuple(_leaving(entry)),
                        (entry.owner,),
                        (_until(entry, today),),
                        (_share(entry.rate, whole),),
                    ),
                    over=entry.expired(today),
                )
                for name, entry in entries.items()
            )
            yield Table(_CAPTIONS[table], heads, rows)
    yield Paragraph(("Beside these, a document has:",))
    yield Points(
        (
            (
                "the name and version of the program, the version of Python, the kind of system and of processor (",
                *_listed(("3.12", "linux", "x86_64")),
                ");",
            ),
            ("the day that was counted, the day of the report before it, the version of the server's settings;",),
            (
                "random numbers, drawn anew for each report and for each run that has events: by them a document that "
                "is sent twice is known, and nothing leads from one to the next.",
            ),
        )
    )


def _leaving(entry: Entry) -> Iterator[str | Code]:
    """The exact words that may leave."""
    if isinstance(entry, Counter):
        yield "a number"
        if entry.buckets:
            yield ", and one for each of "
            yield from _listed(entry.buckets)
    elif isinstance(entry, Histogram):
        yield "a number for each of "
        yield from _listed(names.histogram_buckets(entry.edges))
    elif isinstance(entry, Stack):
        yield f"a number for each way there: up to {entry.depth} places (module, function, line)"
        if entry.packages:
            yield ", of those in "
            yield from _listed(entry.packages)
        else:
            yield ", but of no package, so that no place is told"
    elif isinstance(entry, Event):
        yield "the time"
        for key, kind in entry.fields.items():
            yield "; "
            yield Code(key)
            if isinstance(kind, str):
                yield f": {_KINDS[kind]}"
            else:
                yield ": one of " if kind else ": nothing"
                yield from _listed(kind)


def _until(entry: Entry, today: datetime.date) -> str:
    if entry.expires is None:
        return "no end is set"
    day = entry.expires.isoformat()
    return f"expired on {day}: leaves no more" if entry.expired(today) else day


def _share(rate: float, whole: str) -> str:
    if rate == 1:
        return f"in all {whole}"
    return f"in {format(rate * 100, 'g')} % of {whole}, drawn at random" if rate > 0 else f"in no {whole}"


def _never_leaves(declared: Declaration) -> Iterator[Block]:
    text: Text = (
        "Text that does not stand on this page word for word, apart from the program's name and version, and the kinds "
        "of system and processor: no name or content of a file, no path, no argument, no message, nothing you type.",
    )
    if declared.stacks:
        text = (*text, " Of stack counters the modules and functions leave, by the names that the makers gave them.")
    yield Points(
        (
            ("Whatever this page does not name. It may be counted on your machine, for you alone.",),
            text,
            ("An identifier of you, of your machine or of the installation: there is none.",),
            ("What was counted before your yes, or on the day of it.",),
            ("What has expired, from that day on.",),
        )
    )
    yield Paragraph(
        (
            "A post is a web request: the server that takes it sees the address from which it comes, as any web server "
            "does. The address is no part of a document, and Tallypost's own server does not write it down.",
        )
    )


def _examples(declared: Declaration, today: datetime.date) -> Iterator[Block]:
    report, batch = sample.report(declared, today=today), sample.batch(declared, today=today)
    if report is None and batch is None:
        yield Paragraph(("There is none: nothing may leave.",))
    if report is not None:
        yield Paragraph(
            ("A report, with all that may be in one; the numbers are made up. A real one has no line breaks.",)
        )
        yield Example(_spread(report))
    if batch is not None:
        yield Paragraph(("A batch of events, with one of each kind, as made up:",))
        yield Example(_spread(batch))


def _spread(document: documents.Document) -> str:
    return json.dumps(json.loads(documents.encode(document)), indent=2, ensure_ascii=False)


def _see(declared: Declaration) -> Iterator[Block]:
    application = declared.application
    events = ((Code(f"tallypost --app {application} show --events"), " shows its events, each on a line."),)
    yield Points(
        (
            (
                Code(f"tallypost --app {application} status"),
                " says what is decided, by whom, what waits, what was sent.",
            ),
            (Code(f"tallypost --app {application} show"), " shows what has been counted, today included."),
            *(events if declared.events else ()),
            (
                Code(f"tallypost --app {application} preview"),
                " prints the exact bytes that would be sent next, also before you have said yes.",
            ),
        )
    )
    yield Paragraph(("All of it lies in one folder of yours, and what was sent lies there as it was sent:",))
    yield Points(
        (
            *((f"{system}: ", Code(folder)) for system, folder in _folders(application).items()),
            ("elsewhere, if the variable ", Code("TALLYPOST_DIR"), " says so: below the folder that it names"),
        )
    )


def _folders(application: str) -> dict[str, str]:
    """Where the application's files lie, by system, if no variable says otherwise (``state_directory.py``)."""
    return {
        "Linux": f"~/.local/state/tallypost/{application}",
        "macOS": f"~/Library/Application Support/tallypost/{application}",
        "Windows": "%LOCALAPPDATA%\\tallypost\\" + application.replace("/", "\\"),
    }


def _decide(application: str) -> Iterator[Block]:
    yield Points(
        (
            (
                Code(f"tallypost --app {application} on"),
                " says yes: what is counted from the next day on may be sent.",
            ),
            (
                Code(f"tallypost --app {application} local"),
                " says no: it is counted for you alone, nothing is sent, and what waited is withdrawn.",
            ),
            (
                Code(f"tallypost --app {application} off"),
                " says no to counting, too. A post that is under way at that moment may still arrive.",
            ),
            (Code(f"tallypost --app {application} forget"), " removes all of it from your machine; an off is kept."),
        )
    )
    yield Paragraph(("Without the command:",))
    yield Points(
        (
            ("set the variable ", Code("DO_NOT_TRACK=1"), ": off, for each application that heeds it;"),
            ("set the variable ", Code("TALLYPOST=off"), ", or ", Code("TALLYPOST=local"), ": the same, by its name;"),
            ("write the word ", Code("off"), " into the file ", Code("mode"), " in the folder named above;"),
            ("on a machine of many users, write it into ", Code("/etc/tallypost/mode"), "."),
        )
    )
    yield Paragraph(("In CI, and where a test runner runs the application, it is off by itself.",))


def _own() -> Iterator[Block]:
    yield Paragraph(
        ("Losses, so that nobody takes too small a number for the truth. They leave under the same conditions.",)
    )
    rows = tuple(Row(((Code(name),), (entry.why,))) for name, entry in own.OWN.counters.items())
    yield Table("Counters of the library", ("Name", "What it counts"), rows)


def _ask(declared: Declaration) -> Iterator[Block]:
    if declared.contact is None:
        yield Paragraph(("The makers name no address.",))
    else:
        yield Paragraph(("The makers: ", _address(declared.contact)))
    if declared.about is not None:
        yield Paragraph(("More about it: ", _address(declared.about)))


def _address(text: str) -> str | Link:
    """A link where it is surely one: to a web page, or to a mailbox."""
    if _WEB.fullmatch(text):
        return Link(text, quote(text, safe=_SAFE))
    return Link(text, f"mailto:{text}") if _MAILBOX.fullmatch(text) else text


def _listed(words: Iterable[str]) -> Iterator[str | Code]:
    for place, word in enumerate(words):
        if place:
            yield ", "
        yield Code(word)
