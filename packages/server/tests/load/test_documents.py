from __future__ import annotations

import collections
import datetime
import itertools
import json
import random
from typing import Any

import pytest

from tallypost_schema import declaration as declarations
from tallypost_server.errors import NothingDeclared
from tallypost_server.ingest.accept import Kind, accept
from tallypost_server.ingest.applications import Declared
from tallypost_server.load.documents import Documents

AT = datetime.datetime(2026, 11, 24, 10, 0, tzinfo=datetime.timezone.utc)
HEAD = 'application = "example.org/my-tool"\n'
COMMON = 'why = "x"\nowner = "x"\nexpires = "never"\n'
ALL = (
    f'{HEAD}[counters."cmd/export"]\n{COMMON}buckets = ["pdf", "html"]\n'
    f'[counters."cmd/rare"]\n{COMMON}rate = 0.25\n'
    f'[histograms."export/seconds"]\n{COMMON}edges = [0.1, 1, 10]\n'
    f'[stacks."crash/KeyError"]\n{COMMON}depth = 32\npackages = ["mytool"]\n'
    f"[events.export]\n{COMMON}"
    'fields = { format = ["pdf"], pages = "count", took = "seconds", size = "bytes", first = "flag", none = [] }\n'
)


def make(text: str = ALL, *, seed: int = 1, models: int = 300, **options: Any) -> Documents:
    return Documents([declarations.parse(text)], at=AT, draw=random.Random(seed), models=models, **options)


def some(documents: Documents, count: int = 700) -> list[tuple[Kind, bytes]]:
    return list(itertools.islice(iter(documents), count))


def test_documents_are_stored_whole() -> None:
    """The server takes each of them, and the declaration names all that is in it."""
    declared = Declared(declarations.parse(ALL))

    for kind, body in some(make()):
        accepted = accept(body, kind, find={"example.org/my-tool": declared}.__getitem__, received=AT)
        assert {} == accepted.dropped


def test_no_two_reports_have_one_id_and_no_two_sessions_one_name() -> None:
    """Models come again, as other documents; a server that keeps each id once keeps them all."""
    documents = [json.loads(body) for _, body in some(make(models=50), 1000)]

    ids = [one["id"] for one in documents if one["kind"] == "report"]
    batches = [(one["session"], one["first"]) for one in documents if one["kind"] == "events"]
    assert (len(ids), len(batches)) == (len(set(ids)), len(set(batches)))
    assert 0 < len({session for session, _ in batches}) < len(batches)


def test_session_is_complete_when_all_its_batches_are_posted() -> None:
    """Its indexes follow each other from 0, and its last batch closes it."""
    sessions = collections.defaultdict(list)
    for _, body in some(make(kinds=("events",))):
        batch = json.loads(body)
        sessions[batch["session"]].append(batch)
    sessions.popitem()  # Cut off where the test stopped asking.

    for batches in sessions.values():
        expected = 0
        for batch in batches:
            assert expected == batch["first"]
            expected += len(batch["events"])
        assert [None] * (len(batches) - 1) + [expected - 1] == [batch["terminal"] for batch in batches]


def test_rate_decides_what_a_report_has() -> None:
    """A counter is in a report only where x is below its rate, as a client does it."""
    reports = [json.loads(body) for _, body in some(make(kinds=("report",)))]

    rare = [one["x"] for one in reports if any("cmd/rare" in program["counters"] for program in one["programs"])]
    assert rare
    assert max(rare) < 0.25


def test_one_seed_makes_the_same_documents() -> None:
    """A load can be run again."""
    assert some(make(seed=7)) == some(make(seed=7))
    assert some(make(seed=7)) != some(make(seed=8))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (HEAD, ("report", "events")),
        (f"{HEAD}[counters.x]\n{COMMON}", ("events",)),
        (f"{HEAD}[events.x]\n{COMMON}", ("report",)),
        (f'{HEAD}[counters.x]\nwhy = "x"\nowner = "x"\nexpires = 2026-11-24\n', ("report",)),
    ],
)
def test_nothing_to_make_documents_of_is_said(text: str, kinds: tuple[Kind, ...]) -> None:
    """A declaration without a name that may leave, today and of this kind, makes no empty load."""
    with pytest.raises(NothingDeclared, match=r"looked at example\.org/my-tool; name one with --declaration"):
        make(text, kinds=kinds)


def test_stack_without_declared_packages_and_kinds_that_are_lacking_are_no_trouble() -> None:
    """What is there is posted."""
    documents = make(f"{HEAD}[stacks.x]\n{COMMON}")

    assert {"report"} == documents.kinds
    stacks = [
        stack for _, body in some(documents, 50) for one in json.loads(body)["programs"] for stack in one["stacks"]
    ]
    assert all(stack.startswith("x\nmy_tool.") for stack in stacks)
