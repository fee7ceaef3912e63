from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost.contrib import http
from tallypost.contrib import pytest as pytest_plugin
from tallypost.declared.source import ANY, INTEGRATIONS, UNKNOWN, Uses, uses_in

from .conftest import ROOT, repeatable

CONTRIB = ROOT / "packages" / "client" / "src" / "tallypost" / "contrib"


def uses_of(code: str, **more: str) -> Uses:
    """The uses in ``tool.py``, and in further files by their names."""
    files = {"tool.py": code, **{f"{name}.py": text for name, text in more.items()}}
    return uses_in({path: textwrap.dedent(text).encode() for path, text in files.items()})


def names_of(uses: Uses, kind: str = "counter") -> set[str]:
    return {use.name for use in uses.names if use.kind == kind}


def buckets_of(uses: Uses) -> set[tuple[str, str]]:
    return {(use.counter, use.bucket) for use in uses.buckets}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("counter", 'telemetry.counter("cmd/export").inc()'),
        ("counter", 'self.telemetry.counter(name="cmd/export")'),
        ("histogram", 'telemetry.histogram("cmd/export", edges=(0.1, 1))'),
        ("histogram", '@telemetry.histogram("cmd/export", (0.1, 1)).time()\ndef save(): pass'),
        ("stack", 'telemetry.stack("cmd/export", depth=8).inc()'),
        ("event", 'telemetry.event("cmd/export", format="pdf")'),
    ],
)
def test_name_in_a_call_is_used(kind: str, code: str) -> None:
    """By position or by keyword, with the line on which it stands."""
    (use,) = uses_of(f"\n{code}").names

    assert (kind, "cmd/export", "tool.py:2") == (use.kind, use.name, use.place)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('f"cmd/{word}"', {"cmd/*"}),
        ('f"cmd/{word}/seconds"', {"cmd/*/seconds"}),
        ('"cmd/" + word', {"cmd/*"}),
        ('"cmd/%s/%d" % (word, 1)', {"cmd/*/*"}),
        ('"cmd/{}".format(word)', {"cmd/*"}),
        ('"cmd/a" if word else "cmd/b"', {"cmd/a", "cmd/b"}),
        ('word or "cmd/a"', {ANY, "cmd/a"}),
        ("word", {ANY}),
        ("*words", {ANY}),
        ("**words", {ANY}),
        ("name_of(word)", {ANY}),
        ("CONSTANT", {"cmd/constant"}),
        ('f"{PREFIX}/a"', {"cmd/a"}),
        ("names.ELSEWHERE", {"cmd/elsewhere"}),
        ("RENAMED", {"cmd/elsewhere"}),
        ("BY_WORD[word]", {"cmd/x", "cmd/y"}),
        ("EITHER", {"cmd/one", "cmd/other"}),
        ("SELF", {ANY}),
        ('f"{word!r}"', {ANY}),
    ],
)
def test_name_that_is_computed_has_a_star_for_what_is_not_known(name: str, expected: set[str]) -> None:
    """What the code says of it is kept, be it in a constant, here or in another file."""
    code = f"""
        from elsewhere import ELSEWHERE as RENAMED
        PREFIX = "cmd"
        CONSTANT: str = "cmd/constant"
        BY_WORD = {{"a": "cmd/x", "b": "cmd/y"}}
        EITHER = "cmd/one"
        EITHER = "cmd/other"
        SELF = SELF + OTHER
        OTHER = SELF

        def count(word, words):
            telemetry.counter({name}).inc()
    """

    assert expected == names_of(uses_of(code, elsewhere='ELSEWHERE = "cmd/elsewhere"'))


@pytest.mark.parametrize(
    "code",
    [
        'for each in ("cmd/a", "cmd/b"):\n    telemetry.counter(each).inc()',
        'counters = {each: telemetry.counter(each) for each in ["cmd/a", "cmd/b"]}',
        'NAMES = {"cmd/a": 1, "cmd/b": 2}\ncounters = [telemetry.counter(each) for each in NAMES]',
        'a, b = "cmd/a", "cmd/b"\ntelemetry.counter(a)\ntelemetry.counter(b)',
    ],
)
def test_names_in_a_loop_are_all_used(code: str) -> None:
    """Over a tuple, a list or the keys of a dictionary that stand in the code."""
    assert {"cmd/a", "cmd/b"} == names_of(uses_of(code))


