from __future__ import annotations

from collections.abc import Callable

import pytest

from tallypost.declared.lints import Lint
from tallypost.declared.source import uses_in
from tallypost.declared.used import compare
from tallypost_schema import declaration
from tallypost_schema.declaration import Declaration

from .conftest import ROOT

Declared = Callable[..., Declaration]
EXAMPLES = sorted(ROOT.glob("examples/**/telemetry.toml"))


def told(declared: Declaration, code: str) -> list[tuple[str, str]]:
    return [(one.code, one.sentence) for one in found(declared, code)]


def found(declared: Declaration, code: str) -> list[Lint]:
    return compare(declared, uses_in({"tool.py": code.encode()}))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_compare_of_an_example_with_its_own_code_finds_no_fault(path: object) -> None:
    """Real programs, some with integrations, count what they declare: notes at most."""
    folder = path.parent  # type: ignore[attr-defined]  # Whatever the fixture is, it is a path.
    files = {str(file): file.read_bytes() for file in folder.rglob("*") if file.suffix in (".py", ".ini")}

    faults = [
        one
        for one in compare(declaration.parse((folder / path.name).read_text()), uses_in(files))  # type: ignore[attr-defined]  # As above.
        if one.level != "note"
    ]

    assert [] == faults


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_compare_of_an_example_with_other_code_finds_each_name_unused(path: object) -> None:
    """That the examples pass is to the credit of their code."""
    declared = declaration.parse(path.read_text())  # type: ignore[attr-defined]  # As above.

    assert {"unused-name"} == {one.code for one in found(declared, "print()")}
    assert len(declared.counters) + len(declared.histograms) == len(found(declared, "print()"))


def test_compare_tells_names_that_no_code_counts(declared: Declared) -> None:
    """In each table by itself: a counter's name in a histogram's call is no use of the counter."""
    both = declared(("counters", "run"), ("counters", "export"), ("histograms", "run/seconds"), ("events", "run"))

    code = 'telemetry.counter("run")\ntelemetry.counter("run/seconds")\ntelemetry.stack("export")\n'

    assert [
        "unused-name",
        "unused-name",
        "unused-name",
    ] == [one.code for one in found(both, code) if one.level == "warning"]
    assert {'counters."export"', 'histograms."run/seconds"', 'events."run"'} == {
        one.key for one in found(both, code) if one.code == "unused-name"
    }


@pytest.mark.parametrize(
    "code",
    [
        'telemetry.counter(f"cmd/{word}")',
        'telemetry.counter(f"{word}/export")',
        'for name in ("cmd/export", "x"): telemetry.counter(name)',
        "from tallypost.contrib.click import count_runs\ncount_runs(telemetry, prefix='cmd/export/..')\n"
        'telemetry.counter("cmd/" + word)',
    ],
)
def test_compare_takes_a_name_for_used_that_a_computed_one_may_be(declared: Declared, code: str) -> None:
    """Its literal part must fit."""
    assert [] == [one for one in found(declared(("counters", "cmd/export")), code) if one.code == "unused-name"]
    assert ["unused-name"] == [
        one.code for one in found(declared(("counters", "other/one")), code) if one.level != "note"
    ]


def test_compare_of_names_that_only_a_run_knows_says_so_once(declared: Declared) -> None:
    """Nothing is called unused, and where the doubt comes from is told; names that stand in the code are not in it."""
    both = declared(("counters", "a"), ("counters", "b"), ("counters", "c"))

    assert [("computed-name", 'counters."b", counters."c" may be counted, or not (tool.py:2)')] == told(
        both, 'telemetry.counter("a")\ntelemetry.counter(name)\n'
    )
    assert [] == told(declared(("counters", "a")), 'telemetry.counter("a")\ntelemetry.counter(name)\n')


def test_compare_takes_exceptions_for_counted_by_kind(declared: Declared) -> None:
    """A stack below the name of a crash counter is used, whatever its kind; another one is not."""
    both = declared(("stacks", "crash/KeyError"), ("stacks", "export/KeyError"))

    lints = found(both, "telemetry.install_crash_counter()")

    assert [("unused-name", 'stacks."export/KeyError"')] == [(one.code, one.key) for one in lints]


def test_compare_of_the_librarys_own_declaration_finds_nothing() -> None:
    """The library counts its own names in ways of its own."""
    path = ROOT / "packages" / "shared" / "src" / "tallypost_schema" / "own.toml"

    assert [] == found(declaration.parse(path.read_text()), "print()")


def test_compare_notes_names_that_are_not_declared(declared: Declared) -> None:
    """Once each, at the first place, and as a note: to count for the user alone is a good thing to do."""
    lints = found(declared(), 'telemetry.counter("a/b")\ntelemetry.counter("a/b")\ntelemetry.event("run")\n')

    assert [
        ("undeclared-name", 'counters."a/b"', "tool.py:1", "note"),
        ("undeclared-name", 'events."run"', "tool.py:3", "note"),
    ] == [(one.code, one.key, one.place, one.level) for one in lints]


