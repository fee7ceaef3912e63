from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tallypost.cli.commands import COMMANDS
from tallypost.declared.page import Code, Example, Link, Page, Paragraph, Points, Row, Table, facts, page
from tallypost.state_directory import base_directory
from tallypost_schema import declaration, documents, own
from tallypost_schema.declaration import Declaration

from .conftest import ENTRY, HEAD, ROOT, TODAY

Declared = Callable[..., Declaration]
FILES = sorted([*ROOT.glob("examples/**/telemetry.toml"), *ROOT.glob("tests/**/*.toml")])


def texts(made: Page) -> Iterator[tuple[str | Code | Link, ...]]:
    """All that the page says, in order."""
    for section in made.sections:
        for block in section.blocks:
            if isinstance(block, Paragraph):
                yield block.text
            elif isinstance(block, Points):
                yield from block.points
            elif isinstance(block, Table):
                yield from (cell for row in block.rows for cell in row.cells)


def said(made: Page) -> str:
    """The page in one text."""
    return "\n".join("".join(part if isinstance(part, str) else part.text for part in text) for text in texts(made))


def codes(made: Page) -> set[str]:
    return {part.text for text in texts(made) for part in text if isinstance(part, Code)}


def tables(made: Page) -> list[Table]:
    return [block for section in made.sections for block in section.blocks if isinstance(block, Table)]


def found(made: Page, kind: str, name: str) -> Row:
    """The row of a name, in the table whose caption begins with `kind`."""
    (row,) = [row for one in tables(made) if one.caption.startswith(kind) for row in one.rows if name_in(row) == name]
    return row


def name_in(row: Row) -> str:
    return "".join(part.text for part in row.cells[0] if isinstance(part, Code))


def cells(made: Page, kind: str, name: str) -> list[str]:
    """The cells of a row, as text."""
    row = found(made, kind, name)
    return ["".join(part if isinstance(part, str) else part.text for part in cell) for cell in row.cells]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_page_of_a_real_declaration_says_all_of_it(path: object) -> None:
    """Each name with its reason and owner, and each word that may leave, letter by letter."""
    declared = declaration.parse(path.read_text("utf-8"))  # type: ignore[attr-defined]  # Whatever the fixture is, it is a path.

    made = page(declared, today=TODAY)

    for entries in (declared.counters, declared.histograms, declared.stacks, declared.events):
        for name, entry in entries.items():
            assert name in codes(made)
            assert entry.why in said(made)
            assert entry.owner in said(made)
    words = {name.partition(":")[2] for name in declared.counter_names} - {""}
    assert words <= codes(made)
    assert declared.application in made.title
    assert str(declared.contact) in said(made)


def test_page_tells_the_words_of_each_kind(declared: Declared) -> None:
    """Buckets, the buckets between edges, packages and depth, fields with their words or kinds."""
    made = page(
        declared(
            ("counters", "run"),
            ("counters", "export", 'buckets = ["pdf", "html"]'),
            ("histograms", "run/seconds", "edges = [0.1, 1]"),
            ("stacks", "crash/KeyError", 'depth = 3\npackages = ["mytool", "more"]'),
            ("stacks", "crash/OSError", "packages = []"),
            ("events", "export", 'fields = { format = ["pdf", "html"], pages = "count", none = [] }'),
        ),
        today=TODAY,
    )

    assert "a number" == cells(made, "Counters", "run")[2]
    assert "a number, and one for each of pdf, html" == cells(made, "Counters", "export")[2]
    assert "a number for each of <=0.1, <=1, >1" == cells(made, "Histograms", "run/seconds")[2]
    assert cells(made, "Stack", "crash/KeyError")[2].startswith("a number for each way there: up to 3 places")
    assert cells(made, "Stack", "crash/KeyError")[2].endswith("of those in mytool, more")
    assert cells(made, "Stack", "crash/OSError")[2].endswith("no place is told")
    assert (
        "the time; format: one of pdf, html; pages: a whole number; none: nothing" == cells(made, "Events", "export")[2]
    )


@pytest.mark.parametrize(
    ("expires", "until", "over"),
    [
        ('"never"', "no end is set", False),
        ("2026-11-25", "2026-11-25", False),
        ("2026-11-24", "expired on 2026-11-24: leaves no more", True),
        ("2020-01-01", "expired on 2020-01-01: leaves no more", True),
    ],
)
def test_page_marks_what_has_expired_on_its_day(declared: Declared, expires: str, until: str, over: bool) -> None:
    """What leaves no more still stands there, so that who looks for it finds it, but in no example."""
    made = page(declared(("counters", "run", "", ENTRY.replace('"never"', expires))), today=TODAY)

    assert until == cells(made, "Counters", "run")[4]
    assert over == found(made, "Counters", "run").over
    examples = [block for section in made.sections for block in section.blocks if isinstance(block, Example)]
    assert over == (examples == [])