@pytest.mark.parametrize("code", ["count = telemetry.counter", "map(telemetry.counter, words)", "f(by=t.counter)"])
def test_method_that_is_handed_on_may_count_anything(code: str) -> None:
    """What it is called with elsewhere is not seen, so nothing is unused."""
    assert {ANY} == names_of(uses_of(code))


@pytest.mark.parametrize(
    "code", ["numpy.stack([a, b])", "x.counter(3)", "x.counter()", 'x.event("GET /x")', 'x.counter(f"GET {path}")']
)
def test_call_of_another_library_is_no_use(code: str) -> None:
    """What cannot be a name is not counted by Tallypost."""
    assert [] == uses_of(code).names


@pytest.mark.parametrize(
    ("inc", "expected"),
    [
        ('telemetry.counter("cmd/export").inc(bucket="pdf")', {("cmd/export", "pdf")}),
        ('exports.inc(bucket="pdf")', {("cmd/export", "pdf")}),
        ('exports.inc(2, "pdf")', {("cmd/export", "pdf")}),
        ('self._exports.inc(bucket="pdf")', {("cmd/export", "pdf")}),
        ("exports.inc(bucket=kind)", {("cmd/export", ANY)}),
        ('exports.inc(bucket=f"{status // 100}xx")', {("cmd/export", "*xx")}),
        ('exports.inc(bucket="pdf" if kind else "html")', {("cmd/export", "pdf"), ("cmd/export", "html")}),
        ('files[kind].inc(bucket="1")', {("files/a", "1"), ("files/b", "1")}),
        ('elsewhere.exports_too.inc(bucket="pdf")', {("cmd/too", "pdf")}),
        ('exports_too.inc(bucket="pdf")', {("cmd/too", "pdf")}),
        ('given.inc(bucket="pdf")', {(ANY, "pdf")}),
        ('find(kind).inc(bucket="pdf")', {(ANY, "pdf")}),
        ("exports.inc()", set()),
        ("exports.inc(bucket=None)", set()),
        ("exports.inc(2)", set()),
        ("exports.inc(**words)", {("cmd/export", ANY)}),
    ],
)
def test_bucket_is_of_the_counter_that_is_at_hand(inc: str, expected: set[tuple[str, str]]) -> None:
    """By the variable or attribute that holds it, here or in another file; of any counter if nobody knows."""
    code = f"""
        from elsewhere import exports_too
        exports = telemetry.counter("cmd/export")
        files = {{"a": telemetry.counter("files/a"), "b": telemetry.counter("files/b")}}

        class Tool:
            _exports = None

            def __init__(self):
                self._exports = exports

            def run(self, given, kind, words):
                {inc}
    """

    assert expected == buckets_of(uses_of(code, elsewhere='exports_too = telemetry.counter("cmd/too")'))


def test_counter_that_a_function_was_given_may_be_any(tmp_path: Path) -> None:
    """A parameter of the same name as a variable keeps the bucket from being that variable's alone."""
    uses = uses_of('exports = telemetry.counter("a")\ndef f(exports):\n    exports.inc(bucket="pdf")\n')

    assert {("a", "pdf"), (ANY, "pdf")} == buckets_of(uses)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ("edges=(0.1, 1, 10)", (0.1, 1, 10)),
        ("[0.1, 1]", (0.1, 1)),
        ("edges=EDGES", (0.1, 1)),
        ("edges=settings.EDGES", (0.1, 1)),
        ("edges=given", None),
        ("edges=tuple(range(3))", None),
        ("edges=('a',)", None),
    ],
)
def test_edges_are_known_where_they_stand_in_the_code(edges: str, expected: tuple[float, ...] | None) -> None:
    """Literally, or in a constant that is set once."""
    (use,) = uses_of(f'EDGES = (0.1, 1)\ndef f(given):\n    telemetry.histogram("run/seconds", {edges})\n').names

    assert expected == use.edges


