from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost.declared import sample
from tallypost.reports.narrow import narrow
from tallypost_schema import declaration, documents
from tallypost_schema.declaration import Declaration

from .conftest import ENTRY, HEAD, ROOT, TODAY, repeatable, table

Declared = Callable[..., Declaration]
FILES = sorted([*ROOT.glob("examples/**/telemetry.toml"), *ROOT.glob("tests/**/*.toml")])


def check(declared: Declaration, today: datetime.date) -> None:
    """Both documents keep the rules, and no more is in them than may leave."""
    report, batch = sample.report(declared, today=today), sample.batch(declared, today=today)
    if report is not None:
        assert report == documents.decode_report(documents.encode(report))
        (program,) = report.programs
        counted = {**program.counters, **program.stacks}
        assert counted == narrow(counted, declaration=declared, config=None, x=report.x, today=today)
    if batch is not None:
        assert batch == documents.decode_batch(documents.encode(batch))
        for event in batch.events:
            assert isinstance(event.name, str)
            assert isinstance(event.fields, dict)
            entry = declared.events[event.name]
            assert all(entry.accepts(key, value) for key, value in event.fields.items())
            assert documents.session_x(batch.session) < entry.rate


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_sample_of_a_real_declaration_is_what_may_leave(path: object) -> None:
    """All names that may leave are in it, and the documents are ones that a server takes."""
    declared = declaration.parse(path.read_text("utf-8"))  # type: ignore[attr-defined]  # Whatever the fixture is, it is a path.

    check(declared, TODAY)

    report = sample.report(declared, today=TODAY)
    assert report is not None
    expected = {name for name in declared.counter_names if name != "cmd/retired"}
    assert expected == set(report.programs[0].counters)


def test_sample_leaves_out_what_has_expired_and_what_has_no_rate(declared: Declared) -> None:
    """As a real one does."""
    some = declared(
        ("counters", "old", "", ENTRY.replace('"never"', TODAY.isoformat())),
        ("counters", "seldom", "rate = 0.001"),
        ("counters", "never", "rate = 0"),
        ("events", "old", "", ENTRY.replace('"never"', TODAY.isoformat())),
    )

    report = sample.report(some, today=TODAY)

    assert report is not None
    assert {"seldom": 3} == report.programs[0].counters
    assert report.x < 0.001
    assert sample.batch(some, today=TODAY) is None


def test_sample_of_nothing_that_may_leave_is_none(declared: Declared) -> None:
    """A report without a number is not made."""
    assert (None, None) == (sample.report(declared(), today=TODAY), sample.batch(declared(), today=TODAY))


def test_sample_of_a_stack_has_frames_to_its_depth_of_its_packages(declared: Declared) -> None:
    """The innermost ones; without packages, or with one that is too long, none is told."""
    stacks = declared(
        ("stacks", "a/A"),
        ("stacks", "b/B", "depth = 1"),
        ("stacks", "c/C", "packages = []"),
        ("stacks", "d/D", f'packages = ["{"x" * 5000}"]'),
    )

    report = sample.report(stacks, today=TODAY)

    assert report is not None
    assert [
        "a/A\nmytool.cli:main:+12\nmytool.io:load:+4",
        "b/B\nmytool.io:load:+4",
        "c/C\n?:?:+0",
        "d/D\n?:?:+0",
    ] == list(report.programs[0].stacks)


rates = st.sampled_from(["", "rate = 0", "rate = 0.5", "rate = 1e-300"])
expiries = st.dates(min_value=datetime.date(2026, 1, 1)).map(datetime.date.isoformat) | st.just('"never"')
fields = st.sampled_from(
    ["", "fields = { a = 'count', b = ['x y', '|'], c = 'flag', d = 'seconds', e = 'bytes', f = [] }"]
)


@repeatable
@given(st.data())
def test_sample_of_any_declaration_keeps_the_rules(data: st.DataObject) -> None:
    """Whatever rates, expiries, buckets and fields there are."""
    text = HEAD
    for number in range(data.draw(st.integers(0, 6))):
        kind = data.draw(st.sampled_from(["counters", "histograms", "stacks", "events"]))
        more = [data.draw(rates)]
        if kind == "counters":
            more.append(data.draw(st.sampled_from(["", "buckets = ['pdf', '<=0.1', 'other']"])))
        if kind == "events":
            more.append(data.draw(fields))
        text += table(kind, f"n{number}", "\n".join(more), ENTRY.replace('"never"', data.draw(expiries)))

    check(declaration.parse(text), TODAY)