def test_compare_tells_buckets_that_no_code_counts(declared: Declared) -> None:
    """In one sentence a counter; ``other`` is nobody's to count."""
    exports = declared(("counters", "export", 'buckets = ["pdf", "html", "doc", "other"]'))

    assert [("unused-bucket", 'counters."export".buckets has html, doc, which the code counts nowhere')] == told(
        exports, 'telemetry.counter("export").inc(bucket="pdf")'
    )


@pytest.mark.parametrize(
    "code",
    [
        'telemetry.counter("export").inc(bucket=kind)',
        'telemetry.counter("export")\ndef f(counter, kind): counter.inc(bucket=kind)',
        'telemetry.counter("export").inc(bucket=f"{a}{b}")',
        'telemetry.counter("export")\nfor each in ("pdf", "html"): any_of(them).inc(1, each)',
    ],
)
def test_compare_takes_buckets_for_used_that_a_computed_one_may_be(declared: Declared, code: str) -> None:
    """Also where nobody knows which counter it is."""
    exports = declared(("counters", "export", 'buckets = ["pdf", "html", "other"]'))

    assert [] == told(exports, code)


def test_compare_of_an_unused_name_says_nothing_of_its_buckets(declared: Declared) -> None:
    """One sentence is enough."""
    exports = declared(("counters", "export", 'buckets = ["pdf"]'))

    assert ["unused-name"] == [one.code for one in found(exports, "print()")]


def test_compare_notes_buckets_that_are_not_declared(declared: Declared) -> None:
    """They are in the plain name; where ``other`` is declared they have their place."""
    code = 'telemetry.counter("export").inc(bucket="pdf")\ntelemetry.counter("export").inc(bucket="not a bucket")\n'

    without, having = declared(("counters", "export")), declared(("counters", "export", 'buckets = ["other"]'))

    assert [
        ("undeclared-bucket", 'counters."export".buckets lacks pdf: it leaves in the plain name alone (tool.py:1)')
    ] == told(without, code)
    assert [] == told(having, code)


def test_compare_advises_other_where_buckets_are_computed(declared: Declared) -> None:
    """But not for a counter that nobody knows, nor where no bucket is declared, nor of an integration's."""
    exports = declared(("counters", "export", 'buckets = ["pdf"]'))

    assert [("no-other", 'counters."export".buckets lacks other, and the code computes buckets (tool.py:1)')] == told(
        exports, 'telemetry.counter("export").inc(bucket=kind)'
    )
    assert [] == told(exports, 'telemetry.counter("export")\ndef f(counter, kind): counter.inc(bucket=kind)')
    assert [] == told(declared(("counters", "export")), 'telemetry.counter("export").inc(bucket=kind)')
    commands = declared(("counters", "cli/command", 'buckets = ["add"]'))
    assert [] == told(commands, "from tallypost.contrib.argparse import count_arguments")


def test_compare_tells_edges_that_the_code_has_otherwise(declared: Declared) -> None:
    """What is counted between other edges never leaves, so it is an error; the spelling of a number is none."""
    seconds = declared(("histograms", "run/seconds", "edges = [0.1, 1, 10]"))

    (lint,) = found(seconds, 'telemetry.histogram("run/seconds", edges=(0.1, 2))')

    assert ("other-edges", "error") == (lint.code, lint.level)
    assert 'histograms."run/seconds".edges are 0.1, 1, 10, in the code 0.1, 2 (tool.py:1)' == lint.sentence
    assert [] == found(seconds, 'telemetry.histogram("run/seconds", edges=(1e-1, 1.0, 10))')
    assert [] == found(seconds, 'telemetry.histogram("run/seconds", edges=(0.10000001, 1, 10))')
    assert [] == found(seconds, 'telemetry.histogram("run/seconds", edges=edges)')


def test_compare_tells_edges_that_an_integration_has_otherwise(declared: Declared) -> None:
    """Its own, where it is given none."""
    seconds = declared(("histograms", "http/seconds", "edges = [0.1, 1]"))
    code = "from tallypost.contrib.flask import instrument\ninstrument(app, telemetry{})\n"

    assert ["other-edges"] == [one.code for one in found(seconds, code.format(""))]
    assert [] == found(seconds, code.format(", edges=(0.1, 1)"))


def test_compare_tells_fields_that_an_event_would_be_lost_by(declared: Declared) -> None:
    """One that is not declared, or a literal of another kind; what is computed may be right."""
    export = declared(("events", "export", 'fields = { format = ["pdf"], pages = "count" }'))

    assert [
        ("other-fields", 'events."export".fields.size is not declared (tool.py:1)'),
        ("other-fields", "events.\"export\".fields.pages does not take '3' (tool.py:1)"),
    ] == told(export, 'telemetry.event("export", size=3, pages="3", format=kind)')
    assert [] == told(export, 'telemetry.event("export", pages=3, format="pdf")\nother.event("export")')


def test_compare_tells_files_that_could_not_be_read(declared: Declared) -> None:
    """What they count is not known."""
    lints = compare(declared(), uses_in({"bad.py": b"def f(:"}))

    assert [("unreadable-source", "bad.py")] == [(one.code, one.key) for one in lints]