@pytest.mark.parametrize(
    ("kind", "rate", "share"),
    [
        ("counters", "1", "in all reports"),
        ("counters", "0.25", "in 25 % of reports, drawn at random"),
        ("counters", "0.001", "in 0.1 % of reports, drawn at random"),
        ("counters", "0", "in no reports"),
        ("events", "0.5", "in 50 % of sessions, drawn at random"),
    ],
)
def test_page_tells_the_share(declared: Declared, kind: str, rate: str, share: str) -> None:
    """Events are drawn by session, all else by report."""
    made = page(declared((kind, "run", f"rate = {rate}")), today=TODAY)

    assert share == cells(made, kind.capitalize(), "run")[5]


def test_page_has_whole_documents_as_examples(declared: Declared) -> None:
    """They are documents, with line breaks put in; a report and a batch."""
    made = page(declared(("counters", "run"), ("events", "run")), today=TODAY)

    examples = [block.text for section in made.sections for block in section.blocks if isinstance(block, Example)]
    report, batch = (json.dumps(json.loads(text), separators=(",", ":")).encode() for text in examples)
    assert "run" in documents.decode_report(report).programs[0].counters
    assert "run" == documents.decode_batch(batch).events[0].name


def test_page_of_an_empty_declaration_says_that_nothing_leaves(declared: Declared) -> None:
    """Without a table or an example."""
    made = page(declared(head='application = "a"\n'), today=TODAY)

    assert ["Counters of the library"] == [one.caption for one in tables(made)]
    assert "Nothing: the declaration names nothing." in said(made)
    assert "There is none: nothing may leave." in said(made)
    assert "The makers name no address." in said(made)


def test_page_tells_how_to_see_it_and_how_to_stop_it(declared: Declared) -> None:
    """With commands that exist, the variables, the mode file and the folders in which it lies."""
    made = page(declared(("counters", "run")), today=TODAY)

    commands = {code.removeprefix("tallypost --app example.org/mytool ") for code in codes(made) if "--app" in code}
    assert {"status", "show", "preview", "on", "local", "off", "forget"} == commands
    assert commands <= set(COMMANDS)
    assert {"DO_NOT_TRACK=1", "TALLYPOST=off", "TALLYPOST_DIR", "mode", "/etc/tallypost/mode"} <= codes(made)
    for platform in ("linux", "darwin"):
        assert f"{base_directory({'HOME': '~'}, platform)}/example.org/mytool" in codes(made)
    assert r"%LOCALAPPDATA%\tallypost\example.org\mytool" in codes(made)


def test_page_of_a_declaration_with_events_tells_how_to_see_them(declared: Declared) -> None:
    """They are not in the table of counts."""
    shown = "tallypost --app example.org/mytool show --events"

    assert shown in codes(page(declared(("events", "run")), today=TODAY))
    assert shown not in codes(page(declared(("counters", "run")), today=TODAY))


def test_page_tells_what_the_library_counts_of_itself(declared: Declared) -> None:
    """All of its own declaration."""
    made = page(declared(), today=TODAY)

    assert {name: entry.why for name, entry in own.OWN.counters.items()} == {
        name: cells(made, "Counters", name)[1] for name in own.OWN.counters
    }


@pytest.mark.parametrize(
    ("contact", "address"),
    [
        ("privacy@example.org", "mailto:privacy@example.org"),
        ("https://example.org/privacy?a=1&b=2", "https://example.org/privacy?a=1&b=2"),
        ("http://example.org/<b>", "http://example.org/%3Cb%3E"),
        ("https://example.org/ü", "https://example.org/%C3%BC"),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("https://example.org/ and more", None),
        ("privacy@example.org, or the forum", None),
        ("privacy@example.org?subject=x", None),
        ("the forum", None),
    ],
)
def test_page_links_an_address_where_it_is_surely_one(declared: Declared, contact: str, address: str | None) -> None:
    """A web page or a mailbox; no other scheme, and no sentence."""
    made = page(declared(head=HEAD.replace("privacy@example.org", contact)), today=TODAY)

    links = [part for text in texts(made) for part in text if isinstance(part, Link)]
    assert ([Link(contact, address)] if address else []) == links
    assert contact in said(made)


def test_facts_are_those_of_the_page(declared: Declared) -> None:
    """As plain values that JSON has, all keys of the declaration among them."""
    some = declared(
        ("counters", "run", 'buckets = ["a"]\nrate = 0.5', ENTRY.replace('"never"', "2026-11-24")),
        ("events", "run", 'fields = { a = "count" }'),
    )

    told = json.loads(json.dumps(facts(some, today=TODAY)))

    why = {"why": "Which commands are used", "owner": "core team"}
    assert [{"name": "run", **why, "expires": "2026-11-24", "rate": 0.5, "buckets": ["a"], "expired": True}] == told[
        "counters"
    ]
    assert [
        {"name": "run", **why, "expires": "never", "rate": 1.0, "fields": {"a": "count"}, "expired": False}
    ] == told["events"]
    assert ("example.org/mytool", "privacy@example.org", None, 1, "2026-11-24") == tuple(
        told[key] for key in ("application", "contact", "about", "consent_version", "day")
    )
    assert ["events"] == [document["kind"] for document in told["examples"]]