def test_fields_of_an_event_are_told_with_their_literals() -> None:
    """What is computed is not known; what comes in a dictionary is not even seen."""
    (use,) = uses_of('telemetry.event("export", format="pdf", pages=3, size=n, **more)').names

    assert {"format": "pdf", "pages": 3, "size": UNKNOWN} == use.given


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("Export(format='pdf')", "export"),
        ("events.FileExport()", "file-export"),
        ("Renamed()", "cmd/export"),
        ("Annotated()", "cmd/print"),
        ("Derived()", ANY),
        ("made", "file-export"),
        ("made_by(word)", ANY),
        ("given", ANY),
    ],
)
def test_event_that_is_a_dataclass_has_the_name_of_its_class(event: str, expected: str) -> None:
    """Its ``event_name``, or its own name in small words; what a class is made of may say otherwise."""
    code = f"""
        class Export: pass
        class Renamed:
            event_name = "cmd/export"
        class Annotated:
            event_name: ClassVar[str] = "cmd/print"
        class Derived(Renamed): pass
        made = FileExport()

        def log(given, word):
            telemetry.event({event})
    """

    assert {expected} == names_of(uses_of(code, events="class FileExport: pass"), "event")


def test_event_with_a_field_called_name_is_named_by_position() -> None:
    """And a field that is None is left out."""
    (use,) = uses_of('telemetry.event("export", name="pdf", pages=None)\nother.event(name="export")').names

    assert ("export", {"name": "pdf"}) == (use.name, use.given)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('with telemetry.count_exceptions("export"): pass', "export/*"),
        ("telemetry.count_exceptions()", "crash/*"),
        ("telemetry.install_crash_counter()", "crash/*"),
        ("telemetry.install_crash_counter(name=NAME)", "fall/*"),
    ],
)
def test_exceptions_are_counted_by_kind(code: str, expected: str) -> None:
    """Any kind may come, behind the name that is given."""
    assert {expected} == names_of(uses_of(f'NAME = "fall"\n{code}'), "stack")


@pytest.mark.parametrize(
    "code",
    [
        "from tallypost.contrib.click import count_runs",
        "from tallypost.contrib import click",
        "import tallypost.contrib.click",
        'MODULES = ["tallypost.contrib.click.count_runs"]',
    ],
)
def test_integration_that_the_code_brings_in_counts_its_names(code: str) -> None:
    """Imported in any way, or named in a text; its buckets are anybody's."""
    uses = uses_of(code)

    assert {"cli/command", "cli/option", "cli/exit"} == names_of(uses)
    assert {("cli/command", ANY), ("cli/option", ANY), ("cli/exit", ANY)} == buckets_of(uses)
    assert all(use.by_integration for use in (*uses.names, *uses.buckets))


@pytest.mark.parametrize(
    ("more", "edges"),
    [
        ("", http.EDGES),
        ("instrument(app, telemetry, prefix='site', edges=(1, 2))", (1, 2)),
        ("class Middleware(TallypostMiddleware):\n    prefix = 'site'\n    edges = (1, 2)", (1, 2)),
        ("def f(edges): instrument(app, telemetry, prefix='site', edges=edges)", None),
    ],
)
def test_integration_counts_behind_the_prefix_and_between_the_edges_that_it_is_given(
    more: str, edges: tuple[float, ...] | None
) -> None:
    """In a call, or in a subclass as Django has it; else its own."""
    uses = uses_of(f"from tallypost.contrib.flask import instrument\n{more}")

    histograms = [use for use in uses.names if use.kind == "histogram"]
    assert (
        {"http/seconds", "site/seconds"}
        >= {use.name for use in histograms}
        >= {"site/seconds" if more else "http/seconds"}
    )
    assert {edges} == {use.edges for use in histograms}
    assert ("site/route" in names_of(uses)) == bool(more)


@pytest.mark.parametrize(
    ("settings", "prefix"),
    [
        ("[pytest]\naddopts = -p tallypost.contrib.pytest\ntallypost = suite:telemetry\n", "pytest"),
        ('[tool.pytest.ini_options]\ntallypost_prefix = "suite"\n', "suite"),
    ],
)
def test_pytests_settings_may_bring_the_plugin_in(settings: str, prefix: str) -> None:
    """It need not be named in any Python file."""
    uses = uses_in({"pytest.ini": settings.encode()})

    assert f"{prefix}/outcome" in names_of(uses)
    assert f"{prefix}/seconds" in names_of(uses, "histogram")


def test_settings_without_the_plugin_bring_nothing_in() -> None:
    """A file of settings is no code, and need not be text."""
    assert Uses() == uses_in({"pyproject.toml": b"\xff\n[tool.pytest.ini_options]\naddopts = '-q'\n"})


def test_integrations_are_those_of_contrib_with_their_names_and_edges() -> None:
    """What the modules count, by the names that stand in them."""
    sources = {path.stem: path.read_text("utf-8") for path in CONTRIB.glob("*.py")}
    public = set(re.findall(r"\[`(\w+)`\]\(#", (ROOT / "docs" / "client" / "contrib.md").read_text("utf-8")))
    literal = {
        "".join(part.value if isinstance(part, ast.Constant) else ANY for part in node.values)
        for text in sources.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.FormattedValue)
    }

    counted = {f"{ANY}/{name}" for one in INTEGRATIONS.values() for name in one.counters}
    timed = {f"{ANY}/seconds" for one in INTEGRATIONS.values() if one.seconds_edges}

    assert public == set(INTEGRATIONS)
    assert counted | timed == {name for name in literal if name.startswith(f"{ANY}/")}
    assert http.EDGES == INTEGRATIONS["asgi"].seconds_edges
    assert pytest_plugin.EDGES == INTEGRATIONS["pytest"].seconds_edges
    for module, one in INTEGRATIONS.items():
        reached = sources[module] + sources["http"] + sources["command_line"]
        assert f'prefix: str = "{one.prefix}"' in reached, module


@pytest.mark.parametrize(
    "content", [b"def f(:\n", b"\x00", b"# coding: nonsense\n", b"(" * 5000, b"\xff\xfe"], ids=lambda one: repr(one[:9])
)
def test_file_that_is_no_python_is_told_and_the_rest_is_read(content: bytes) -> None:
    """One broken file does not hide what the others count."""
    uses = uses_in({"bad.py": content, "good.py": b'telemetry.counter("run")'})

    assert ["bad.py"] == list(uses.unreadable)
    assert {"run"} == names_of(uses)


def test_file_of_sums_without_end_is_told() -> None:
    """A text added up of thousands is read to no end."""
    uses = uses_of(f"telemetry.counter({' + '.join(['x'] * 900)})")

    assert names_of(uses) == {ANY} or list(uses.unreadable) == ["tool.py"]


def test_file_with_a_careless_escape_is_read_without_a_warning() -> None:
    """How the code is written is not asked for here."""
    assert {"run"} == names_of(uses_of('pattern = "\\d"\ntelemetry.counter("run")'))


def test_identifiers_that_lead_to_each_other_end() -> None:
    """Many names, each of them given any other: no way through them is walked twice."""
    names = [f"n{number}" for number in range(60)]
    code = "".join(f"{name} = {' or '.join(names)}\n" for name in names)

    assert {ANY} == names_of(uses_of(f"{code}telemetry.counter(n0)"))


def test_texts_that_multiply_are_taken_for_unknown() -> None:
    """Of each of so many words with each other nobody asks for the list."""
    words = ", ".join(f'"w{number}"' for number in range(30))
    code = f"for a in ({words}):\n    for b in ({words}):\n        telemetry.counter(a + '/' + b)\n"

    assert all(ANY in name for name in names_of(uses_of(code)))


PIECES = """
telemetry .counter .inc .event ( ) [ ] { } : = , * x "a" f"{x}" bucket edges name for in lambda if else prefix 1
"""


@repeatable
@given(st.lists(st.sampled_from([*PIECES.split(), " ", "\n"]), max_size=30))
def test_source_of_any_shape_is_read_or_told(pieces: list[str]) -> None:
    """Nothing that a file may hold raises."""
    uses = uses_of("from tallypost.contrib import click\n" + "".join(pieces))

    assert bool(uses.unreadable) != ("cli/command" in names_of(uses))
